// What the spotter was trained on, and when it is sure of a word: as `ssmrt demo --wav` decides it (python/ssmrt/demo.py).

// The greatest sample of every clip.
export const PEAK = 0.704;
export const SURE = 0.9;
// It knows clips of one second: so many windows of one second begin in each second of a longer sound.
export const WINDOWS = 4;
// Samples that an AudioWorklet hears at a time.
export const BLOCK = 128;
// Windows that are quieter than this part of the loudest one hold no word,
const QUIET = 0.1;
// nor, where sound goes on without end, windows that are not so much louder than the quietest second of late.
const ABOVE_NOISE = 2;
const LATE_SECONDS = 10;

export function chances(scores) {
  const greatest = Math.max(...scores);
  const powers = Array.from(scores, (score) => Math.exp(score - greatest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

export const bestOf = (values) => values.indexOf(Math.max(...values));

// The power of the window that ends with each report, and null before the first second has passed.
export function windowPowers(powers) {
  return powers.map((_, i) => (i + 1 < WINDOWS ? null : powers.slice(i + 1 - WINDOWS, i + 1).reduce((a, b) => a + b)));
}

// Reports of windows, one after the other, as words: each of which two neighbouring windows are sure.
export class Words {
  #powers = [];
  #loudest;
  #endless;
  #open = null;

  // `loudest`: the power of the loudest window of a whole recording; null where sound goes on without end.
  constructor(loudest = null) {
    this.#endless = loudest === null;
    this.#loudest = loudest ?? 0;
    this.list = [];
  }

  // Whether it heard a word, or more of the last one.
  hear({ heard, scores, power }, rate) {
    this.#powers = [...this.#powers, power].slice(-LATE_SECONDS * WINDOWS);
    const window = windowPowers(this.#powers).at(-1);
    if (window === null) return false;
    const all = chances(scores);
    const word = bestOf(all);
    if (this.#endless) this.#loudest = Math.max(this.#loudest, window);
    const quietest = this.#endless ? WINDOWS * Math.min(...this.#powers) : 0;
    const loud = window >= QUIET ** 2 * this.#loudest && window >= ABOVE_NOISE ** 2 * quietest;
    if (all[word] < SURE || !loud) {
      this.#open = null;
      return false;
    }
    const end = heard / rate;
    if (this.#open?.word !== word) {
      this.#open = { word, chance: all[word], start: Math.max(0, end - 1), end };
      return false;
    }
    if (!this.list.includes(this.#open)) this.list.push(this.#open);
    this.#open.chance = Math.max(this.#open.chance, all[word]);
    this.#open.end = end;
    return true;
  }
}
