"""Real checkpoints answer as float64 says they do: whole, in chunks of any length, sample by sample."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import GOLDEN, SHARED, Case, cases, relative_error
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scipy.signal import resample_poly  # type: ignore[import-untyped]
from ssmrt import Model
from ssmrt.document import Pool, Sequential

Array = NDArray[Any]

CASES = list(cases())
FILES = [(case, path, config) for case in CASES for path, config in case.files]
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
PRECISE = 1e-5
STEPS = 40


# Rows whose parameters, as initialised or as trained, put an eigenvalue outside the unit circle.
UNSTABLE = {"jax/s5_cls_default", "jax/small/annotated_ssm", "jax/small/s5_last_gelu"}


def load(case: Case, path: Path, config: Mapping[str, Any] | None, dtype: Any) -> Model:
    """The model, which warns just where it is unstable."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = ssmrt.load(path, config=config, arch=case.arch if path.suffix == ".eqx" else None, dtype=dtype)
    assert ["is unstable" in str(warning.message) for warning in said] == [True] * len(said)
    assert bool(said) == (str(case) in UNSTABLE), [str(warning.message) for warning in said]
    assert all(warning.filename == __file__ for warning in said)
    return model


def tolerance(case: Case, dtype: str) -> float:
    return PRECISE if dtype == "float32" else case.tolerance64


@DTYPES
@pytest.mark.parametrize(("case", "path", "config"), FILES, ids=[f"{c}/{p.name}" for c, p, _ in FILES])
def test_a_file_answers_as_float64_does(case: Case, path: Path, config: Mapping[str, Any] | None, dtype: Any) -> None:
    model = load(case, path, config, dtype)
    assert model.streamable == case.streams
    for u, y64 in case.io:
        y = model(u, lengths=case.lengths, resets=case.start)
        assert y.dtype == np.dtype(dtype)
        assert relative_error(y, y64) < tolerance(case, dtype)


def streamed(model: Model, u: Array, starts: Array | None, g: np.random.Generator) -> Array:
    """The answers to chunks of random lengths, with resets where sequences start."""
    batch, length = u.shape[:2]
    stream = model.stream(batch)
    cuts = set(g.integers(0, length, min(length, 7)).tolist()) | {0, 1, length}
    if starts is not None:
        cuts |= set(np.flatnonzero(starts.any(0)).tolist())
    edges = sorted(cuts)
    parts = []
    for i, j in itertools.pairwise(edges):
        if starts is not None and starts[:, i].any():
            stream.reset(starts[:, i])
        parts.append(stream.push(u[:, i:j]))
    return np.concatenate(parts, 1)


@DTYPES
@pytest.mark.parametrize("case", [case for case in CASES if case.streams], ids=str)
def test_any_chunking_of_a_checkpoint_is_the_sequence(case: Case, dtype: Any) -> None:
    path, config = case.files[0]
    model = load(case, path, config, dtype)
    for seed, (u, y64) in enumerate(case.io):
        y = streamed(model, u, case.start, np.random.default_rng(seed))
        if y64.ndim == 2:
            last = np.full(len(u), u.shape[1]) if case.lengths is None else case.lengths
            y = y[np.arange(len(u)), last - 1]
        elif case.lengths is not None:
            y = np.where((np.arange(u.shape[1]) < case.lengths[:, None])[..., None], y, 0)
        assert relative_error(y, y64) < tolerance(case, dtype)


@DTYPES
@pytest.mark.parametrize("case", [case for case in CASES if case.streams], ids=str)
def test_steps_of_a_checkpoint_are_the_sequence(case: Case, dtype: Any) -> None:
    path, config = case.files[0]
    model = load(case, path, config, dtype)
    u = case.io[0][0][:, :STEPS]
    expected = load(case, path, config, "float64").stream(len(u)).push(u)
    stream, state = model.stream(len(u)), model.default_state(len(u))
    for t in range(u.shape[1]):
        y = stream.step(u[:, t])
        z, state = model.step(u[:, t], state)
        assert_array_equal(z, y)
        assert np.abs(y - expected[:, t]).max() < tolerance(case, dtype) * np.abs(expected).max()


LONGER = [case for case in CASES if case.stream_io]


@DTYPES
@pytest.mark.parametrize("case", LONGER, ids=str)
def test_streams_go_on_past_the_length_of_training(case: Case, dtype: Any) -> None:
    path, config = case.files[0]
    model = load(case, path, config, dtype)
    for seed, (u, y64) in enumerate(case.stream_io):
        y = streamed(model, u, None, np.random.default_rng(seed))
        assert relative_error(y, y64) < tolerance(case, dtype)


@pytest.mark.parametrize("case", [case for case in CASES if not case.streams], ids=str)
def test_a_checkpoint_that_looks_ahead_does_not_stream(case: Case) -> None:
    path, config = case.files[0]
    with pytest.raises(ssmrt.NotStreamable, match="layer"):
        load(case, path, config, "float32").stream()


def test_the_rows_have_every_kind() -> None:
    assert len(CASES) >= 20
    assert LONGER
    assert any(case.start is not None for case in CASES)
    assert any(case.lengths is not None for case in CASES)
    assert any(not case.streams for case in CASES)


def sound(mulaw: Array) -> Array:
    """Clips (B, L, 1) of 8-bit mu-law, in float32 as the references have them."""
    q = mulaw.astype(np.float32) / np.float32(127)
    return np.asarray((np.sign(q) * (np.float32(256) ** np.abs(q) - 1) / np.float32(255))[..., None])


def hears(model: Model, clips: Array, labels: Array, **said: Any) -> int:
    """How many it gets right, a few at a time: a clip of 16000 samples is small, a thousand of them are not."""
    parts = [model(clips[i : i + 32], **said).argmax(1) for i in range(0, len(clips), 32)]
    return int((np.concatenate(parts) == labels).sum())


@DTYPES
def test_the_spotter_answers_as_float64_does(dtype: Any) -> None:
    arrays = np.load(GOLDEN / "kws" / "clips.npz")
    u = sound(arrays["mulaw"])
    model = ssmrt.load(GOLDEN / "kws" / "kws_s4d.pth", config={}, dtype=dtype)
    y = model(u)
    assert relative_error(y, arrays["logits64"]) < (1e-5 if dtype == "float32" else 1e-9)
    stream, g = model.stream(len(u)), np.random.default_rng(0)
    edges = [0, *sorted(g.integers(1, 16000, 20).tolist()), 16000]
    pushed = np.concatenate([stream.push(u[:, i:j]) for i, j in itertools.pairwise(edges)], 1)
    assert relative_error(pushed[:, -1], y) < 2e-6
    assert relative_error(pushed[:, -1], arrays["logits64"]) < (1e-5 if dtype == "float32" else 1e-9)
    stream.reset()
    for t in range(300):
        step = stream.step(u[:, t])
        assert np.abs(step - pushed[:, t]).max() < 2e-6 * np.abs(pushed).max()


def decoded(model: Model) -> Model:
    """The model without its pool: the decoder applied to every sample."""
    root: Any = model.document.root
    children = tuple(child for child in root.children if not isinstance(child, Pool))
    return Model(replace(model.document, root=Sequential(children)), model.dtype.name)  # type: ignore[arg-type]


def test_the_spotters_decoder_at_every_sample() -> None:
    arrays = np.load(GOLDEN / "kws" / "clips.npz")
    y = decoded(ssmrt.load(GOLDEN / "kws" / "kws_s4d.pth", config={})).stream().push(sound(arrays["mulaw"][:1]))
    assert relative_error(y[0, ::100], arrays["decoded64"]) < 1e-5


def test_the_spotter_hears_half_the_rate() -> None:
    arrays = np.load(GOLDEN / "kws" / "clips.npz")
    model = ssmrt.load(GOLDEN / "kws" / "kws_s4d.pth", config={})
    assert hears(model, sound(arrays["mulaw"]), arrays["labels"]) >= 11
    half = resample_poly(sound(arrays["mulaw"]), 1, 2, axis=1)
    with pytest.warns(UserWarning, match=r"rate=2 takes \d+ of 2048 modes of .* they alias") as said:
        assert hears(model, half, arrays["labels"], rate=2.0) >= 10
    assert [str(warning.message).split()[2] for warning in said] == ["174", "201", "237", "118"]


KWS = SHARED / "kws"
beside = pytest.mark.skipif(not KWS.is_dir(), reason="the 980 clips stand beside the checkout in ../shared only")


@beside
@pytest.mark.parametrize("name", ["kws_s4d", "kws_s4"])
def test_both_spotters_answer_as_float64_does(name: str) -> None:
    clips, reference = np.load(KWS / "test_clips.npz"), np.load(KWS / f"{name}_ref64.npz")
    model = ssmrt.load(KWS / f"{name}.pth", config={})
    u = sound(clips["mulaw"][reference["clip_index"]])
    assert relative_error(model(u), reference["logits64"]) < 1e-5
    y = decoded(model).stream().push(u[:1])
    assert relative_error(y[0, ::100], reference["per_step_decoder_clip0_every100"]) < 1e-5


# A second of sound takes two cores 20 to 40 ms: where a hundred more say no more, every fourth clip will do.
EVERY = 1 if os.environ.get("SSMRT_ALL_CLIPS") else 4


@beside
def test_the_spotter_hears_what_upstreams_hears() -> None:
    clips = np.load(KWS / "test_clips.npz")
    model = ssmrt.load(KWS / "kws_s4d.pth", config={})
    assert abs(hears(model, sound(clips["mulaw"]), clips["labels"]) - 963) <= 1


@beside
def test_the_s4_spotter_hears_what_upstreams_hears() -> None:
    clips = np.load(KWS / "test_clips.npz")
    model = ssmrt.load(KWS / "kws_s4.pth", config={})
    right = hears(model, sound(clips["mulaw"][::EVERY]), clips["labels"][::EVERY])
    assert abs(right - {1: 956, 4: 242}[EVERY]) <= 1


@beside
def test_the_spotter_hears_clips_at_half_the_rate() -> None:
    clips = np.load(KWS / "test_clips.npz")
    model = ssmrt.load(KWS / "kws_s4d.pth", config={})
    half = resample_poly(sound(clips["mulaw"][::EVERY]), 1, 2, axis=1)
    with pytest.warns(UserWarning, match="they alias"):
        assert hears(model, half, clips["labels"][::EVERY], rate=2.0) >= 0.93 * len(half)
