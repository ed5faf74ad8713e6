"""A Document in fixed point answers nearly as float64 does, and never wraps."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from c_models import SANITIZED, STRICT, needs_compiler
from export_documents import (
    classifier,
    diagonal,
    dplr,
    inputs,
    linear,
    linoss,
    mimo,
    norm,
    others,
    rng,
    spectrum,
    state_spaces,
    steps,
)
from oracle import run
from ssmrt.document import Activation, Document, Function, Gate, Glu, Node, Pool, Residual, Sequential
from ssmrt.errors import ExportError
from ssmrt.export.c import TARGETS, bounds, export_c, fixed, measure
from ssmrt.export.c import source as c_source
from ssmrt.export.quantize import signal_to_noise
from ssmrt.export.systems import Systems

H = 8


def block(*inner: Node, mix: Node | None = None) -> Document:
    """An encoder, a residual of ``inner`` and a mixing layer, a norm and a decoder."""
    mixed: tuple[Node, ...] = (linear(H, 2 * H, 3), Glu()) if mix is None else (mix,)
    nodes = (linear(2, H, 1), Residual(Sequential((*inner, *mixed))), norm(H), linear(H, 3, 4))
    return Document(Sequential(nodes), 2, 3)


def document_of_scores() -> Document:
    """Logarithms of probabilities."""
    nodes = (linear(2, H, 1), mimo(H, 6, H), linear(H, 3, 4), Activation("log_softmax"))
    return Document(Sequential(nodes), 2, 3)


def kinds() -> dict[str, Document]:
    functions: list[Function] = ["identity", "gelu", "gelu_tanh", "relu", "silu", "softplus", "sigmoid", "tanh"]
    acts: dict[str, Document] = {f"act_{name}": block(diagonal(H, 6), Activation(name)) for name in functions}
    fast = diagonal(H, 7, A=spectrum(rng(1), H, 7), dt=steps(rng(2), H) * 8)
    whole = diagonal(H, 6)
    uneven = replace(whole, C=whole.C * (np.arange(6) < np.array([0, 1, 2, 3, 4, 5, 6, 3])[:, None]))
    return acts | {
        "odd": block(diagonal(H, 5), Activation("gelu"), mix=linear(H, H, 3)),
        "fast": block(fast),
        "uneven": block(uneven),
        "real": block(diagonal(H, 6, A=-np.exp(rng(3).standard_normal((H, 6))) + 0j)),
        "gelu_of_linear": block(linear(H, H, 5), Activation("gelu")),
        "rms": block(norm(H, kind="rms"), diagonal(H, 6)),
        "classifier": classifier(2),
        "lru": block(norm(H, kind="affine"), mimo(H, 6, H, discrete=True), Activation("gelu_tanh")),
        "s5": block(mimo(H, 5, H), mix=Gate(Sequential(()), Sequential((linear(H, H, 3), Activation("sigmoid"))))),
        "s5_without_D": block(replace(mimo(H, 6, H), D=None)),
        "s5_wider": Document(Sequential((linear(2, 5), mimo(5, 6, 3), norm(3), linear(3, 2))), 2, 2),
        "scores": document_of_scores(),
        "sum_of_both": Document(Sequential((linear(2, H), diagonal(H, 6), Pool("mean"), linear(H, 3, 4))), 2, 3),
    }


KINDS = kinds()


def answers(model: Document, samples: Any, u: Any, bits: int, folder: Path) -> Any:
    """What the C answers to u, compiled under the sanitizers, and the inputs that it saw."""
    program, exponent = fixed.lowered(model, Systems(model, 1.0), 1.0, bits, samples)
    i = c_source.interface(model, "ssm", "test", exponent)
    texts = {
        "ssm.h": c_source.header(i, program, None),
        "ssm.c": c_source.source(i, program, None),
        "ssm_weights.h": c_source.weights_header(i, program),
        "ssm_weights.c": c_source.weights(i, program),
    }
    x = fixed.quantized(u, exponent)
    found = measure.on_host(texts, "ssm", x, model.d_output, [*STRICT, *SANITIZED, "-O1"])
    assert found is not None
    return found, x * 2.0**-exponent


@needs_compiler
@pytest.mark.parametrize("name", KINDS)
def test_fixed_point_is_the_model_with_noise_below_50_db(name: str, tmp_path: Path) -> None:
    model = KINDS[name]
    samples = inputs(model, 2000, seed=1)[0]
    u = inputs(model, 1000, seed=2)[0]
    found, seen = answers(model, samples, u, 16, tmp_path)
    assert signal_to_noise(run(model, seen[None], streamed=True)[0], found) > 50
    found, seen = answers(model, samples, u, 8, tmp_path)
    assert signal_to_noise(run(model, seen[None], streamed=True)[0], found) > 33


@needs_compiler
def test_s4_has_fixed_point_once_it_is_diagonal(tmp_path: Path) -> None:
    s4 = ssmrt.Model(block(dplr(H, 12)))
    small, _ = ssmrt.reduce(s4, inputs(s4.document, 2000, seed=3)[0], modes=6)
    u = inputs(s4.document, 1000, seed=2)[0]
    found, seen = answers(small.document, inputs(s4.document, 2000, seed=1)[0], u, 16, tmp_path)
    assert signal_to_noise(run(small.document, seen[None], streamed=True)[0], found) > 50


@needs_compiler
def test_inputs_that_no_calibration_saw_saturate(tmp_path: Path) -> None:
    """What drives every mode at its own frequency, as loud as the input can be: answers stay where others are."""
    model = KINDS["act_gelu"]
    samples = inputs(model, 500, seed=1)[0]
    quiet, _ = answers(model, samples, samples, 16, tmp_path)
    t = np.arange(3000)[:, None]
    for frequency in (0.0, 0.02, 0.1, 0.5, 3.14):
        loud, _ = answers(model, samples, 1e6 * np.cos(frequency * t) * np.ones((1, 2)), 16, tmp_path)
        assert np.isfinite(loud).all()
        assert np.abs(loud).max() < 8 * np.abs(quiet).max()


def test_bounds_hold_all_that_an_input_can_do() -> None:
    """The input that turns with the impulse response makes the greatest state there is."""
    a = np.exp(steps(rng(2), 3, 1) * spectrum(rng(1), 3, 4)) - 1
    most = bounds.most(1 + a, np.zeros(a.shape, int))
    worst = np.zeros(a.shape)
    for h in range(3):
        for n in range(4):
            p, x2, last, response = 1 + a[h, n], 1.0, 0.0, []
            power = p
            for _ in range(4000):
                response.append((x2 - last, x2))
                last, x2, power = x2, (np.conj(p) * x2 + power).real, power * p
            worst[h, n] = np.abs(response).sum(0).max()
    np.testing.assert_allclose(most, worst, rtol=1e-3)


def test_matrices_are_rounded_for_the_inputs_that_they_see() -> None:
    """Inputs that are alike lose less than to the nearest; where they have nothing in common, it is the nearest."""
    g = rng(5)
    weight = g.uniform(-127, 127, (8, 12))
    alike = g.standard_normal((500, 3)) @ g.standard_normal((3, 12)) + 0.1 * g.standard_normal((500, 12))
    chosen, nearest = fixed.rounded(weight, alike, 127), np.rint(weight)
    assert np.array_equal(chosen, np.rint(chosen))
    assert np.abs(chosen).max() <= 127
    lost, before = (np.square(alike @ (w - weight).T).sum() for w in (chosen, nearest))
    assert lost < before / 4
    noise = g.standard_normal((500, 12))
    apart = np.linalg.qr(noise - noise.mean(0))[0]
    assert np.array_equal(fixed.rounded(weight, apart, 127), nearest)


@needs_compiler
def test_report_says_what_is_lost(tmp_path: Path) -> None:
    model = classifier(2)
    report = export_c(model, tmp_path, quantize="int16", calibration=inputs(model, 1000)[0])
    assert report.quantize == "int16"
    assert report.signal_to_noise is not None
    assert report.signal_to_noise > 50
    assert json.loads((tmp_path / "ssm_report.json").read_text())["signal_to_noise"] == report.signal_to_noise
    assert "#define SSM_INPUT_EXPONENT" in (tmp_path / "ssm.h").read_text()
    build = ["cc", "-std=c99", "ssm.c", "ssm_weights.c", "main.c", "-o", "self_test"]
    subprocess.run(build, cwd=tmp_path, check=True)
    subprocess.run(["./self_test"], cwd=tmp_path, check=True)
    small = export_c(model, tmp_path, quantize="int8", calibration=inputs(model, 1000)[0])
    assert small.weights < report.weights < 0.75 * export_c(model, tmp_path).weights
    assert "fixed point" in str(small)


@pytest.mark.parametrize("target", TARGETS)
def test_fixed_point_runs_on_every_processor(target: str, tmp_path: Path) -> None:
    tools = (TARGETS[target].compiler, TARGETS[target].emulator[0])
    if not all(map(shutil.which, tools)):
        pytest.skip(f"needs {', '.join(tools)}")
    model = classifier(2)
    report = export_c(model, tmp_path, target=target, quantize="int16", calibration=inputs(model, 1000)[0])
    assert report.error is not None
    assert report.error < 0.02
    if target in ("cortex-m0plus", "cortex-m3", "rv32imc"):
        floating = export_c(model, tmp_path, target=target)
        assert report.instructions is not None
        assert floating.instructions is not None
        assert report.instructions < floating.instructions / 8


GOOD = inputs(classifier(2), 100)[0]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (classifier(2), {"quantize": "int4"}, "quantize: expected None, 'int16' or 'int8'"),
        (classifier(2), {"quantize": "int8", "calibration": None}, r"typical input \(length, 2\)"),
        (classifier(2), {"quantize": None}, "only quantize='int16' and 'int8' take"),
        (classifier(2), {"calibration": GOOD[:, :1]}, r"expected numbers \(length, 2\), found float32 \(100, 1\)"),
        (classifier(2), {"calibration": GOOD * 0}, "zeros alone"),
        (classifier(2), {"calibration": GOOD * np.nan}, "NaN"),
        (classifier(2), {"calibration": np.array([["a", "b"]])}, "expected numbers"),
        (classifier(2), {"method": "block"}, "has single steps only"),
        (others()["tokens"], {}, "a model of tokens has no fixed-point C"),
        (
            block(replace(dplr(H, 6), name="s4")),
            {},
            "layer 's4': Dplr has no fixed-point C; make it diagonal by ssmrt.reduce, or export",
        ),
        (block(replace(linoss(H, 6, H), name="osc")), {}, "layer 'osc': Linoss has no fixed-point C; export with"),
        (block(replace(mimo(H, 6, H), x0=np.ones(6, complex))), {}, "an initial state has no fixed-point C"),
        (block(replace(mimo(H, 6, H), A=np.zeros(6, complex))), {}, "mode 0 never forgets"),
        (block(replace(diagonal(H, 6), kernel_length=9)), {}, "only uncut, causal modes"),
        (block(diagonal(H, 6, A=0j * spectrum(rng(), H, 6))), {}, "channel 0 never forgets"),
        (block(diagonal(H, 6), Activation("elu", name="act")), {}, "elu has no fixed-point C"),
        (state_spaces()["diagonal"], {}, "layer 'ssm': fixed point ends with a linear layer"),
    ],
)
def test_what_has_no_fixed_point_is_refused_and_nothing_is_written(
    model: Document, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"quantize": "int16", "calibration": np.resize(GOOD, (100, model.d_input)), **options}
    with pytest.raises(ExportError, match=message):
        export_c(model, tmp_path / "out", **given)
    assert list(tmp_path.iterdir()) == []
