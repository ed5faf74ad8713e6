// The WebAssembly module of rust/wasm as objects: an engine, its models, their streams.

// Bytes of UTF-8 as text. An AudioWorklet has no TextDecoder.
const decoded = (bytes) => decodeURIComponent(Array.from(bytes, (byte) => "%" + byte.toString(16).padStart(2, "0")).join(""));

export class Engine {
  #failure = null;

  // `module`: a WebAssembly.Module, which threads may share; each engine has memory of its own.
  constructor(module) {
    this.exports = new WebAssembly.Instance(module, {}).exports;
  }

  // A model in ssmrt's own format, from its bytes. Throws what was expected of them and what was found.
  load(bytes) {
    const file = this.call("reserve", bytes.length);
    if (!file) this.fail();
    new Uint8Array(this.exports.memory.buffer, file, bytes.length).set(bytes);
    return new Model(this, this.call("load", file, bytes.length) || this.fail());
  }

  // Calls of the module's allocator so far.
  get allocations() {
    return this.call("allocations");
  }

  // An exported function's answer. Where the module traps, it is of no further use, and says why.
  call(name, ...values) {
    if (this.#failure) throw new Error(this.#failure);
    try {
      return this.exports[name](...values);
    } catch (trap) {
      this.#failure = this.#said() || `the engine stopped: ${trap.message}`;
      throw new Error(this.#failure);
    }
  }

  // Throws why a function failed.
  fail() {
    const why = this.#said();
    this.call("clear_text");
    throw new Error(why);
  }

  #said() {
    try {
      return this.textAt(this.exports.text(), this.exports.text_len());
    } catch {
      return "";
    }
  }

  textAt(at, length) {
    return decoded(new Uint8Array(this.exports.memory.buffer, at, length));
  }
}

class Model {
  #engine;
  #at;

  constructor(engine, at) {
    this.#engine = engine;
    this.#at = at;
    // d_input, d_output, sample_rate, labels, isa
    this.facts = JSON.parse(engine.textAt(engine.call("facts", at), engine.call("facts_len", at)));
  }

  // `streams` streams whose calls have up to `rows` samples of each. `rate` multiplies every step size: the sampling rate of the
  // training divided by that of the samples.
  open(streams, rows, rate = 1) {
    const at = this.#engine.call("open", this.#at, streams, rows, rate) || this.#engine.fail();
    return new Streams(this.#engine, at, streams * rows, this.facts);
  }

  // Frees it. Its streams go on.
  close() {
    this.#engine.call("unload", this.#at);
  }
}

class Streams {
  #engine;
  #at;
  #samples;
  #facts;
  #memory = null;
  #input;
  #output;

  constructor(engine, at, samples, facts) {
    this.#engine = engine;
    this.#at = at;
    this.#samples = samples;
    this.#facts = facts;
  }

  // Has `input` and `output` where they are. Memory that grows, for another model, moves.
  #look() {
    const memory = this.#engine.exports.memory.buffer;
    if (memory === this.#memory) return;
    this.#memory = memory;
    const array = (name, width) => new Float32Array(memory, this.#engine.call(name, this.#at), this.#samples * width);
    this.#input = array("input", this.#facts.d_input);
    this.#output = array("output", this.#facts.d_output);
  }

  // float32 (streams, rows of the next push, d_input), to write.
  get input() {
    this.#look();
    return this.#input;
  }

  // float32 (streams, rows of the last push, d_output), to read.
  get output() {
    this.#look();
    return this.#output;
  }

  // The next `rows` samples of each stream. Allocates nothing.
  push(rows) {
    if (!this.#engine.call("push", this.#at, rows)) this.#engine.fail();
  }

  // Starts one stream anew.
  reset(stream) {
    if (!this.#engine.call("reset", this.#at, stream)) this.#engine.fail();
  }

  // Frees them.
  close() {
    this.#engine.call("close", this.#at);
  }
}
