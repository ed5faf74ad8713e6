"""What a Model keeps and says: memory, immutability, stability, aliases, numbers of layers, cut kernels."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import oracle
import pytest
import ssmrt
from cases import GOLDEN, relative_error
from numpy.typing import NDArray
from ssmrt import Model, demo, nn, sketch
from ssmrt.document import Diagonal, Document, Dplr, Linear, Sequential
from strategies import complex_normal, spectrum, step_sizes

Array = NDArray[Any]


def diagonal(name: str = "layer", h: int = 3, n: int = 4, seed: int = 0, **options: Any) -> Diagonal:
    g = np.random.default_rng(seed)
    A, B, C = spectrum(g, h, n), complex_normal(g, h, n), complex_normal(g, 1, h, n)
    return Diagonal(C, np.zeros((1, h)), step_sizes(g, h), A, B, name=name, **options)


def alone(node: Any, dtype: Any = "float64") -> Model:
    h = node.C.shape[1]
    return Model(Document(node, h, h), dtype)


# memory

MEASURE = """
import sys
import numpy as np
import ssmrt

def kilobytes(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

np.ones(2) @ np.ones(2)
ssmrt.Model(ssmrt.document.Document(ssmrt.document.Linear(np.eye(2, dtype=np.float32)), 2, 2))
before = kilobytes("VmRSS")
model = ssmrt.load(sys.argv[1])
kept, peak = kilobytes("VmRSS") - before, kilobytes("VmHWM") - before
model(np.zeros((1, 4, model.d_input), np.float32), rate=2.0)
print(kept, peak, kilobytes("VmRSS") - before - kept)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' account of a process' memory")
def test_weights_are_kept_once(tmp_path: Path) -> None:
    """Mixing layers of 64 MiB and a narrow state-space layer: what is kept, the peak while loading, and a rate more."""
    g = np.random.default_rng(0)
    layers = [Linear(g.standard_normal((2048, 2048), np.float32), name=f"l{i}") for i in range(4)]
    narrow = Linear(g.standard_normal((3, 2048), np.float32))
    path = tmp_path / "m.ssm.safetensors"
    Model(Document(Sequential((*layers, narrow, diagonal())), 2048, 3)).save(path)
    script = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    kept, peak, more = (float(word) for word in script.stdout.split())
    size = path.stat().st_size / 1024
    # A rate more has its own buffers, too.
    assert kept < 1.6 * size
    assert peak < 2.2 * size
    assert more < 0.05 * size + 4096


def test_a_model_does_not_hear_of_changes_to_its_arrays() -> None:
    weight = np.ones((1, 1))
    for dtype in ("float32", "float64"):
        weight[:] = 1.0
        model = Model(Document(Linear(weight), 1, 1), dtype)
        weight[:] = 5.0
        node: Any = model.document.root
        assert model(np.ones((1, 1))) == node.weight == 1.0
        assert Model.parse(model.__reduce__()[1][0])(np.ones((1, 1))) == 1.0
        with pytest.raises(ValueError, match="read-only"):
            node.weight[:] = 2.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stored", [np.float32, np.float64])
def test_a_document_comes_back_bit_for_bit(dtype: Any, stored: Any, tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    weight, bias = g.standard_normal((6, 5)).astype(stored), g.standard_normal(6).astype(stored)
    document = Document(Sequential((Linear(weight, bias, name="a"), ssmrt.document.Glu(), diagonal())), 5, 3)
    model = Model(document, dtype)
    first: Any = model.document.root.children[0]  # type: ignore[attr-defined]
    assert first.weight.dtype == stored
    np.testing.assert_array_equal(first.weight, weight)
    np.testing.assert_array_equal(first.bias, bias)
    model.save(tmp_path / "m")
    again = ssmrt.load(tmp_path / "m", dtype=dtype)
    u = g.standard_normal((2, 30, 5))
    np.testing.assert_array_equal(again(u), model(u))
    stream = again.stream()
    stream.restore(model.stream().snapshot())


# stability


def test_stability_is_judged_at_the_rate() -> None:
    A = np.array([[-1.0 + 0j]])
    one = np.ones((1, 1))
    model = ssmrt.diagonal(A, one, one, None, 0.9, disc="euler")
    with pytest.raises(ssmrt.UnsupportedError, match=r"rate=4: .*channel 0: expected every discrete eigenvalue within"):
        model(np.ones((1, 5, 1)), rate=4)
    with pytest.raises(ssmrt.UnsupportedError, match="use a lower rate"):
        model.stream(rate=4)
    free = ssmrt.diagonal(A, one, one, None, 0.9, disc="euler", allow_unstable=True)
    with pytest.warns(UserWarning, match=r"unstable at rate=4: channel 0 has an eigenvalue of modulus 2\.6, so that"):
        free(np.ones((1, 5, 1)), rate=4)


def test_a_loaded_model_that_is_unstable_says_so(tmp_path: Path) -> None:
    case = GOLDEN / "jax" / "small" / "s5_last_gelu" / "flat.npz"
    rows = json.loads((GOLDEN / "cases.json").read_text())
    config = next(row for row in rows if row["name"] == "jax/small/s5_last_gelu").get("config")
    with pytest.warns(UserWarning, match=r"is unstable: mode \d+ has .* modulus 1\.\d+, so that .* every \S+ samples"):
        model = ssmrt.load(case, config=config)
    layers = model.layers()
    for number, layer in enumerate(layers):
        assert layer["radius"] == pytest.approx(np.abs(model.poles(number)).max())
        assert layer["unstable"] == (layer["radius"] > 1)
    found = ssmrt.verify(model)
    assert [row.radius for row in found.stability] == [layer["radius"] for layer in layers]
    assert "UNSTABLE" in str(found)
    assert found.as_dict()["stability"]


def test_the_doubling_time_is_that_of_the_answers() -> None:
    model = ssmrt.diagonal([[1.01]], [[1]], [[1]], None, None, disc="discrete", allow_unstable=True, dtype="float64")
    u = np.zeros((1, 400, 1))
    u[0, 0] = 1
    y = model(u)[0, :, 0]
    doubling = np.log(2) / np.log(model.layers()[0]["radius"])
    assert y[100 + round(2 * doubling)] / y[100] == pytest.approx(4, rel=0.01)


# aliases


def test_aliases_are_counted_by_channel_where_they_reach_an_output() -> None:
    n = 8
    frequency = np.linspace(0.05, 0.45, n)
    A = -0.01 + 2j * np.pi * np.stack([frequency, frequency])
    C = np.ones((1, 2, n), complex)
    C[0, 1, n // 2 :] = 0
    node = Diagonal(C, np.zeros((1, 2)), np.array([1.0, 0.5]), A, np.ones((2, n), complex), name="masked")
    model = alone(node)
    # At rate 2 the first channel's modes turn twice as far as here; the second channel's, at half the step, as far.
    over = int((frequency * 2 >= 0.5).sum())
    with pytest.warns(UserWarning, match=rf"rate=2 takes {over} of {n + n // 2} modes of masked") as said:
        model.stream(rate=2)
    assert said[0].filename == __file__
    bilinear = alone(Diagonal(C, node.D, node.dt, A, node.B, disc="bilinear"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bilinear.stream(rate=50)


# notebooks


@pytest.mark.parametrize("build", [demo.spotter, lambda: alone(diagonal("a <b>", seed=1))])
def test_a_notebook_shows_every_layer_with_its_kernel_and_poles(build: Callable[[], Model]) -> None:
    model = build()
    page = ElementTree.fromstring(model._repr_html_())
    rows = page.findall(".//tr")
    head, *summary = model.summary().splitlines()
    assert "".join(rows[0].itertext()).startswith("".join(head.split()))
    names = ["".join(row[0].itertext()) for row in rows[1:]]
    assert names == [line[: len(name)] for line, name in zip(summary[1:-1], names, strict=True)]
    drawn = [row for row in rows[1:] if len(row[-1]) == 2]
    assert ["".join(row[0].itertext()).strip() for row in drawn] == [layer["name"] or "-" for layer in model.layers()]


def test_a_notebook_marks_poles_outside_of_the_circle() -> None:
    stable, growing = sketch.circle(np.array([0.5 + 0.5j])), sketch.circle(np.array([0.5, 1.1]))
    assert stable.count("<path") == 1
    assert growing.count("<path") == 2


# one numbering


def test_figures_kernels_poles_and_systems_number_layers_alike() -> None:
    pytest.importorskip("matplotlib", reason="needs ssmrt[plot]")
    from ssmrt import plots

    g = np.random.default_rng(0)
    mamba = nn.selective(
        -np.ones((3, 2)), g.standard_normal((6, 3)), g.standard_normal((3, 2)), np.zeros(3), np.zeros(3)
    )
    model = nn.model(nn.sequential([mamba, diagonal("a", seed=1), diagonal("b", seed=2)]))
    assert [layer["kind"] for layer in model.layers()] == ["selective", "diagonal", "diagonal"]
    for number, name in [(1, "a"), (2, "b")]:
        heat, circle, *_ = plots.figure(model, 20, layer=number).axes
        assert heat.get_title("left").startswith(f"{name}: diagonal")
        envelopes = 20 * np.log10(np.abs(model.kernel(number, 20)[0]))
        expected = np.maximum(envelopes - envelopes.max(axis=1, keepdims=True), -60)
        mesh, order = np.asarray(heat.collections[0].get_array()), np.argsort(heat.lines[0].get_xdata())
        assert sorted(map(tuple, mesh.round(6))) == sorted(map(tuple, expected.round(6)))
        np.testing.assert_array_equal(order, [0, 1, 2])
        poles = model.poles(number)
        drawn = np.asarray(circle.collections[0].get_offsets()) @ [1, 1j]
        np.testing.assert_allclose(np.sort(drawn), np.sort(np.concatenate([poles, np.conj(poles)])))
        bar = 1 + model.discrete(number)["a_minus_one"]
        np.testing.assert_allclose(model.poles(number), bar.ravel(), rtol=1e-14)
    # Two rows of four, and a scale of colours each.
    assert len(plots.figure(model, 20).axes) == 2 * 5
    for call in (lambda: model.kernel(0, 20), lambda: model.poles(0), lambda: model.discrete(0)):
        with pytest.raises(ssmrt.UnsupportedError, match="input"):
            call()
    with pytest.raises(ssmrt.UnsupportedError, match="to draw"):
        plots.figure(model, 20, layer=0)


def test_figures_are_in_hertz_and_seconds_where_the_sampling_rate_is_known_and_mark_what_grows() -> None:
    pytest.importorskip("matplotlib", reason="needs ssmrt[plot]")
    from ssmrt import plots

    layer = nn.diagonal([[-1 + 3j, 0.5]], np.ones((1, 2)), np.ones((1, 2)), None, [0.1], allow_unstable=True)
    for rate, said in (
        (None, ("time (samples)", "frequency (turns a sample)")),
        (100.0, ("time (s)", "frequency (Hz)")),
    ):
        heat, circle, response, spread, _ = plots.figure(nn.model(layer, sample_rate=rate), 64, layer=0).axes
        assert (heat.get_xlabel(), response.get_xlabel()) == said
        assert response.get_xlim()[1] == (rate or 1) / 2
        np.testing.assert_allclose(np.asarray(circle.collections[1].get_offsets())[:, 0], np.exp([0.05, 0.05]))
        assert spread.get_title("right") == "1 of 2 do not decay"


def test_discrete_systems_step_as_the_model_does() -> None:
    g = np.random.default_rng(0)
    h, n = 2, 3
    A, B = spectrum(g, h, n), complex_normal(g, h, n)
    P, C, dt = 0.3 * complex_normal(g, 1, h, n), complex_normal(g, 1, h, n), step_sizes(g, h)
    u = g.standard_normal((1, 50, h))
    for node in (Dplr(C, np.ones((1, h)), dt, A, P, B), Diagonal(C, np.ones((1, h)), dt, A, B)):
        model = alone(node)
        for rate in (1.0, 0.7):
            s = model.discrete(0, rate=rate)
            x, y = np.zeros((h, n), complex), []
            for v in u[0]:
                low = (
                    np.einsum("khn,khn,hm->hm", s["w"], s["w"] * 0, x)
                    if not len(s["w"])
                    else sum(w * (np.einsum("hn,hn->h", v_k, x).real)[:, None] for w, v_k in zip(s["w"], s["v"]))
                )
                x = x + s["a_minus_one"] * x - low + s["b"] * v[:, None]
                y.append(np.einsum("mhn,hn->mh", s["c"], x).real[0] + s["d"][0] * v)
            assert relative_error(model(u, rate=rate)[0], np.array(y)) < 1e-11


# cut kernels


@pytest.mark.parametrize(("length", "rate"), [(5, 2.0), (10, 4.0), (101, 2.0), (7, 2.0), (3, 2.0), (9, 0.5), (64, 1.5)])
def test_every_way_cuts_a_kernel_at_the_same_sample(length: int, rate: float) -> None:
    model = alone(diagonal(kernel_length=length))
    cut = max(1, round(length / rate))
    assert model.layers(rate=rate)[0]["cut"] == cut
    kernel = model.kernel(0, cut + 3, rate=rate)
    assert (kernel[..., cut:] == 0).all()
    assert (kernel[..., cut - 1] != 0).any()
    u = np.random.default_rng(1).standard_normal((1, 150, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = model(u, rate=rate)
        streamed = model.stream(rate=rate).push(u)
    expected = oracle.run(model.document, u, rate=rate)
    assert relative_error(y, expected) < 1e-10
    assert relative_error(streamed, expected) < 1e-10


def test_a_cut_kernel_at_a_tiny_rate_is_planned_at_once_or_refused() -> None:
    g = np.random.default_rng(0)
    h, n = 8, 16
    A, B, P = spectrum(g, h, n), complex_normal(g, h, n), 0.3 * complex_normal(g, 1, h, n)
    C = complex_normal(g, 1, h, n)
    model = alone(Dplr(C, np.zeros((1, h)), step_sizes(g, h), A, P, B, kernel_length=500))
    begin = time.perf_counter()
    stream = model.stream(rate=1e-3)
    assert time.perf_counter() - begin < 2.0
    # As long as nothing was cut off, it is the kernel without a cut.
    u = g.standard_normal((1, 300, h))
    whole = alone(Dplr(C, np.zeros((1, h)), model.document.root.dt, A, P, B))  # type: ignore[attr-defined]
    assert relative_error(stream.push(u), whole.stream(rate=1e-3).push(u)) < 1e-10
    for rate in (1e-6, 1e-12):
        with pytest.raises(ValueError, match=r"ends after \d+ at this rate; expected at most \d+, as from rate="):
            model.stream(rate=rate)


def test_squaring_cuts_where_sample_by_sample_does() -> None:
    """A cut of many samples, whose reader is moved back by squaring, against the same kernel summed in full."""
    g = np.random.default_rng(3)
    h, n, cut = 2, 2, 3000
    A, B, P = spectrum(g, h, n), complex_normal(g, h, n), 0.3 * complex_normal(g, 1, h, n)
    C = complex_normal(g, 1, h, n)
    model = alone(Dplr(C, np.zeros((1, h)), np.full(h, 2e-4), A, P, B, kernel_length=cut))
    u = g.standard_normal((1, cut + 500, h))
    kernel = model.kernel(0, cut + 500)[0]
    expected = np.stack([np.convolve(u[0, :, i], kernel[i])[: cut + 500] for i in range(h)], 1)
    assert relative_error(model(u)[0], expected) < 1e-9


def test_modes_are_the_frequencies_and_time_constants_of_the_continuous_system() -> None:
    A, dt = np.array([[-0.5 + 3j, -0.1 - 20j, 4j, 0.2 + 0j]]), np.array([0.05])
    one = np.ones((1, 4))
    for sample_rate, rate in ((None, 1.0), (1000.0, 1.0), (1000.0, 0.5)):
        layer = nn.diagonal(A, one, one, [0.0], dt, allow_unstable=True)
        model = nn.model(layer, sample_rate=sample_rate)
        modes = model.modes(0, rate=rate)
        # Whatever the rate, a second is a second; a sample is one of the rate.
        second = 0.05 * (sample_rate or rate)
        np.testing.assert_array_equal(modes.poles, model.poles(0, rate=rate))
        np.testing.assert_allclose(modes.frequencies, np.abs(A[0].imag) / (2 * np.pi) * second, atol=1e-15)
        with np.errstate(divide="ignore"):
            expected = -1 / (A[0].real * second)
        np.testing.assert_allclose(modes.time_constants[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-10)
        assert abs(modes.time_constants[2]) > 1e12
