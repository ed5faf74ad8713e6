//! A wav through a model in blocks, as an audio callback would: no Python, and no allocation once it runs.
//!
//! `cargo run --release --example wav_blocks -- MODEL.ssm.safetensors AUDIO.wav [BLOCK]`, for mono 16-bit PCM.

use ssmrt_core::{Document, Input, Isa, Model, Stream, Team};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, audio, rest @ ..] = args.as_slice() else {
        return Err("usage: wav_blocks MODEL.ssm.safetensors AUDIO.wav [BLOCK]".into());
    };
    let block = rest.first().map_or(Ok(256), |b| b.parse())?;
    let team = Team::all()?;
    let model = Model::<f32>::new(Document::parse(std::fs::read(model)?)?, Isa::choose()?, &team)?;
    let plan = model.plan(1.0, &team)?;
    let (rate, samples) = mono_pcm16(&std::fs::read(audio)?)?;
    let mut stream = Stream::new(Arc::clone(&plan), 1)?;
    let mut answers = vec![0.0; block * plan.d_output()];

    let mut worst = Duration::ZERO;
    let start = Instant::now();
    let mut last = Vec::new();
    for chunk in samples.chunks(block) {
        let before = Instant::now();
        let out = &mut answers[..chunk.len() * plan.d_output()];
        stream.push(Input::Real(chunk), chunk.len(), None, out)?;
        worst = worst.max(before.elapsed());
        last = out[out.len() - plan.d_output()..].to_vec();
    }
    let spent = start.elapsed();
    let seconds = samples.len() as f64 / f64::from(rate);
    println!("{seconds:.2} s of audio in {spent:.2?}, {:.0} times faster than it plays", seconds / spent.as_secs_f64());
    println!(
        "blocks of {block} samples: worst {worst:.1?}, of {:.1} ms that each lasts",
        block as f64 / f64::from(rate) * 1e3
    );
    println!("the last answer: {last:.3?}");
    Ok(())
}

/// The sampling rate and the samples, in [-1, 1), of a mono 16-bit PCM wav.
fn mono_pcm16(wav: &[u8]) -> Result<(u32, Vec<f32>), Failure> {
    let word = |at: usize| -> Result<u32, Failure> {
        let bytes = wav.get(at..at + 4).ok_or("the wav ends early")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    };
    if wav.get(..4) != Some(b"RIFF") || wav.get(8..12) != Some(b"WAVE") {
        return Err("expected a RIFF WAVE file".into());
    }
    let (mut at, mut rate) = (12, None);
    loop {
        let (name, size) = (wav.get(at..at + 4).ok_or("the wav has no data")?, word(at + 4)? as usize);
        match name {
            b"fmt " => {
                if (word(at + 8)?, word(at + 20)? >> 16) != (0x0001_0001, 16) {
                    return Err("expected mono 16-bit PCM".into());
                }
                rate = Some(word(at + 12)?);
            }
            b"data" => {
                let data = wav.get(at + 8..at + 8 + size).ok_or("the wav ends early")?;
                let sample = |b: &[u8]| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0;
                return Ok((rate.ok_or("the wav has no format")?, data.chunks_exact(2).map(sample).collect()));
            }
            _ => {}
        }
        at += 8 + size.next_multiple_of(2);
    }
}
