// The page: what is heard, from where, and what went wrong.
import { Engine } from "./engine.js";
import { BLOCK, PEAK, SURE, WINDOWS, Words, bestOf, chances, windowPowers } from "./words.js";

const MODULE = "ssmrt.wasm";
const MODEL = "spotter.ssm.safetensors";
// Recordings of up to so many seconds are one word.
const ONE_WORD_SECONDS = 1.5;

const at = (id) => document.getElementById(id);
const percent = (chance) => `${(100 * chance).toFixed(0)} %`;

function say(text, kind = "note") {
  at("status").textContent = text;
  at("status").className = kind;
}

// What the page needs, fetched once: the compiled module, the model's bytes, the rate and the words of its training.
let needed = null;
// Ends listening to the microphone.
let listening = null;

async function fetched(name, hint) {
  const answer = await fetch(name).catch(() => null);
  if (!answer?.ok) throw new Error(`${name} is not beside this page. ${hint}`);
  return answer.arrayBuffer();
}

async function compiled(bytes) {
  try {
    return await WebAssembly.compile(bytes);
  } catch (error) {
    throw new Error(`This browser cannot compile the engine; it needs WebAssembly with SIMD, as all have had since 2023. (${error.message})`);
  }
}

async function start() {
  if (!window.AudioWorkletNode) {
    const why = window.isSecureContext ? "It has no AudioWorklet." : "Pages get an AudioWorklet from https or localhost only.";
    throw new Error(`This browser cannot run the page. ${why}`);
  }
  const build = "Build it: python examples/browser/build.py";
  const [code, file] = await Promise.all([fetched(MODULE, build), fetched(MODEL, build)]);
  const module = await compiled(code);
  const model = new Uint8Array(file);
  const { facts } = new Engine(module).load(model);
  const labels = facts.labels ?? Array.from({ length: facts.d_output }, (_, i) => `output ${i}`);
  needed = { module, model, labels, rate: facts.sample_rate ?? 16000 };
  at("bytes").textContent = `${(code.byteLength / 1e6).toFixed(2)} MB engine, ${(file.byteLength / 1e6).toFixed(2)} MB model`;
  drawChances(labels.map(() => 0));
  say("Ready. Say one of the words, or drop a recording.");
}

// A node that hears what is connected to it.
async function listener(context, options, report) {
  await context.audioWorklet.addModule("worklet.js");
  const { module, model } = needed;
  const node = new AudioWorkletNode(context, "listener", {
    channelCount: 1,
    channelCountMode: "explicit",
    processorOptions: { module, model, ...options },
  });
  await new Promise((resolve, reject) => {
    node.port.onmessage = ({ data }) => {
      if (data.ready) resolve();
      else if (data.failed) (reject(new Error(data.failed)), say(data.failed, "wrong"));
      else report(data);
    };
    node.onprocessorerror = () => reject(new Error("worklet.js failed to start"));
  });
  // What it plays is silence; but sound flows to where it is played only.
  node.connect(context.destination);
  return node;
}

const WHY_NO_MICROPHONE = {
  NotAllowedError: "The microphone was refused. Allow it beside the page's address, or drop a recording below.",
  NotFoundError: "There is no microphone. Drop a recording below.",
  NotReadableError: "The microphone is another program's at present. Drop a recording below.",
};

async function microphone() {
  let sound;
  try {
    // The spotter was trained on sound as it is.
    const raw = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    sound = await navigator.mediaDevices.getUserMedia({ audio: raw });
  } catch (error) {
    throw new Error(WHY_NO_MICROPHONE[error.name] ?? `The microphone does not start: ${error.message}`);
  }
  const stop = () => sound.getTracks().forEach((track) => track.stop());
  try {
    const { context, source } = connected(sound);
    const words = new Words();
    const times = new Times();
    const rate = context.sampleRate;
    const node = await listener(context, { length: null, word: false, gain: null }, (report) => {
      const more = words.hear(report, rate);
      drawChances(chances(report.scores));
      if (more) drawWords(words.list);
      times.draw(report, rate);
    });
    source.connect(node);
    sound.getTracks()[0].onended = () => (say("The microphone was unplugged.", "wrong"), hush());
    listening = () => (node.port.postMessage("stop"), stop(), context.close());
    const other = rate === needed.rate ? "" : `, by the model's step size, as trained at ${needed.rate} Hz`;
    say(`Listening at ${rate} Hz${other}.`, "on");
  } catch (error) {
    stop();
    throw error;
  }
}

// The microphone's sound at the model's own rate, where the browser resamples it, and else at its own.
function connected(sound) {
  for (const options of [{ sampleRate: needed.rate }, {}]) {
    let context = null;
    try {
      context = new AudioContext(options);
      return { context, source: context.createMediaStreamSource(sound) };
    } catch (error) {
      context?.close();
      if (!("sampleRate" in options)) throw error;
    }
  }
}

function hush() {
  listening?.();
  listening = null;
  at("microphone").textContent = "Listen";
  at("microphone").setAttribute("aria-pressed", "false");
}

// The rate that a wav file says it has; null for other files, of which only the browser's decoder knows it.
function wavRate(bytes) {
  const view = new DataView(bytes);
  const name = (from) => (view.byteLength < from + 4 ? "" : String.fromCharCode(...new Uint8Array(bytes, from, 4)));
  if (name(0) !== "RIFF" || name(8) !== "WAVE") return null;
  for (let from = 12; from + 16 <= view.byteLength; from += 8 + view.getUint32(from + 4, true)) {
    if (name(from) === "fmt ") return view.getUint32(from + 12, true);
  }
  return null;
}

async function recording(file) {
  const bytes = await file.arrayBuffer();
  const rate = wavRate(bytes);
  let decoded;
  try {
    decoded = await new OfflineAudioContext(1, 1, needed.rate).decodeAudioData(bytes);
  } catch {
    throw new Error(`${file.name} is no recording that this browser can decode.`);
  }
  if (decoded.length === 0) throw new Error(`${file.name} has no sample in it.`);
  const other = rate !== null && rate !== needed.rate ? `, recorded at ${rate} Hz and resampled to ${needed.rate} Hz` : "";
  return { decoded, about: `${file.name}: ${decoded.duration.toFixed(2)} s${other}` };
}

async function hearFile(file) {
  say(`Reading ${file.name}.`, "on");
  const { decoded, about } = await recording(file);
  const word = decoded.duration <= ONE_WORD_SECONDS;
  const rate = needed.rate;
  // Whole windows, of which there is one at least.
  const hop = Math.round(rate / WINDOWS);
  const length = word ? decoded.length : Math.max(WINDOWS, Math.ceil(decoded.length / hop)) * hop;
  const context = new OfflineAudioContext(1, length, rate);
  const source = new AudioBufferSourceNode(context, { buffer: decoded });
  const reports = [];
  const times = new Times();
  const finished = new Promise((resolve, reject) => {
    const report = (data) => {
      reports.push(data);
      times.draw(data, rate);
      say(`${about}; heard ${percent(data.heard / length)}`, "on");
      if (data.heard === length) resolve();
    };
    listener(context, { length, word, gain: gainOf(decoded) }, report)
      .then((node) => {
        source.connect(node);
        source.start();
        return context.startRendering();
      })
      .catch(reject);
  });
  await finished;
  say(about, "note");
  drawChances(chances(reports.at(-1).scores));
  drawWords(word ? [oneWord(reports, rate)] : manyWords(reports, rate));
}

// As the mean of its channels is as loud as the training's clips.
function gainOf(decoded) {
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, c) => decoded.getChannelData(c));
  let peak = 0;
  for (let i = 0; i < decoded.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    peak = Math.max(peak, Math.abs(sum / channels.length));
  }
  return peak > 0 ? PEAK / peak : 1;
}

// A word alone: the answer at its end, and from when on it was sure of it.
function oneWord(reports, rate) {
  const all = reports.map((report) => chances(report.scores));
  const word = bestOf(all.at(-1));
  const unsure = all.findLastIndex((each) => bestOf(each) !== word || each[word] < SURE);
  const since = unsure + 1 < all.length ? reports[unsure + 1].heard / rate : null;
  return { word, chance: all.at(-1)[word], start: since ?? 0, end: reports.at(-1).heard / rate };
}

function manyWords(reports, rate) {
  const powers = windowPowers(reports.map((report) => report.power));
  const words = new Words(powers.reduce((loudest, power) => Math.max(loudest, power ?? 0), 0));
  reports.forEach((report) => words.hear(report, rate));
  return words.list;
}

function drawChances(all) {
  const best = bestOf(all);
  at("chances").replaceChildren(
    ...all.map((chance, i) => {
      const row = document.createElement("li");
      row.className = chance > 0 && i === best ? "best" : "";
      const name = Object.assign(document.createElement("span"), { textContent: needed.labels[i] });
      const bar = Object.assign(document.createElement("meter"), { max: 1, value: chance, textContent: percent(chance) });
      bar.setAttribute("aria-label", needed.labels[i]);
      row.append(name, bar);
      return row;
    }),
  );
}

function drawWords(list) {
  const newest = list.at(-1);
  at("word").textContent = newest ? needed.labels[newest.word] : "no word";
  const seconds = (time) => time.toFixed(2);
  at("words").replaceChildren(
    ...list.slice(-20).reverse().map(({ word, chance, start, end }) => {
      const text = `${needed.labels[word]}, ${percent(chance)}, ${seconds(start)} s to ${seconds(end)} s`;
      return Object.assign(document.createElement("li"), { textContent: text });
    }),
  );
}

// What a sample takes. The worklet's clock ticks in milliseconds, so that its time is known of quarters of a second, and then by
// the median of them; and of a block, to a millisecond.
class Times {
  #quarters = [];
  #heard = 0;
  #milliseconds = 0;

  draw({ heard, milliseconds, worst }, rate) {
    if (heard - this.#heard >= Math.floor(rate / WINDOWS)) {
      this.#quarters.push((1e3 * (milliseconds - this.#milliseconds)) / (heard - this.#heard));
      [this.#heard, this.#milliseconds] = [heard, milliseconds];
    }
    const sorted = this.#quarters.toSorted((a, b) => a - b);
    const median = sorted[sorted.length >> 1] ?? (1e3 * milliseconds) / heard;
    const slow = 1e6 / rate < median ? ": too slow for a microphone" : "";
    at("median").textContent = `${median.toFixed(1)} µs of the ${(1e6 / rate).toFixed(1)} µs that it lasts${slow}`;
    at("worst").textContent = `${worst} ms of the ${(BLOCK * 1e3 / rate).toFixed(1)} ms that it lasts`;
  }
}

// One thing after the other; what goes wrong is said, and the page goes on.
async function attempt(work) {
  const enable = (on) => ["microphone", "file"].forEach((id) => (at(id).disabled = !on));
  hush();
  enable(false);
  try {
    await work();
  } catch (error) {
    hush();
    say(error.message, "wrong");
  }
  enable(needed !== null);
}

at("microphone").addEventListener("click", () => {
  if (listening) {
    hush();
    say("Stopped.");
    return;
  }
  attempt(async () => {
    await microphone();
    at("microphone").textContent = "Stop";
    at("microphone").setAttribute("aria-pressed", "true");
  });
});
at("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) attempt(() => hearFile(file));
  target.value = "";
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file && !at("file").disabled) attempt(() => hearFile(file));
});
attempt(start);
