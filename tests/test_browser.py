"""The engine and the page of examples/browser in a headless Chromium: what it computes, hears, and says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
import ssmrt
from export_documents import classifier, diagonal, document, others, state_spaces
from numpy.typing import NDArray
from ssmrt import demo
from ssmrt.document import Document, to_bytes
from wav_files import wav

FOLDER = Path(__file__).parents[1] / "examples" / "browser"
BUILT = FOLDER / "ssmrt.wasm"
CLIP = next(clip for clip in demo.clips() if clip.word == "stop")

pytestmark = [
    pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Chromium"),
    pytest.mark.skipif(not BUILT.exists(), reason="needs the module: python examples/browser/build.py"),
]

# A model by its bytes, `streams` of it, and blocks of so many samples: all answers, and the allocations that they took.
RUN = """
globalThis.bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
globalThis.engine = async () => {
  const { Engine } = await import(new URL("engine.js", location));
  const module = await WebAssembly.compile(await (await fetch("ssmrt.wasm")).arrayBuffer());
  return new Engine(module);
};
globalThis.run = async (file, sound, width, streams, blocks, rate) => {
  const own = await engine();
  const model = own.load(bytesOf(file));
  const opened = model.open(streams, Math.max(...blocks), rate);
  const samples = new Float32Array(bytesOf(sound).buffer);
  const length = samples.length / streams / width;
  const answers = Array.from({ length: streams }, () => []);
  const before = own.allocations;
  for (let from = 0, i = 0; from < length; i++) {
    const rows = Math.min(blocks[i % blocks.length], length - from);
    for (let s = 0; s < streams; s++) {
      const first = s * length + from;
      opened.input.set(samples.subarray(first * width, (first + rows) * width), s * rows * width);
    }
    opened.push(rows);
    const size = rows * model.facts.d_output;
    for (let s = 0; s < streams; s++) answers[s].push(...opened.output.subarray(s * size, (s + 1) * size));
    from += rows;
  }
  const allocations = own.allocations - before;
  opened.close();
  model.close();
  return { answers, allocations, facts: model.facts };
};
globalThis.failure = async (work, files) => {
  const own = await engine();
  const spotter = new Uint8Array(await (await fetch("spotter.ssm.safetensors")).arrayBuffer());
  try { await work({ own, spotter, ...files }); } catch (error) { return error.message; }
};
"""


def text64(data: bytes) -> str:
    return json.dumps(base64.b64encode(data).decode())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with chromium.served(FOLDER) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    """Its microphone hears someone who says one word again and again."""
    folder = tmp_path_factory.mktemp("browser")
    pause = np.zeros(16000, np.float32)
    (folder / "word.wav").write_bytes(wav(np.concatenate([pause, CLIP.samples, pause])))
    flags = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={folder / 'word.wav'}"]
    with chromium.opened(folder / "profile", *flags) as page:
        yield page


@pytest.fixture
def page(browser: chromium.Page, address: str) -> chromium.Page:
    """The page, ready, and allowed to listen."""
    allow(browser, address, "granted")
    browser.call("Page.navigate", url=address)
    browser.wait("document.getElementById('microphone')?.disabled === false")
    browser.evaluate(RUN)
    return browser


def allow(page: chromium.Page, address: str, setting: str) -> None:
    page.call("Browser.setPermission", permission={"name": "microphone"}, setting=setting, origin=address)


def in_the_browser(
    page: chromium.Page, model: bytes, sound: NDArray[np.float32], blocks: list[int], rate: float = 1.0
) -> tuple[NDArray[np.float32], int, dict[str, Any]]:
    """The answers (streams, length, d_output) to (streams, length, d_input), allocations of the pushes, and facts."""
    streams, _, width = sound.shape
    files = f"{text64(model)}, {text64(sound.tobytes())}"
    found = page.evaluate(f"run({files}, {width}, {streams}, {blocks}, {rate})")
    answers = np.array(found["answers"], np.float32)
    return answers.reshape(*sound.shape[:2], -1), found["allocations"], found["facts"]


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("streams", "blocks"), [(1, [128]), (1, [1, 7, 128, 31]), (4, [32, 96, 128])])
def test_the_browser_computes_what_native_code_does(page: chromium.Page, streams: int, blocks: list[int]) -> None:
    sound = np.stack([clip.samples[:6000, None] for clip in demo.clips()[:streams]])
    model = demo.spotter()
    found, allocations, facts = in_the_browser(page, to_bytes(model.document), sound, blocks)
    assert difference(found, model.stream(streams).push(sound)) < 1e-5
    assert allocations == 0, "a block allocates nothing"
    assert facts["isa"] == "simd128"
    assert (facts["labels"], facts["sample_rate"], facts["d_input"]) == (list(demo.WORDS), 16000, 1)


def test_at_another_rate_too(page: chromium.Page) -> None:
    sound = demo.clips()[0].samples[None, :4000, None]
    model = demo.spotter()
    found, _, _ = in_the_browser(page, to_bytes(model.document), sound, [128], rate=0.8)
    assert difference(found, model.stream(rate=0.8).push(sound)) < 1e-5


def test_every_kind_of_layer_computes_the_same_there(page: chromium.Page) -> None:
    documents = {name: d for name, d in (state_spaces() | others()).items() if not name.startswith("tokens")}
    documents["classifier"] = classifier()
    for name, layers in documents.items():
        model = ssmrt.Model(layers)
        if not model.streamable:
            continue
        sound = np.random.default_rng(0).standard_normal((2, 150, model.d_input)).astype(np.float32)
        found, _, _ = in_the_browser(page, to_bytes(layers), sound, [1, 1, 64, 20])
        assert difference(found, model.stream(2).push(sound)) < 1e-5, name


def too_long() -> Document:
    """Kernels that end after so many samples as no memory of 32 bits holds."""
    return document(*(diagonal(kernel_length=1 << 24) for _ in range(4)))


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("own.load(new Uint8Array(0))", "expected a safetensors buffer, found: header too small"),
        ("own.load(spotter.subarray(0, 1000))", "expected a safetensors buffer, found: invalid header length"),
        (
            "own.load(spotter.map((byte, i) => (i < 8 ? 255 : byte)))",
            "expected a safetensors buffer, found: header too large",
        ),
        ("own.load(tokens)", "expected a model of real numbers, found one of tokens"),
        ("own.load(long).open(1, 1)", "the model: expected a state that fits into memory, found a larger one"),
        ("own.load(spotter).open(1, 128, 0)", "rate: expected a positive number, found 0"),
        ("own.load(spotter).open(0, 128)", "batch: expected at least one stream, found 0"),
        ("own.load(spotter).open(1, 0)", "expected 1 to 0 samples, found 0"),
        ("own.load(spotter).open(1 << 20, 1 << 20)", "expected blocks that fit into memory, found 1048576 x 1048576"),
        ("own.load(spotter).open(100000, 1)", "batch: expected what fits into memory, found 100000"),
        ("own.load(spotter).open(1, 128).push(129)", "expected 1 to 128 samples, found 129"),
        ("own.load(spotter).open(2, 128).reset(2)", "expected a stream below 2, found 2"),
        # As no caller may: the module stops.
        ("own.call('push', 2 ** 31, 1)", "the engine stopped: memory access out of bounds"),
    ],
)
def test_what_goes_wrong_is_said(page: chromium.Page, work: str, reason: str) -> None:
    files = f"tokens: bytesOf({text64(to_bytes(others()['tokens']))}), long: bytesOf({text64(to_bytes(too_long()))})"
    said = page.evaluate(f"failure(({{ own, spotter, tokens, long }}) => {work}, {{ {files} }})")
    assert reason in said


def test_a_module_that_fails_says_so_and_stays_stopped(page: chromium.Page) -> None:
    # Streams of which someone has made another number of rows than there is memory for.
    damaged = """({ own, spotter }) => {
      const file = own.call("reserve", spotter.length);
      new Uint8Array(own.exports.memory.buffer, file, spotter.length).set(spotter);
      const streams = own.call("open", own.call("load", file, spotter.length), 2, 77, 1);
      const words = new Uint32Array(own.exports.memory.buffer, streams, 64);
      words.forEach((word, i) => { if (word === 77) words[i] = 2000; });
      try { own.call("push", streams, 1000) } catch {}
      own.call("text");
    }"""
    assert page.evaluate(f"failure({damaged})").startswith("the engine failed, which it never should: panicked at ")


def test_an_engine_goes_on_after_what_was_refused(page: chromium.Page) -> None:
    refused = "try { own.load(new Uint8Array(9)) } catch {}"
    loaded = "own.load(spotter).open(1, 4).push(4)"
    said = page.evaluate(f"failure(({{ own, spotter }}) => {{ {refused} {loaded}; throw new Error('well') }})")
    assert said == "well"


def test_the_page_hears_a_word_from_the_microphone(page: chromium.Page) -> None:
    page.evaluate("document.getElementById('microphone').click()")
    page.wait("document.getElementById('words').children.length > 0")
    assert page.text("word") == CLIP.word
    assert page.text("status") == "Listening at 16000 Hz."
    assert "µs of the 62.5 µs" in page.text("median")
    assert "ms of the 8.0 ms" in page.text("worst")
    page.evaluate("document.getElementById('microphone').click()")
    assert page.text("status") == "Stopped."


def test_refused_a_microphone_it_says_so_and_hears_files(page: chromium.Page, address: str, tmp_path: Path) -> None:
    allow(page, address, "denied")
    page.evaluate("document.getElementById('microphone').click()")
    page.wait("document.getElementById('status').textContent.startsWith('The microphone was refused.')")
    assert hear(page, tmp_path, wav(CLIP.samples)) == [CLIP.word]


def hear(page: chromium.Page, folder: Path, sound: bytes) -> list[str]:
    """The words that the page hears in a file, in their order."""
    (folder / "sound.wav").write_bytes(sound)
    page.evaluate("document.getElementById('status').textContent = ''")
    page.give("file", folder / "sound.wav")
    page.wait("/^sound.wav: [^;]*$/.test(document.getElementById('status').textContent)")
    page.wait("!document.getElementById('file').disabled")
    return [line.split(",")[0] for line in reversed(page.text("words").splitlines())]


def test_a_word_is_heard_as_the_demo_hears_it(page: chromium.Page, tmp_path: Path) -> None:
    for clip in demo.clips()[:4]:
        expected = demo.listen(demo.spotter().stream(), demo.level(clip.samples))
        assert hear(page, tmp_path, wav(clip.samples)) == [expected.word]
        assert page.text("words").split(", ")[1] == f"{100 * expected.probability:.0f} %"
        assert expected.sure_after is not None
        since = float(page.text("words").split(", ")[2].split()[0])
        assert abs(since - expected.sure_after) <= 128 / 16000 + 0.01


def test_words_of_a_recording_are_those_of_the_demo(page: chromium.Page, tmp_path: Path) -> None:
    pause = np.zeros(9000, np.float32)
    sound = np.concatenate([part for clip in demo.clips()[:2] for part in (clip.samples / 3, pause)])
    whole = np.rint(sound * 32768).astype(np.float32) / 32768
    expected = list(demo.spot(demo.spotter(), demo.level(whole), demo.RATE))
    assert hear(page, tmp_path, wav(sound)) == [word.word for word in expected]
    times = [f"{word.start:.2f} s to {word.end:.2f} s" for word in expected]
    assert [line.split(", ")[2] for line in reversed(page.text("words").splitlines())] == times


def test_a_recording_of_another_rate_is_heard_and_said_to_be(page: chromium.Page, tmp_path: Path) -> None:
    assert hear(page, tmp_path, wav(np.repeat(CLIP.samples, 3), rate=48000)) == [CLIP.word]
    assert page.text("status") == "sound.wav: 1.00 s, recorded at 48000 Hz and resampled to 16000 Hz"


def test_what_is_no_recording_is_said_to_be(page: chromium.Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound at all")
    page.give("file", tmp_path / "notes.txt")
    page.wait(
        "document.getElementById('status').textContent === 'notes.txt is no recording that this browser can decode.'"
    )
    assert hear(page, tmp_path, wav(CLIP.samples)) == [CLIP.word]


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ("delete window.AudioWorkletNode", "This browser cannot run the page. It has no AudioWorklet."),
        (
            "WebAssembly.compile = async () => { throw new WebAssembly.CompileError('no SIMD') }",
            "This browser cannot compile the engine; it needs WebAssembly with SIMD",
        ),
        (
            "const own = fetch; fetch = (name) => own(name.replace('.wasm', '.gone'))",
            "ssmrt.wasm is not beside this page. Build it: python",
        ),
    ],
)
def test_what_a_browser_lacks_is_said(browser: chromium.Page, address: str, lacking: str, reason: str) -> None:
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=lacking)["identifier"]
    try:
        browser.call("Page.navigate", url=address)
        browser.wait("document.getElementById('status')?.className === 'wrong'")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    assert browser.text("status").startswith(reason)
    assert browser.evaluate("document.getElementById('microphone').disabled")
