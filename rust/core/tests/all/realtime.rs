//! What a real-time thread may call does not allocate, asks the system for nothing, and silence does not slow it down.

use crate::counting::allocations;
use crate::systems::{self, Random, Sizes};
use ssmrt_core::internals::discretize::Scheme;
use ssmrt_core::internals::document::Node;
use ssmrt_core::{Disc, Document, Input, Isa, Precision, Stream};

fn layers() -> Vec<(&'static str, Document)> {
    let mut all = Vec::new();
    for h in [1, 8, 40] {
        for m in [1, 2] {
            let s = Sizes { h, n: 6, m };
            for (name, node) in [
                ("diagonal", systems::diagonal(1, s, Disc::Zoh, true)),
                ("dplr", systems::dplr(2, s, 2, true)),
                ("dense", systems::dense(3, s, 0.5)),
                ("mimo", systems::mimo(4, s, Disc::Zoh)),
                ("linoss", systems::linoss(7, s, Scheme::Imex)),
                ("linoss", systems::linoss(7, s, Scheme::Imex)),
                ("selective", systems::selective(5, h, 6)),
                ("ssd", systems::ssd(6, h, 6)),
            ] {
                all.push((name, systems::alone(node, s)));
            }
        }
    }
    let mut cut = systems::diagonal(6, Sizes { h: 8, n: 6, m: 1 }, Disc::Zoh, true);
    if let Node::Diagonal(node) = &mut cut {
        node.ssm.kernel_length = Some(20);
    }
    all.push(("cut", systems::alone(cut, Sizes { h: 8, n: 6, m: 1 })));
    all.push(("everything", systems::everything(17, false)));
    all
}

/// No chunk here is so large that it wakes the pool, whose queue grows now and then.
fn stream<E: Precision>(document: &Document, streams: usize) -> Stream<E> {
    Stream::new(systems::plan(document, Isa::all()[0]), streams).unwrap()
}

fn steps_do_not_allocate<E: Precision>(name: &str, document: &Document) {
    for streams in [1, 3] {
        let mut stream = stream::<E>(document, streams);
        let u: Vec<E> = Random(1).samples(streams * document.d_input()).iter().map(|&x| E::of(x)).collect();
        let mut y = vec![E::ZERO; streams * document.d_output()];
        stream.step(Input::Real(&u), None, &mut y).unwrap();
        let n = allocations(|| {
            for _ in 0..300 {
                stream.step(Input::Real(&u), None, &mut y).unwrap();
            }
            stream.reset(None).unwrap();
        });
        assert_eq!(n, 0, "{name}: {streams} streams of {}", E::NAME);
    }
}

fn pushes_do_not_allocate<E: Precision>(name: &str, document: &Document) {
    for (streams, rows) in [(1, 5), (1, 64), (2, 100), (1, 300)] {
        let mut stream = stream::<E>(document, streams);
        let u: Vec<E> = Random(1).samples(streams * rows * document.d_input()).iter().map(|&x| E::of(x)).collect();
        let mut y = vec![E::ZERO; streams * rows * document.d_output()];
        stream.push(Input::Real(&u), rows, None, &mut y).unwrap();
        let n = allocations(|| {
            for _ in 0..5 {
                stream.push(Input::Real(&u), rows, None, &mut y).unwrap();
            }
            // A shorter chunk, and single samples, have room as well.
            let part = streams * (rows / 2);
            let (x, z) = (&u[..part * document.d_input()], &mut y[..part * document.d_output()]);
            stream.push(Input::Real(x), rows / 2, None, z).unwrap();
            let (x, z) = (&u[..streams * document.d_input()], &mut y[..streams * document.d_output()]);
            stream.step(Input::Real(x), None, z).unwrap();
        });
        assert_eq!(n, 0, "{name}: {streams} streams of {}, {rows} samples", E::NAME);
    }
}

#[test]
fn steps_and_chunks_do_not_allocate() {
    for (name, document) in layers() {
        steps_do_not_allocate::<f32>(name, &document);
        steps_do_not_allocate::<f64>(name, &document);
        pushes_do_not_allocate::<f32>(name, &document);
        pushes_do_not_allocate::<f64>(name, &document);
    }
}

#[test]
fn tokens_do_not_allocate() {
    let mut stream = stream::<f32>(&systems::everything(8, true), 2);
    let mut y = vec![0.0; 6];
    stream.step(Input::Tokens(&[1, 4]), None, &mut y).unwrap();
    let n = allocations(|| {
        for t in 0..100 {
            stream.step(Input::Tokens(&[t % 5, (t + 3) % 5]), None, &mut y).unwrap();
        }
    });
    assert_eq!(n, 0);
}

/// A million steps, and chunks, of all layers by two threads at once, each under a filter that ends the process at any system
/// call: a lock that both want would be one. In a process of its own, which the filter may end.
///
/// RTNeural holds its layers to the same by Clang's RealtimeSanitizer.
#[cfg(target_os = "linux")]
#[test]
fn steps_and_chunks_make_no_system_call() {
    let done = alone("steps_and_chunks_make_no_system_call", || {
        const STEPS: usize = if cfg!(debug_assertions) { 50_000 } else { 500_000 };
        let streams: Vec<Vec<Prepared>> =
            (0..2).map(|_| layers().iter().map(|(_, d)| Prepared::of(d)).collect()).collect();
        under_the_filter(streams, |streams| {
            let rounds = STEPS.div_ceil(streams.len() * Prepared::STEPS);
            (0..rounds).for_each(|_| streams.iter_mut().for_each(Prepared::run));
        });
    });
    assert!(done.status.success(), "{}: {}", done.status, String::from_utf8_lossy(&done.stderr));
}

/// The filter that the test above relies on.
#[cfg(target_os = "linux")]
#[test]
fn a_system_call_would_be_found() {
    use std::os::unix::process::ExitStatusExt;
    let done = alone("a_system_call_would_be_found", || {
        under_the_filter(vec![(), ()], |()| {
            std::thread::yield_now();
        });
    });
    assert_eq!(done.status.signal(), Some(libc::SIGSYS), "{}", done.status);
}

/// Runs `test` in a process of its own, in which this test alone runs.
#[cfg(target_os = "linux")]
fn alone(name: &str, test: impl FnOnce()) -> std::process::Output {
    const ALONE: &str = "SSMRT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        test();
        std::process::exit(0);
    }
    let name = format!("{}::{name}", module_path!().rsplit("::").next().expect("a module"));
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", &name, "--test-threads=1"]).envs([(ALONE, "1"), ("SSMRT_NUM_THREADS", "1")]);
    program.output().unwrap()
}

/// Calls `f` with each of `items` on a thread of its own, all at once, under a filter that ends the process at any system call.
#[cfg(target_os = "linux")]
fn under_the_filter<T: Send + 'static>(items: Vec<T>, f: fn(&mut T)) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static READY: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let count = items.len();
    for mut item in items {
        std::thread::spawn(move || {
            READY.fetch_add(1, Ordering::AcqRel);
            while READY.load(Ordering::Acquire) < count {
                std::hint::spin_loop();
            }
            allow_no_system_call();
            f(&mut item);
            DONE.fetch_add(1, Ordering::AcqRel);
            // Its end would be a system call.
            loop {
                std::hint::spin_loop();
            }
        });
    }
    while DONE.load(Ordering::Acquire) < count {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// From now on, the calling thread's next system call ends the process.
#[cfg(target_os = "linux")]
fn allow_no_system_call() {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut end = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS }];
    let program = libc::sock_fprog { len: 1, filter: end.as_mut_ptr() };
    // SAFETY: the kernel copies the program of one instruction, which is "return".
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    assert!(!refused, "no filter of system calls: {}", std::io::Error::last_os_error());
}

/// A stream with what it hears and answers.
#[cfg(target_os = "linux")]
struct Prepared {
    stream: Stream<f32>,
    u: Vec<f32>,
    y: Vec<f32>,
}

#[cfg(target_os = "linux")]
impl Prepared {
    /// Single samples of a run, and samples of its chunk.
    const STEPS: usize = 100;

    fn of(document: &Document) -> Self {
        let (u, y) = (Self::STEPS * document.d_input(), Self::STEPS * document.d_output());
        let (u, y) = (Random(1).samples(u).iter().map(|&x| x as f32).collect(), vec![0.0; y]);
        let mut prepared = Self { stream: stream(document, 1), u, y };
        prepared.run();
        prepared
    }

    fn run(&mut self) {
        let d_out = self.y.len() / Self::STEPS;
        for u in self.u.chunks_exact(self.u.len() / Self::STEPS) {
            self.stream.step(Input::Real(u), None, &mut self.y[..d_out]).unwrap();
        }
        self.stream.push(Input::Real(&self.u), Self::STEPS, None, &mut self.y).unwrap();
        self.stream.reset(None).unwrap();
    }
}

/// What rounding left over of a real part, which is 0, and of an imaginary part, which is a normal bfloat16, in one word.
fn halves(x: f32) -> bool {
    x.to_bits() << 1 >> 17 == 0 && x.to_bits() & 0x7f80 != 0
}

/// Denormal numbers cost a hundred times a number's time on some processors: states skip them.
fn decays<E: Precision>(name: &str, document: &Document, steps: usize) {
    let denormal = |x: E| match E::NAME {
        "float32" => x != E::ZERO && x.f64().abs() < 1.2e-38 && !halves(x.f64() as f32),
        _ => x != E::ZERO && x.f64().abs() < 2.3e-308,
    };
    let mut stream = stream::<E>(document, 1);
    let mut y = vec![E::ZERO; document.d_output()];
    for t in 0..200 {
        let u: Vec<E> = Random(t).samples(document.d_input()).iter().map(|&x| E::of(x)).collect();
        stream.step(Input::Real(&u), None, &mut y).unwrap();
    }
    let silence = vec![E::ZERO; document.d_input()];
    let mut before = Vec::new();
    for t in 0..steps {
        stream.step(Input::Real(&silence), None, &mut y).unwrap();
        // Some number is always on its way down: none may stay there.
        if t % 1000 == 900 || t % 1000 == 999 {
            let state = stream.snapshot();
            // The states are at its end.
            let size = size_of::<E>();
            let numbers = state[state.len() - stream.plan().state_len() * size..].chunks_exact(size).map(|b| {
                let mut bits = [0; 8];
                bits[..size].copy_from_slice(b);
                E::from_bits(u64::from_le_bytes(bits))
            });
            let found: Vec<usize> = numbers.enumerate().filter(|&(_, x)| denormal(x)).map(|(i, _)| i).collect();
            if t % 1000 == 999 {
                let stayed: Vec<_> = found.iter().filter(|i| before.contains(*i)).collect();
                assert!(stayed.is_empty(), "{name}: denormal after {t} samples of {}: {stayed:?}", E::NAME);
            }
            before = found;
        }
    }
    assert!(!y.iter().any(|&y| denormal(y)), "{name}: denormal answers after {steps} samples of {}", E::NAME);
}

#[test]
fn states_decay_past_the_denormals() {
    let steps = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let s = Sizes { h: 2, n: 3, m: 1 };
    let many = Sizes { h: 17, ..s };
    let document = systems::alone(systems::diagonal(7, many, Disc::Zoh, true), many);
    decays::<f32>("diagonal, many channels", &document, steps);
    for (name, node) in [
        ("diagonal", systems::diagonal(1, s, Disc::Zoh, true)),
        ("dplr", systems::dplr(2, s, 1, true)),
        ("dense", systems::dense(3, s, 0.5)),
        ("mimo", systems::mimo(4, s, Disc::Zoh)),
        ("linoss", systems::linoss(7, s, Scheme::Imex)),
        ("selective", systems::selective(5, 2, 3)),
        ("ssd", systems::ssd(5, 2, 3)),
    ] {
        let document = systems::alone(node, s);
        decays::<f32>(name, &document, steps);
        decays::<f64>(name, &document, steps / 4);
    }
}
