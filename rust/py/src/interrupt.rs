//! How work runs beside the interpreter: its lock released, and Ctrl-C heard while it runs.

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Streams for which a sample lets other threads of Python run.
const MANY: usize = 32;

/// Multiply-adds of a call during which signals are heard. They are a rough estimate: on two cores this is 10 ms of narrow
/// layers, to which a thread of its own adds 0.1 to 0.3 ms, and 400 ms of linear layers 1024 wide.
const LONG: usize = 1 << 32;

/// How often a long call looks for signals.
const PERIOD: Duration = Duration::from_millis(50);

/// Runs `sample`, one sample of so many streams. That of a few is over before the interpreter's lock could change hands.
pub fn sample<T: Send>(py: Python<'_>, streams: usize, sample: impl FnOnce() -> T + Send) -> T {
    if streams < MANY { sample() } else { py.detach(sample) }
}

/// Whether a call of `rows` samples in all, each of `cost` multiply-adds, is long enough to be interrupted.
pub fn is_long(rows: usize, cost: usize) -> bool {
    rows.saturating_mul(cost) >= LONG
}

/// As [`is_long`], where the states of streams must be kept meanwhile: four times as long, since that takes time too.
pub fn is_long_with_states(rows: usize, cost: usize) -> bool {
    is_long(rows / 4, cost)
}

/// Runs `work` with the interpreter's lock released.
///
/// Python runs signal handlers on its main thread only. There `long` work goes to a thread of its own, while this one looks
/// for signals; where a handler raises, the flag that `work` is given becomes true, `work` is waited for, what it
/// returned is dropped, and the handler's exception is the error. All other work runs on the calling thread.
pub fn interruptible<T: Send>(py: Python<'_>, long: bool, work: impl FnOnce(&AtomicBool) -> T + Send) -> PyResult<T> {
    let stop = AtomicBool::new(false);
    if !long || !on_main_thread(py)? {
        return Ok(py.detach(|| work(&stop)));
    }
    room_for_a_thread()?;
    py.detach(|| {
        thread::scope(|scope| {
            let (running, over) = channel::<()>();
            let worker = scope.spawn(|| {
                // Its end, by a panic too, is what the other side waits for.
                let _running = running;
                work(&stop)
            });
            let mut heard = Ok(());
            while heard.is_ok() && over.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                heard = Python::attach(|py| py.check_signals());
            }
            stop.store(heard.is_err(), Ordering::Relaxed);
            let result = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            heard.map(|()| result)
        })
    })
}

/// Runs `work`, which cannot be stopped, with the interpreter's lock released: planning, whose parts are library calls.
///
/// On Python's main thread it goes to a thread of its own while this one looks for signals; where a handler raises, its exception
/// is the error at once, and the work ends unheard. Elsewhere it runs on the calling thread.
pub fn abandonable<T: Send + 'static>(py: Python<'_>, work: impl FnOnce() -> T + Send + 'static) -> PyResult<T> {
    if !on_main_thread(py)? {
        return Ok(py.detach(work));
    }
    room_for_a_thread()?;
    py.detach(|| {
        let (made, result) = channel();
        let work = move || drop(made.send(work()));
        let worker = thread::Builder::new()
            .stack_size(STACK)
            .spawn(work)
            .map_err(|e| PyMemoryError::new_err(format!("could not start a thread: {e}")))?;
        loop {
            match result.recv_timeout(PERIOD) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => Python::attach(|py| py.check_signals())?,
                Err(RecvTimeoutError::Disconnected) => {
                    resume_unwind(worker.join().expect_err("it ended without a result"));
                }
            }
        }
    })
}

/// Bytes of the stack of a thread that plans: as many as a main thread usually has, for trees that are nested deep.
const STACK: usize = 8 << 20;

/// Fails where there is no memory to start a thread in: what the standard library then keeps of it is not ours to ask for, and
/// ends the process.
fn room_for_a_thread() -> PyResult<()> {
    let room = Vec::<u8>::new().try_reserve_exact(2 * STACK);
    room.map_err(|_| PyMemoryError::new_err("could not start a thread: there is no memory for its stack"))
}

fn on_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    Ok(threading.call_method0("current_thread")?.is(threading.call_method0("main_thread")?))
}
