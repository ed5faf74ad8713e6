"""Mamba-2 as mamba_ssm, transformers and mamba2-jax have it: what a mixer's options mean, and what must be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import cases, relative_error
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from ssmrt.document import Activation, Document, Norm, Ssd, walk
from ssmrt.errors import CheckpointError, ConfigRequired, SsmrtError, UnsupportedError
from ssmrt.families import build
from ssmrt.readers import read
from ssmrt.readers.checkpoint import Checkpoint

Array = NDArray[Any]
Tensors = dict[str, Array]


def silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


def rms(x: Array, weight: Array, size: int) -> Array:
    runs = x.reshape(*x.shape[:-1], -1, size)
    normed = runs / np.sqrt((runs**2).mean(-1, keepdims=True) + 1e-5)
    return np.asarray(normed.reshape(x.shape) * weight)


def mixer(w: Tensors, u: Array, said: Mapping[str, Any]) -> Array:
    """Mamba2.forward and Mamba2Simple.forward of mamba_ssm 03a38fb for u (L, d_model), sample by sample in float64."""
    heads, columns = len(w["A_log"]), w["out_proj.weight"].shape[1]
    conv = len(w["conv1d.weight"])
    beside = len(w["in_proj.weight"]) - columns - conv - heads
    d, groups, n = columns - beside, said["ngroups"], said["d_state"]
    rows = u @ w["in_proj.weight"].T + w.get("in_proj.bias", 0.0)
    z0, x0, z, xbc, dt = np.split(rows, np.cumsum([beside, beside, d, conv]), axis=1)
    taps = w["conv1d.weight"][:, 0]
    before = np.concatenate([np.zeros((taps.shape[1] - 1, conv)), xbc])
    summed = np.stack([before[k : k + len(u)] * taps[:, k] for k in range(taps.shape[1])]).sum(0)
    xbc = silu(summed + w.get("conv1d.bias", 0.0))
    low, high = said.get("dt_limit", (0.0, np.inf))
    dt = np.clip(np.log1p(np.exp(dt + w["dt_bias"])), low, high)
    x = xbc[:, :d].reshape(len(u), heads, -1)
    B, C = (part.reshape(len(u), groups, n).repeat(heads // groups, 1) for part in np.split(xbc[:, d:], 2, axis=1))
    D = w["D"].reshape(heads, -1)
    state, by_head = w.get("init_states", np.zeros((heads, d // heads, n))), np.zeros_like(x)
    for t in range(len(u)):
        decay = np.exp(-np.exp(w["A_log"]) * dt[t])[:, None, None]
        state = decay * state + (dt[t][:, None] * x[t])[:, :, None] * B[t][:, None, :]
        by_head[t] = (state * C[t][:, None, :]).sum(-1) + D * x[t]
    y = by_head.reshape(len(u), d)
    if "norm.weight" not in w:
        y = y * silu(z)
    elif said.get("norm_before_gate"):
        y = rms(y, w["norm.weight"], said["group_size"]) * silu(z)
    else:
        y = rms(y * silu(z), w["norm.weight"], said["group_size"])
    both = np.concatenate([silu(z0) * x0, y], axis=1)
    return np.asarray(both @ w["out_proj.weight"].T + w.get("out_proj.bias", 0.0))


@st.composite
def mixers(draw: Any) -> tuple[Tensors, dict[str, Any]]:
    """A mixer's tensors and what has to be said of them."""
    groups, each, p = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 8, 16]))
    n, taps, width = draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.sampled_from([3, 8, 20]))
    beside, biased, normed, per_channel = draw(st.sampled_from([0, 0, 5])), *(draw(st.booleans()) for _ in range(3))
    heads = groups * each
    d = heads * p
    conv = d + 2 * groups * n
    g = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w: Tensors = {
        "A_log": np.log(g.uniform(1, 16, heads)),
        "D": g.normal(size=d if per_channel else heads),
        "dt_bias": np.log(np.expm1(np.exp(g.uniform(np.log(1e-3), np.log(0.1), heads)))),
        "in_proj.weight": g.normal(size=(2 * beside + d + conv + heads, width)) / np.sqrt(width),
        "conv1d.weight": g.normal(size=(conv, 1, taps)),
        "out_proj.weight": g.normal(size=(width, beside + d)) / np.sqrt(beside + d),
    }
    if biased:
        w |= {f"{name}.bias": g.normal(size=len(w[f"{name}.weight"])) for name in ("in_proj", "conv1d", "out_proj")}
    if normed:
        w["norm.weight"] = g.uniform(0.5, 2, d)
    if draw(st.booleans()):
        w["init_states"] = g.normal(size=(heads, p, n))
    said: dict[str, Any] = {
        "ngroups": groups,
        "learnable_init_states": "init_states" in w,
        "d_state": n,
        "rmsnorm": normed,
        "bias": biased,
        "conv_bias": biased,
    }
    said["dt_limit"] = draw(st.sampled_from([(0.0, float("inf")), (0.01, 0.05)]))
    said["norm_before_gate"] = draw(st.booleans())
    said["group_size"] = draw(st.sampled_from([d // groups, d]))
    said |= {"headdim": p, "d_ssm": d, "D_has_hdim": per_channel}
    return w, said


@given(mixers(), st.integers(1, 30), st.integers(0, 30))
def test_a_mixer_is_upstreams(made: tuple[Tensors, dict[str, Any]], length: int, cut: int) -> None:
    w, said = made
    model = ssmrt.Model(build(Checkpoint(w, "x", "torch"), config=said, arch="mamba2"), "float64")
    u = np.random.default_rng(0).normal(size=(length, model.document.d_input))
    expected = mixer(w, u, said)
    assert relative_error(model(u), expected) < 1e-11
    # Prefill, then steps.
    stream, cut = model.stream(), min(cut, length)
    prefilled = stream.push(u[None, :cut])[0]
    steps = [stream.step(u[None, t])[0] for t in range(cut, length)]
    assert relative_error(np.concatenate([prefilled, *(y[None] for y in steps)]), expected) < 1e-11


ROW = next(case for case in cases("torch/hf_mamba2"))
FILE = read(ROW.files[0][0])
SAID = dict(FILE.config or {})


def document(config: Mapping[str, Any] | None, tensors: Tensors | None = None) -> Document:
    return build(Checkpoint(tensors or FILE.tensors, "x", "safetensors"), config=config)


def test_who_norms_by_groups_is_asked_of_files_of_transformers_before_5() -> None:
    old = {**SAID, "transformers_version": "4.57.1"}
    with pytest.raises(ConfigRequired, match="each of the 2 groups by itself") as raised:
        document(old)
    assert (raised.value.name, raised.value.choices, raised.value.default) == ("group_size", (32, 64), 32)
    u, y64 = ROW.io[0]
    assert relative_error(ssmrt.Model(document({**old, "group_size": 32}), "float64")(u), y64) < 1e-9
    # What transformers 4.57 makes of the file.
    whole = ssmrt.Model(document({**old, "group_size": 64}), "float64")(u)
    assert relative_error(whole, y64) > 0.3


def test_who_says_nothing_is_asked() -> None:
    with pytest.raises(ConfigRequired, match="the product of the groups and the state's size alone, 32") as raised:
        document(None)
    assert (raised.value.name, raised.value.default) == ("ngroups", 1)
    # One of the two says the other.
    for said in ({"ngroups": 2}, {"d_state": 16}, {"ssm_cfg": {"ngroups": 2}}, {"ssm_cfg": {"d_state": 16}}):
        assert {n.groups for n in walk(document(said).root) if isinstance(n, Ssd)} == {2}
    assert {n.d_state for n in walk(document({}).root) if isinstance(n, Ssd)} == {32}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"n_groups": 3}, "expected a divisor of the 32 channels"),
        ({"n_groups": None, "state_size": 5}, "expected a divisor of the 32 channels"),
        ({"n_groups": 16, "state_size": 2}, "expected a divisor of the 8 heads"),
        ({"state_size": 32}, r"'state_size'.*expected 16"),
        ({"head_dim": 16}, r"'head_dim'.*expected 8"),
        ({"num_heads": 4}, r"'num_heads'.*expected 8"),
        ({"time_step_limit": [0.1]}, "two numbers"),
        ({"time_step_limit": [0.2, 0.1]}, "two numbers"),
        ({"time_step_limit": ["inf", "inf"]}, "two numbers"),
        ({"group_size": 8}, r"expected one of \(32, 64\)"),
        ({"norm_before_gate": 1}, "True or False"),
        ({"rmsnorm": False}, "rmsnorm"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        document({**SAID, **said})


def test_step_sizes_are_kept_within_their_limits() -> None:
    limited = document({**SAID, "time_step_limit": [0.01, 0.05]})
    assert {(n.dt_min, n.dt_max) for n in walk(limited.root) if isinstance(n, Ssd)} == {(0.01, 0.05)}
    for infinity in (float("inf"), "inf", "Infinity", {"__float__": "Infinity"}):
        free = document({**SAID, "time_step_limit": [0.0, infinity]})
        assert {(n.dt_min, n.dt_max) for n in walk(free.root) if isinstance(n, Ssd)} == {(0.0, None)}


def test_mamba2_jaxs_gate_has_a_fixed_eps_and_its_gelu_is_by_tanh() -> None:
    row = next(case for case in cases("jax/mamba2_jax"))
    said = {**(row.config or {}), "layer_norm_epsilon": 0.5, "hidden_act": "gelu"}
    nodes = list(walk(build(read(row.files[0][0]), config=said).root))
    assert sorted({(node.eps, node.name.endswith("mixer.norm")) for node in nodes if isinstance(node, Norm)}) == [
        (1e-5, True),
        (0.5, False),
    ]
    assert {node.function for node in nodes if isinstance(node, Activation)} == {"gelu_tanh", "silu"}
    torch = list(walk(document({**SAID, "layer_norm_epsilon": 0.5, "hidden_act": "gelu"}).root))
    assert {node.eps for node in torch if isinstance(node, Norm)} == {0.5}
    assert {node.function for node in torch if isinstance(node, Activation)} == {"gelu", "silu"}


@pytest.mark.parametrize("config", [{"model_type": "mamba2"}, {"ssm_cfg": {"layer": "Mamba2"}}])
def test_a_mamba_is_no_mamba_2(config: dict[str, Any]) -> None:
    first = read(next(case for case in cases("torch/hf_mamba_sharded")).files[0][0])
    with pytest.raises(UnsupportedError, match="not supported in mamba"):
        build(first, config={**config, "architectures": None} if "ssm_cfg" in config else config)


@pytest.mark.parametrize("key", [name for name in FILE.tensors if ".1." not in name])
def test_damaged_tensors_are_refused(key: str) -> None:
    array = FILE.tensors[key]
    for damaged in (
        array[None],
        array[:0],
        array.reshape(-1)[0],
        np.full(array.shape, np.nan, array.dtype),
        array.astype(np.int64),
    ):
        with pytest.raises(SsmrtError):
            document(SAID, {**FILE.tensors, key: damaged})
