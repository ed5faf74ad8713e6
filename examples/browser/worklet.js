// Hears what flows into it, on the thread of the sound: the microphone's, or as fast as it goes where a file is rendered.
//
// Of a word alone, one stream hears all, and a report follows each block. Otherwise each window of one second gets a stream of its
// own, and a report follows where one of them ends.
import { Engine } from "./engine.js";
import { BLOCK, PEAK, WINDOWS } from "./words.js";

// Blocks of silence before the first sound.
const WARM_UP = 50;
// An unknown loudness is followed: at once where it rises, by half in so many seconds where it falls, amplified so much at most.
const HALF_LIFE = 20;
const MOST_GAIN = 12;
// What a recording goes on with to the end of its last window.
const SILENCE = new Float32Array(BLOCK);

class Listener extends AudioWorkletProcessor {
  // `module`, `model`: the compiled engine, and the bytes of a model. `length`: samples to hear; null: until it is stopped.
  // `gain`: how loud they are made; null: as loud as the loudest of late was in training.
  constructor({ processorOptions: { module, model, length, word, gain } }) {
    super();
    this.heard = 0;
    this.length = length ?? Infinity;
    this.gain = gain;
    this.peak = PEAK / MOST_GAIN;
    this.fall = 0.5 ** (BLOCK / sampleRate / HALF_LIFE);
    this.windows = word ? 1 : WINDOWS;
    this.hop = word ? BLOCK : Math.max(1, Math.round(sampleRate / WINDOWS));
    this.power = 0;
    this.milliseconds = 0;
    this.worst = 0;
    this.on = true;
    this.port.onmessage = () => (this.on = false);
    this.attempt(() => {
      const { facts, streams } = opened(module, model, this.windows);
      this.streams = streams;
      this.port.postMessage({ ready: facts });
    });
  }

  process([[sound]]) {
    // Once its source has ended, a node has no input.
    const next = sound ?? (this.length < Infinity ? SILENCE : null);
    if (next && this.on) this.attempt(() => this.hear(next));
    return this.on;
  }

  // An error thrown on this thread would reach nobody.
  attempt(work) {
    try {
      work();
    } catch (error) {
      this.on = false;
      this.port.postMessage({ failed: error.message });
    }
  }

  hear(sound) {
    const gain = this.gain ?? this.followed(sound);
    let spent = 0;
    for (let from = 0; from < sound.length && this.heard < this.length; ) {
      const left = this.hop - (this.heard % this.hop);
      const rows = Math.min(sound.length - from, left, this.length - this.heard);
      const input = this.streams.input;
      for (let i = 0; i < rows; i++) {
        const sample = sound[from + i] * gain;
        this.power += sample * sample;
        for (let window = 0; window < this.windows; window++) input[window * rows + i] = sample;
      }
      // The only clock of this thread: its ticks are milliseconds, but their sum over many blocks is right.
      const start = Date.now();
      this.streams.push(rows);
      spent += Date.now() - start;
      from += rows;
      this.heard += rows;
      if (this.heard % this.hop === 0 || this.heard === this.length) this.report(rows);
    }
    this.milliseconds += spent;
    this.worst = Math.max(this.worst, spent);
    if (this.heard >= this.length) this.on = false;
  }

  followed(sound) {
    let peak = this.peak * this.fall;
    for (const sample of sound) peak = Math.max(peak, Math.abs(sample));
    this.peak = Math.max(peak, PEAK / MOST_GAIN);
    return PEAK / this.peak;
  }

  // The answer of the stream that has heard longest, and it starts anew.
  report(rows) {
    const oldest = Math.ceil(this.heard / this.hop) % this.windows;
    const output = this.streams.output;
    const width = output.length / this.windows / BLOCK;
    const end = (oldest + 1) * rows * width;
    this.port.postMessage({
      heard: this.heard,
      scores: output.slice(end - width, end),
      power: this.power,
      milliseconds: this.milliseconds,
      worst: this.worst,
    });
    this.power = 0;
    if (this.windows > 1) this.streams.reset(oldest);
  }
}

function opened(module, bytes, windows) {
  const model = new Engine(module).load(bytes);
  const { facts } = model;
  if (facts.d_input !== 1) throw new Error(`expected a model of one channel of sound, found one of ${facts.d_input} inputs`);
  const streams = model.open(windows, BLOCK, (facts.sample_rate ?? sampleRate) / sampleRate);
  // Browsers compile what runs often once more, several times faster: that has happened before the first sound.
  for (let i = 0; i < WARM_UP; i++) streams.push(BLOCK);
  for (let window = 0; window < windows; window++) streams.reset(window);
  return { facts, streams };
}

registerProcessor("listener", Listener);
