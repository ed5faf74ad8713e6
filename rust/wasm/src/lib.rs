//! The engine as a WebAssembly module: a model from bytes, streams of it, blocks of samples. `examples/browser/engine.js` calls
//! it.
//!
//! A module is one thread with memory of its own, which the page writes files and samples into and reads answers from: so that
//! functions take and give numbers and addresses, and no glue is generated. A function that fails gives 0, and [`text`] says why
//! in UTF-8. Where the engine itself fails, the module traps; then too [`text`] says why, and the module is of no further use.
//!
//! Once streams are [`open`], [`push`] and [`reset`] allocate nothing, which [`allocations`] proves.
//!
//! On other targets it is empty: some of its names are the C library's.
#![cfg(target_family = "wasm")]

mod memory;

use ssmrt_core::{Document, Error, Input, Isa, Model, Plan, Result, Stream, Team};
use std::panic;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, Once, PoisonError};

/// Why a function failed.
static TEXT: Mutex<String> = Mutex::new(String::new());

/// A model, and what is known of it.
pub struct Loaded {
    model: Model<f32>,
    facts: String,
}

/// Streams of a model, and the memory that their samples pass through.
pub struct Opened {
    stream: Stream<f32>,
    rows: usize,
    /// (streams, rows, d_input), rows being those of a call.
    input: Vec<f32>,
    /// (streams, rows, d_output)
    output: Vec<f32>,
    /// The streams that start anew.
    mask: Vec<bool>,
}

fn say(text: String) {
    memory::forget_shortage();
    *TEXT.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

/// What a call gives to the page: an owned value by its address, or 0.
fn give<T>(made: Result<T>) -> *mut T {
    match made {
        Ok(value) => Box::into_raw(Box::new(value)),
        Err(error) => {
            say(error.to_string());
            null_mut()
        }
    }
}

/// Why a function failed: the address of what it says. [`text_len`] is its length in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn text() -> *const u8 {
    said(str::as_ptr)
}

/// Bytes of [`text`].
#[unsafe(no_mangle)]
pub extern "C" fn text_len() -> usize {
    said(str::len)
}

fn said<T>(f: impl Fn(&str) -> T) -> T {
    match memory::shortage() {
        Some(text) => f(text),
        None => f(&TEXT.lock().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Forgets [`text`], once it was read.
#[unsafe(no_mangle)]
pub extern "C" fn clear_text() {
    say(String::new());
}

/// Calls of the allocator so far.
#[unsafe(no_mangle)]
pub extern "C" fn allocations() -> usize {
    memory::allocations()
}

/// Room for a file of so many bytes, for [`load`].
#[unsafe(no_mangle)]
pub extern "C" fn reserve(bytes: usize) -> *mut u8 {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| say(format!("the engine failed, which it never should: {info}"))))
    });
    let mut room = Vec::new();
    match room.try_reserve_exact(bytes.max(1)) {
        Ok(()) => room.leak().as_mut_ptr(),
        Err(_) => {
            say(format!("expected a file that fits into memory, found {bytes} bytes"));
            null_mut()
        }
    }
}

/// A model in ssmrt's own format. The room that [`reserve`] gave, for as many bytes, goes with it, whether this fails or not.
///
/// # Safety
/// `file` is of `reserve(bytes)`, filled, and loaded once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn load(file: *mut u8, bytes: usize) -> *mut Loaded {
    // SAFETY: `reserve` leaked a vector of this capacity, which the caller has filled.
    let file = unsafe { Vec::from_raw_parts(file, bytes, bytes.max(1)) };
    give(read(file))
}

fn read(file: Vec<u8>) -> Result<Loaded> {
    let document = Document::parse(file)?;
    if document.tokens() {
        return Err(Error::Unsupported("expected a model of real numbers, found one of tokens".into()));
    }
    let isa = Isa::choose()?;
    let facts = document.facts();
    let facts = serde_json::json!({
        "d_input": document.d_input(),
        "d_output": document.d_output(),
        "sample_rate": facts.sample_rate,
        "labels": facts.labels,
        "isa": isa.name(),
    });
    Ok(Loaded { model: Model::new(document, isa, &Team::ALONE)?, facts: facts.to_string() })
}

/// What is known of a model: the address of JSON with `d_input`, `d_output`, `sample_rate` and `labels`, which may be null, and
/// `isa`.
///
/// # Safety
/// `model` is of [`load`], and was not [`unload`]ed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn facts(model: *const Loaded) -> *const u8 {
    // SAFETY: the caller's model is alive.
    unsafe { &*model }.facts.as_ptr()
}

/// Bytes of [`facts`].
///
/// # Safety
/// As [`facts`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn facts_len(model: *const Loaded) -> usize {
    // SAFETY: the caller's model is alive.
    unsafe { &*model }.facts.len()
}

/// Streams of a model, all at their start, whose calls have up to `rows` samples of each. `rate` multiplies every step size:
/// the sampling rate of the training divided by that of the samples.
///
/// # Safety
/// As [`facts`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(model: *const Loaded, streams: usize, rows: usize, rate: f64) -> *mut Opened {
    // SAFETY: the caller's model is alive.
    let model = unsafe { &(*model).model };
    give(model.plan(rate, &Team::ALONE).and_then(|plan| Opened::new(plan, streams, rows)))
}

impl Opened {
    fn new(plan: Arc<Plan<f32>>, streams: usize, rows: usize) -> Result<Self> {
        let zeros = |width: usize| {
            let len = streams.checked_mul(rows).and_then(|n| n.checked_mul(width));
            let mut zeros = Vec::new();
            match len.map(|len| zeros.try_reserve_exact(len).map(|()| len)) {
                Some(Ok(len)) => zeros.resize(len, 0.0),
                _ => {
                    return Err(Error::Memory(format!(
                        "expected blocks that fit into memory, found {streams} x {rows}"
                    )));
                }
            }
            Ok(zeros)
        };
        let (input, output) = (zeros(plan.d_input())?, zeros(plan.d_output())?);
        let stream = Stream::new(plan, streams)?;
        let mut opened = Opened { stream, rows, input, output, mask: vec![false; streams] };
        // What the first call allocates is then there.
        opened.push(rows)?;
        opened.stream.reset(None)?;
        Ok(opened)
    }

    fn push(&mut self, rows: usize) -> Result<()> {
        if !(1..=self.rows).contains(&rows) {
            return Err(Error::Value(format!("expected 1 to {} samples, found {rows}", self.rows)));
        }
        let (streams, plan) = (self.stream.streams(), self.stream.plan());
        let input = &self.input[..streams * rows * plan.d_input()];
        let output = &mut self.output[..streams * rows * plan.d_output()];
        self.stream.push(Input::Real(input), rows, None, output)
    }

    fn reset(&mut self, stream: usize) -> Result<()> {
        let Some(flag) = self.mask.get_mut(stream) else {
            return Err(Error::Value(format!("expected a stream below {}, found {stream}", self.mask.len())));
        };
        *flag = true;
        let done = self.stream.reset(Some(&self.mask));
        self.mask[stream] = false;
        done
    }
}

/// Where the page writes samples before a [`push`]: float32, (streams, rows of that call, d_input).
///
/// # Safety
/// `streams` is of [`open`], and was not [`close`]d.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn input(streams: *mut Opened) -> *mut f32 {
    // SAFETY: the caller's streams are alive, and no one else's at the same time.
    unsafe { &mut *streams }.input.as_mut_ptr()
}

/// Where the page finds the answers after a [`push`]: float32, (streams, rows of that call, d_output). A pooled model answers as
/// if the sequence ended with each sample.
///
/// # Safety
/// As [`input`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn output(streams: *const Opened) -> *const f32 {
    // SAFETY: the caller's streams are alive.
    unsafe { &*streams }.output.as_ptr()
}

/// The next `rows` samples of every stream; 1, or 0 where that failed.
///
/// # Safety
/// As [`input`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn push(streams: *mut Opened, rows: usize) -> u32 {
    // SAFETY: the caller's streams are alive, and no one else's at the same time.
    done(unsafe { &mut *streams }.push(rows))
}

/// Starts one stream anew; 1, or 0 where that failed.
///
/// # Safety
/// As [`input`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reset(streams: *mut Opened, stream: usize) -> u32 {
    // SAFETY: the caller's streams are alive, and no one else's at the same time.
    done(unsafe { &mut *streams }.reset(stream))
}

fn done(result: Result<()>) -> u32 {
    result.map_err(|error| say(error.to_string())).is_ok().into()
}

/// Frees streams.
///
/// # Safety
/// As [`input`], and nobody uses them any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(streams: *mut Opened) {
    // SAFETY: `open` gave a box away.
    drop(unsafe { Box::from_raw(streams) });
}

/// Frees a model. Its streams go on.
///
/// # Safety
/// As [`facts`], and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unload(model: *mut Loaded) {
    // SAFETY: `load` gave a box away.
    drop(unsafe { Box::from_raw(model) });
}
