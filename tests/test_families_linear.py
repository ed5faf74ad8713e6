"""What the linear families of today's packages share: LinOSS, learned starts, batch statistics in Equinox' State."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import GOLDEN, Case, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from ssmrt import Model, families
from ssmrt.document import DiagonalMimo, Document, walk
from ssmrt.errors import CheckpointError, ConfigRequired, UnsupportedError
from ssmrt.families import linoss, neural_ssm
from ssmrt.families.tensors import Tensors
from ssmrt.readers import read
from ssmrt.readers.checkpoint import Checkpoint

Array = NDArray[Any]


def golden(name: str) -> tuple[Case, Checkpoint]:
    row = next(r for r in json.loads((GOLDEN / "cases.json").read_text()) if r["name"] == name)
    case = Case(GOLDEN / name, row)
    return case, read(case.files[0][0])


P, H, L = 4, 2, 64
SCHEMES = {"IM": ("IM", False), "IMEX": ("IMEX", False), "damped IMEX": ("IMEX", True)}


@st.composite
def oscillators(draw: st.DrawFn, damped: bool) -> dict[str, Array]:
    """Oscillators of any kind, some of them double integrators, some at or near critical damping."""

    def numbers(low: float, high: float, *shape: int) -> Array:
        return draw(arrays(np.float64, shape, elements=st.floats(low, high)))

    g = np.random.default_rng(draw(st.integers(0, 99)))
    tensors = {
        "steps": numbers(-4, 3, P),
        "B": g.normal(size=(P, H, 2)),
        "C": g.normal(size=(H, P, 2)),
        "D": g.normal(size=H),
    }
    if damped:
        G = tensors["G_diag"] = numbers(-0.5, 3, P)
        s = 1 / (1 + np.exp(-tensors["steps"]))
        S = 1 + s * np.maximum(G, 0)
        signs = draw(arrays(np.float64, P, elements=st.sampled_from([-1.0, 1.0])))
        near = draw(arrays(np.float64, P, elements=st.sampled_from([-1.0, 0.0, 1e-12, 1e-6, 1e-3, 0.1, 1.0])))
        tensors["A_diag"] = (2 + s * np.maximum(G, 0) + signs * 2 * np.sqrt(S)) / s**2 - signs * near
    else:
        zero = draw(arrays(np.float64, P, elements=st.sampled_from([-0.5, 0.0, 1e-12, 1e-6, 1e-3])))
        some = draw(arrays(np.bool_, P))
        tensors["A_diag"] = np.where(some, zero, numbers(0, 2, P))
    return tensors


def stepped(t: dict[str, Array], scheme: str, damped: bool, u: Array, factors: Array) -> Array:
    """The equations of Rusch & Rus 2025, one after the other: velocity z and position x of each oscillator.

    ``factors`` (L,) multiplies the step of each sample.
    """
    s = 1 / (1 + np.exp(-t["steps"]))
    G = np.maximum(t["G_diag"], 0) if damped else np.zeros(P)
    A = np.maximum(t["A_diag"], 0)
    if damped:
        root = 2 * np.sqrt(1 + s * G)
        A = np.clip(t["A_diag"], (2 + s * G - root) / s**2, (2 + s * G + root) / s**2)
    B, C = t["B"][..., 0] + 1j * t["B"][..., 1], t["C"][..., 0] + 1j * t["C"][..., 1]
    z, x, y = np.zeros(P, complex), np.zeros(P, complex), []
    for sample, factor in zip(u, factors):
        force, dt = B @ sample, s * factor
        if scheme == "IM":
            # z' = z + dt (-A x' + f), x' = x + dt z'
            z = (z - dt * A * x + dt * force) / (1 + dt**2 * A)
        else:
            # z' = z + dt (-A x - G z' + f), x' = x + dt z'
            z = (z - dt * A * x + dt * force) / (1 + dt * G)
        x = x + dt * z
        y.append((C @ x).real + t["D"] * sample)
    return np.array(y)


@pytest.mark.parametrize("which", SCHEMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_oscillators_of_any_damping_are_the_recurrence(which: str, data: st.DataObject) -> None:
    """At the step sizes of their training, at a rate, and at irregular steps that take the same oscillator on."""
    scheme, damped = SCHEMES[which]
    t = data.draw(oscillators(damped))
    rate = data.draw(st.floats(0.1, 1))
    g = np.random.default_rng(data.draw(st.integers(0, 99)))
    u, dt = g.normal(size=(L, H)), np.where(g.random(L) < 0.3, 1, g.uniform(0.1, 1, L))
    document = Document(linoss.oscillators(Tensors(t, ""), scheme, damped=damped, name="ssm"), H, H)
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-10)):
        model = Model(document, dtype)  # type: ignore[arg-type]

        def near(y: Array, factors: Array, tolerance: float = tolerance) -> None:
            assert relative_error(y, stepped(t, scheme, damped, u, factors)) < tolerance

        near(model(u[None])[0], np.ones(L))
        near(model(u[None], rate=rate)[0], np.full(L, rate))
        near(model(u[None], dt=dt[None])[0], dt)
        stream, irregular = model.stream(), model.stream()
        near(np.array([stream.step(sample) for sample in u]), np.ones(L))
        near(np.array([irregular.step(sample, dt=factor) for sample, factor in zip(u, dt)]), dt)


def test_a_rate_is_refused_that_drives_oscillators_apart() -> None:
    t = {"steps": np.zeros(2), "A_diag": np.array([0.5, 12.0]), "D": np.ones(1)}
    t |= {"B": np.ones((2, 1, 2)), "C": np.ones((1, 2, 2))}

    def model(scheme: str) -> Model:
        return Model(Document(linoss.oscillators(Tensors(t, ""), scheme, damped=False, name="ssm"), 1, 1))

    u = np.ones((1, 9, 1))
    # dt^2 A < 4 is what an undamped IMEX oscillator stands.
    assert np.isfinite(model("IMEX")(u, rate=1.1)).all()
    with pytest.raises(UnsupportedError, match=r"rate=1.2: linoss \"ssm\": oscillator 1: .* use a lower rate"):
        model("IMEX")(u, rate=1.2)
    assert np.isfinite(model("IM")(u, rate=100.0)).all()
    t["A_diag"] = np.array([0.5, 17.0])
    (layer,) = model("IMEX").layers()
    assert layer["unstable"]
    assert layer["place"] == "oscillator 1"
    assert np.isfinite(model("IMEX")(u)).all()


def test_a_model_saved_without_its_state_is_named() -> None:
    case, file = golden("jax/discretax_lru")
    alone = {n.removeprefix("[0]."): a for n, a in file.tensors.items() if n.startswith("[0].")}
    for tensors in (alone, {n: a for n, a in file.tensors.items() if not n.startswith("[1]")}):
        with pytest.raises(CheckpointError, match=r"blocks\[0\]\.norm.*running statistics.*\(model, state\)"):
            families.build(replace(file, tensors=tensors), config=case.config)


def test_statistics_of_more_norms_than_there_are_have_no_place() -> None:
    case, file = golden("jax/linoss_im")
    more = {**file.tensors, "[1][<flat index 5>][0]": np.ones(8, np.float32), "[1][<flat index 4>]": np.array(True)}
    with pytest.raises(CheckpointError, match="flat index 4"):
        families.build(replace(file, tensors=more), config=case.config)


def test_a_damped_implicit_oscillator_is_refused() -> None:
    case, file = golden("jax/discretax_linoss")
    with pytest.raises(UnsupportedError, match="IM with damping"):
        families.build(file, config={**(case.config or {}), "discretization": "IM"})
    case, file = golden("jax/small/discretax_linoss_im")
    with pytest.raises(UnsupportedError, match="damping"):
        families.build(file, config={**(case.config or {}), "damping": True})


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("jax/discretax_linoss", "state_dim", "[0].layers[1].blocks[1].sequence_mixer"),
        ("jax/linoss_im", "ssm_size", "[0].blocks[1].ssm"),
    ],
)
def test_another_number_of_oscillators_is_named(name: str, size: str, layer: str) -> None:
    case, file = golden(name)
    count = len(file.tensors[f"{layer}.A_diag"])
    with pytest.raises(CheckpointError, match=rf"config\['{size}'\].*expected {count} .*found {count + 1}"):
        families.build(file, config={**(case.config or {}), size: count + 1})
    for tensor in ("A_diag", "steps", "B", "C"):
        longer = np.concatenate([file.tensors[f"{layer}.{tensor}"]] * 2, 1 if tensor == "C" else 0)
        with pytest.raises(CheckpointError, match=re.escape(f"{layer.removeprefix('[0].')}.{tensor}")):
            families.build(replace(file, tensors={**file.tensors, f"{layer}.{tensor}": longer}), config=case.config)


@pytest.mark.parametrize("other", ["jax/discretax_linoss_degenerate", "jax/discretax_lru", "jax/linoss_im"])
def test_the_leaves_of_another_model_are_named(other: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "jax/discretax_linoss/model_state.eqx", tmp_path)
    shutil.copy(GOLDEN / other / "leaves.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"leaves\.json"):
        read(tmp_path / "model_state.eqx")


def test_the_leaves_of_a_model_of_other_sizes_are_named(tmp_path: Path) -> None:
    folder = GOLDEN / "jax/discretax_linoss"
    shutil.copy(folder / "model_state.eqx", tmp_path)
    rows = json.loads((folder / "leaves.json").read_text())
    at = next(row for row in rows if row["path"].endswith("blocks[1].sequence_mixer.A_diag"))
    at["shape"] = [at["shape"][0] + 1]
    (tmp_path / "leaves.json").write_text(json.dumps(rows))
    with pytest.raises(
        CheckpointError, match=r"(?s)leaves\.json names.*sequence_mixer\.A_diag: expected float32 \(13,\)"
    ):
        read(tmp_path / "model_state.eqx")


def test_integers_of_the_module_must_be_those_of_the_tensors() -> None:
    for name, integer in (
        ("jax/discretax_s5", "P"),
        ("jax/discretax_s4d", "state_dim"),
        ("jax/discretax_s5", "in_features"),
    ):
        case, file = golden(name)
        key = f"[0].layers[1].blocks[1].sequence_mixer.{integer}"
        assert key in file.tensors
        with pytest.raises(CheckpointError, match=integer):
            families.build(replace(file, tensors={**file.tensors, key: np.array(3)}), config=case.config)


ASKED: dict[str, dict[str, Any]] = {
    "jax/discretax_s5": {"conj_sym": True, "discretization": "zoh", "step_rescale": 1.0, "kind": "classification"},
    "jax/small/discretax_linoss_imex": {"discretization": "IMEX"},
    "jax/small/discretax_s4d_mlp": {"non_linearity": "gelu"},
    "jax/linoss_im": {"discretization": "IMEX"},
    "torch/s5_pytorch_block": {"liquid": False, "degree": 1},
}


@pytest.mark.parametrize("name", ASKED)
def test_the_first_fact_that_no_file_holds_is_asked_for_with_its_packages_default(name: str) -> None:
    _, file = golden(name)
    with pytest.raises(ConfigRequired) as raised:
        families.build(replace(file, config=None))
    assert raised.value.name in ASKED[name]
    assert raised.value.default == ASKED[name][raised.value.name]


def test_discretax_clips_eigenvalues_unless_told() -> None:
    case, file = golden("jax/discretax_s5")
    key = "[0].layers[1].blocks[0].sequence_mixer.Lambda_re"
    raised = replace(file, tensors={**file.tensors, key: np.full(8, 0.5, np.float32)})

    def real(config: dict[str, Any]) -> Array:
        document = families.build(raised, config={**(case.config or {}), **config})
        return np.array(next(node for node in walk(document.root) if isinstance(node, DiagonalMimo)).A.real)

    np.testing.assert_array_equal(real({}), -1e-4)
    np.testing.assert_array_equal(real({"clip_eigs": False}), 0.5)


def test_a_learned_start_is_the_start_of_every_stream_and_reset() -> None:
    """Against the recurrence written out: y reads the state before the update."""
    rng = np.random.default_rng(0)
    A = 0.9 * np.exp(1j * rng.uniform(0, 3, 5))
    B, C = (
        rng.normal(size=(5, 2)) + 1j * rng.normal(size=(5, 2)),
        rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5)),
    )
    start = rng.normal(size=5) + 1j * rng.normal(size=5)
    system = DiagonalMimo(A=A, B=B, C=C, D=None, dt=None, disc="discrete", conjugate_pairs=False)
    document = Document(neural_ssm.before_the_update(system, start, "cell"), 2, 3)
    u = rng.normal(size=(30, 2))

    def stepped(u: Array) -> Array:
        x, y = start, []
        for sample in u:
            y.append((C @ x).real)
            x = A * x + B @ sample
        return np.array(y)

    model = Model(document, "float64")
    resets = np.zeros(30, bool)
    resets[11] = True
    expected = np.concatenate([stepped(u[:11]), stepped(u[11:])])
    np.testing.assert_allclose(model(u), stepped(u), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model(u[None], resets=resets[None])[0], expected, rtol=1e-12, atol=1e-12)
    stream = model.stream()
    first = [stream.step(sample) for sample in u[:11]]
    stream.reset()
    np.testing.assert_allclose([*first, *stream.push(u[11:])], expected, rtol=1e-12, atol=1e-12)
