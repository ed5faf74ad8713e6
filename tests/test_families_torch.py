"""Documents of PyTorch checkpoints: each computes what upstream's model computed, or says why it cannot."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import Case, cases, relative_error
from numpy.typing import NDArray
from oracle import discrete, full, kernel, run
from ssmrt.document import Dense, Diagonal, Document, Dplr, Linear, Pool, Residual, walk
from ssmrt.errors import CheckpointError, ConfigRequired, SsmrtError, UnsupportedError
from ssmrt.families import build
from ssmrt.families.s4_kernel import Kernel, real_matrix, tie, true_C
from ssmrt.readers import read
from ssmrt.readers.checkpoint import Checkpoint

Array = NDArray[Any]
Edit = Mapping[str, Array | None]

ROWS = list(cases("torch/"))
FILES = [
    pytest.param(case, i, id=f"{case.name}/{path.name}") for case in ROWS for i, (path, _) in enumerate(case.files)
]


def case(name: str) -> Case:
    """The row of that name."""
    return next(row for row in ROWS if row.name == name)


def checkpoint(name: str, edit: Edit | None = None, file: int = 0) -> Checkpoint:
    """A row's checkpoint without the configuration in it, some tensors replaced or (None) left out."""
    found = read(case(name).files[file][0])
    tensors = {**found.tensors, **(edit or {})}
    return replace(found, tensors={k: v for k, v in tensors.items() if v is not None}, config=None)


def only(document: Document, kind: type) -> Any:
    """The first node of that kind."""
    return next(node for node in walk(document.root) if isinstance(node, kind))


@pytest.mark.parametrize(("row", "file"), FILES)
def test_document_is_upstreams_model(row: Case, file: int) -> None:
    path, config = row.files[file]
    document = build(read(path), config=config)
    # Every file of a row holds the same tensors: one run of it on all inputs is enough.
    for u, y64 in row.io if file == 0 else row.io[:1]:
        assert relative_error(run(document, u), y64) < row.tolerance64
    assert document.meta["arch"] == row.arch
    # A saved model tells what it was made of, and not where that lay.
    assert document.meta["source"] == path.name


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_names_are_unique_and_causality_is_known(row: Case) -> None:
    path, config = row.files[0]
    document = build(read(path), config=config)
    names = [node.name for node in walk(document.root)]
    assert len(names) == len(set(names))
    looks_ahead = any(
        getattr(node, "C_reverse", None) is not None or getattr(node, "disc", None) == "dss"
        for node in walk(document.root)
    )
    assert looks_ahead != row.streams


@pytest.mark.parametrize("row", [row for row in ROWS if row.streams and len(row.io[0][1].shape) == 3], ids=str)
def test_rate_halves_every_step_of_what_has_one(row: Case) -> None:
    path, config = row.files[0]
    document = build(read(path), config=config)
    u = row.io[0][0][:1, :12]
    if any(getattr(node, "disc", None) == "discrete" for node in walk(document.root)):
        with pytest.raises(ValueError, match="discrete time"):
            run(document, u, rate=0.5)
        return
    dt = np.full(u.shape[:2], 0.5)
    assert relative_error(run(document, u, rate=0.5), run(document, u, dt=dt)) < 1e-12


@pytest.mark.parametrize("wrap", ["module.", "model.", "net._orig_mod.", "_orig_mod.model."])
@pytest.mark.parametrize("name", ["torch/small/example_prenorm", "torch/small/nplr_no_output", "torch/small/seq_ff"])
def test_names_in_front_do_not_matter(name: str, wrap: str) -> None:
    row, plain = case(name), checkpoint(name)
    wrapped = replace(plain, tensors={wrap + k: v for k, v in plain.tensors.items()})
    document = build(wrapped, config=row.config)
    u, y64 = row.io[0]
    assert relative_error(run(document, u), y64) < 1e-12


@pytest.mark.parametrize("apart", [False, True], ids=["P alone", "P and Q"])
def test_true_C_times_what_was_trained_is_the_stored_C(apart: bool) -> None:
    rng = np.random.default_rng(0)
    shape = (2, 3)

    def normal(*shape: int) -> NDArray[np.complex128]:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    A: Array = -rng.uniform(0.1, 1, shape) + 3j * normal(*shape).imag
    P: Array = normal(2, *shape)
    Q: Array | None = P * 1.1 if apart else None
    stored = Kernel(
        dt=rng.uniform(0.01, 0.1, (4, 1)),
        A=A,
        B=normal(*shape),
        C=normal(2, 4, 3),
        P=P,
        Q=Q,
        length=37,
    )
    C = true_C(stored, "")
    node = Dplr(A=A, P=P, B=stored.B, Q=stored.Q, C=C, D=np.zeros((2, 4)), dt=stored.dt[:, 0])
    discrete_A, _ = discrete(node, np.ones(1))
    C_full = np.concatenate([C, C.conj()], -1)
    trained = C_full - np.einsum("mhn,hnk->mhk", C_full, np.linalg.matrix_power(discrete_A[0], 37))
    assert relative_error(trained[..., :3], stored.C) < 1e-12


def test_real_matrix_is_the_complex_one() -> None:
    rng = np.random.default_rng(1)
    A: Array = rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3))
    P: Array = rng.normal(size=(1, 2, 3)) * (1 + 2j)
    system = Kernel(dt=np.ones((2, 1)), A=A, B=A, C=A[None], P=P)
    x = rng.normal(size=3) + 1j * rng.normal(size=3)
    whole, _ = full(Dplr(A=A, P=P, B=A, C=A[None], D=np.ones((1, 2)), dt=np.ones(2)))
    expected = (whole @ np.concatenate([x, x.conj()]))[:, :3]
    found = real_matrix(system) @ np.concatenate([x.real, x.imag])
    np.testing.assert_allclose(found[:, :3] + 1j * found[:, 3:], expected, rtol=1e-13)


def test_a_dt_for_each_mode_is_a_system_of_its_own() -> None:
    row = case("torch/small/nplr_untied")
    document = build(checkpoint(row.name), config=row.config)
    node = only(document, Dplr)
    assert node.Q is not None
    np.testing.assert_array_equal(node.dt, 1)
    tied = Kernel(dt=np.ones((2, 1)), A=node.A, B=node.B, C=node.C)
    assert tie(tied) is tied


def test_a_large_layer_loads_at_once() -> None:
    rng = np.random.default_rng(2)
    H, n = 256, 32
    tensors = {
        "layer.D": rng.normal(size=(1, H)),
        "layer.kernel.inv_dt": rng.uniform(-7, -2.3, (H, 1)),
        "layer.kernel.C": rng.normal(size=(1, H, n, 2)),
        "layer.kernel.B": rng.normal(size=(1, H, n, 2)),
        "layer.kernel.P": rng.normal(size=(1, H, n, 2)),
        "layer.kernel.A_real": np.full((H, n), -0.7),
        "layer.kernel.A_imag": np.tile(3.0 * np.arange(n), (H, 1)),
        "layer.kernel.l_kernel": np.array(16384),
        "output_linear.0.weight": rng.normal(size=(2 * H, H)),
        "output_linear.0.bias": np.zeros(2 * H),
    }
    started = time.perf_counter()
    build(Checkpoint(tensors, "", "torch"), config={})
    assert time.perf_counter() - started < 2


def test_heads_share_systems_in_turn() -> None:
    document = build(checkpoint("torch/s4_nplr/legs_nssm2"), config={})
    assert only(document, Dplr).A.shape[0] == 2


@pytest.mark.parametrize(
    ("name", "fact", "default"),
    [
        ("torch/s4d_minimal", "prenorm", False),
        ("torch/s4_diag/is_real", "dt_transform", "exp"),
        ("torch/s4_nplr/dt_softplus", "dt_transform", "exp"),
        ("torch/s4_sequence_model_transposedLN", "dt_transform", "softplus"),
        ("torch/s4_legacy/v3_diag", "disc", "bilinear"),
        ("torch/s4_legacy/v3_nplr", "real_type", "exp"),
        ("torch/small/lssl_legs", "activation", "gelu"),
    ],
)
def test_a_fact_that_no_file_holds_is_asked_for(name: str, fact: str, default: object) -> None:
    with pytest.raises(ConfigRequired, match=fact) as raised:
        build(checkpoint(name))
    assert raised.value.name == fact
    assert raised.value.default == default
    assert raised.value.choices is not None
    assert default in raised.value.choices
    build(checkpoint(name), config={})


@pytest.mark.parametrize("name", ["torch/small/nplr_relu_out", "torch/small/diag_id_out"])
def test_what_has_no_usable_default_is_asked_for_always(name: str) -> None:
    with pytest.raises(ConfigRequired) as raised:
        build(checkpoint(name), config={})
    assert raised.value.name == "final_act"


@pytest.mark.parametrize(
    ("told", "shape"),
    [({"l_output": None}, (2, 30, 3)), ({"l_output": 0}, (2, 3)), ({"mode": "last"}, (2, 3)), ({}, (2, 3))],
)
def test_the_decoder_says_whether_every_step_answers(told: Mapping[str, object], shape: tuple[int, ...]) -> None:
    row = case("torch/small/seq_affine")
    config = {**(row.config or {}), "decoder": {"_name_": "sequence", **told}}
    assert run(build(checkpoint(row.name), config=config), row.io[0][0]).shape == shape


def test_a_decoder_unknown_is_asked_for() -> None:
    row = case("torch/small/seq_affine")
    found = checkpoint(row.name)
    model = {k: v for k, v in (row.config or {}).items() if k == "model"}
    with pytest.raises(ConfigRequired, match=r"config\['decoder'\]\['l_output'\]") as raised:
        build(found, config={**model, "dataset": {"_name_": "etth"}})
    assert raised.value.name == "l_output"
    assert only(build(found, config=model), Pool).mode == "last"


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("torch/s4d_minimal", {"d_model": 33}, r"'d_model'.*expected 32.*found 33"),
        ("torch/s4d_minimal", {"n_layers": 3}, r"'n_layers'.*expected 2"),
        ("torch/s4d_minimal", {"layer": "S4Block"}, r"'layer'.*expected 'S4D'"),
        ("torch/s4d_minimal", {"prenorm": "yes"}, r"'prenorm'.*one of False, True.*'yes'"),
        ("torch/s4d_minimal", {"pre_norm": True}, r"'pre_norm'.*did you mean 'prenorm'"),
        ("torch/s4_diag/dss", {"mode": "nplr"}, r"'mode'.*expected 'diag'"),
        ("torch/s4_diag/is_real", {"is_real": False}, r"'is_real'.*expected True"),
        ("torch/s4_diag/bidir", {"channels": 2}, r"'channels'.*expected 1"),
        ("torch/s4_diag/bidir", {"bidirectional": False}, r"'bidirectional'.*expected True"),
        ("torch/s4_diag/dt_untied", {"dt_tie": True}, r"'dt_tie'.*expected False"),
        ("torch/s4_diag/dss", {"disc": "DSS"}, r"'disc'.*one of 'zoh', 'bilinear', 'dss'"),
        ("torch/s4_diag/bandlimit", {"bandlimit": "half"}, r"'bandlimit'.*a number or None.*'half'"),
        ("torch/s4_nplr/legs_r3", {"d_state": 64}, r"'d_state'.*expected 16"),
        ("torch/s4_nplr/legs_r3", {"rank": 1}, r"'rank'.*expected 3"),
        ("torch/s4_nplr/legs_r3", {"n_ssm": 2}, r"'n_ssm'.*expected 8"),
        ("torch/s4_nplr/legs_r3", {"l_max": -1}, r"'l_max'.*positive.*-1"),
        ("torch/s4_nplr/legs_r3", {"activation": "glu"}, r"'activation'.*'glu'"),
        ("torch/s4_nplr/legs_r3", {"activation": "softmax"}, r"activation: expected one of.*'softmax'"),
        ("torch/s4_nplr/legs_r3", {"final_act": "relu"}, r"'final_act'.*16 rows.*'relu'"),
        ("torch/small/nplr_no_output", {"final_act": "glu"}, r"(?s)output_linear.*nothing"),
        ("torch/s4_legacy/v3_nplr", {"dt_transform": "softplus"}, r"'dt_transform'.*expected 'exp'"),
        ("torch/small/seq_ff", {"prenorm": False}, r"'prenorm'.*expected True"),
        ("torch/small/seq_ff", {"norm": "none"}, r"'norm'.*expected 'layer'"),
        ("torch/small/seq_ff", {"n_layers": 0}, r"'n_layers'.*above zero"),
        ("torch/small/seq_ff", {"n_layers": 10**9, "layer": [{}]}, r"'n_layers'.*1000000000 in all"),
        ("torch/small/seq_ff", {"residual": "X"}, r"'residual'.*'X'"),
        ("torch/small/seq_ff", {"residual": {"_name_": "R", "alpha": "big"}}, r"\['residual'\]\['alpha'\].*a number"),
        ("torch/small/seq_ff", {"encoder": "embedding"}, r"encoder\.0\.weight .*6\).*\(6, 2\)"),
        ("torch/small/seq_ff", {"layer": {"_name_": "ffn"}}, r"config says 'ffn'.*'s4'"),
        ("torch/lssl/lssl_m1", {"order": 16}, r"'order'.*expected 32"),
        ("torch/mamba/mamba_dstate8", {"n_layer": 7}, r"'n_layer'.*expected 2"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(name: str, config: Mapping[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build(checkpoint(name), config=config)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("torch/s4_nplr/legs_r3", {"gate": 4}, "gate"),
        ("torch/s4_nplr/legs_r3", {"bottleneck": 2}, "bottleneck"),
        ("torch/s4_nplr/legs_r3", {"activation": "laplace"}, "laplace"),
        ("torch/small/v2_nplr", {"resample": True}, "resample"),
        ("torch/small/seq_ff", {"norm": "group"}, "whole sequence"),
        ("torch/small/seq_ff", {"norm": "batch"}, "running ones"),
        ("torch/small/seq_ff", {"pool": {"_name_": "pool", "stride": 2}}, "stride"),
        ("torch/small/seq_ff", {"encoder": "position"}, "position"),
        ("torch/small/seq_ff", {"decoder": "retrieval"}, "retrieval"),
        ("torch/small/seq_ff", {"decoder": {"mode": "pool", "l_output": None}}, "every step"),
        ("torch/small/seq_ff", {"decoder": {"l_output": 7}}, "7"),
        ("torch/small/seq_ff", {"task": {"_name_": "forecasting"}}, "forecasting"),
        ("torch/small/seq_highway", {"transposed": True}, "highway"),
    ],
)
def test_what_ssmrt_does_not_run_is_refused_by_name(name: str, config: Mapping[str, Any], message: str) -> None:
    row = dict(case(name).config or {}) if "seq_highway" in name else {}
    told = {**row, "model": {**row["model"], **config}} if row else config
    with pytest.raises(UnsupportedError, match=message):
        build(checkpoint(name), config=told)


KERNEL = "layer.kernel."


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"layer.D": None}, r"layer\.D .*nothing"),
        ({KERNEL + "C": None}, r"layer\.kernel\.C .*nothing"),
        ({KERNEL + "B": None}, r"layer\.kernel\.B .*nothing"),
        ({KERNEL + "l_kernel": None}, r"l_kernel .*nothing"),
        ({KERNEL + "l_kernel": np.array(-3)}, r"l_kernel .*-3"),
        ({KERNEL + "l_kernel": np.array(3.0)}, r"l_kernel .*an integer.*float64"),
        ({KERNEL + "P": np.zeros((1, 8, 7, 2))}, r"kernel\.P .*n=8.*\(1, 8, 7, 2\)"),
        ({KERNEL + "A_real": np.zeros(8)}, r"A_real .*two axes"),
        ({KERNEL + "inv_dt": np.full((8, 1), np.nan)}, r"inv_dt .*finite.*8 NaN"),
        ({KERNEL + "inv_dt": np.full((8, 1), 800.0)}, r"inv_dt .*transform"),
        ({KERNEL + "inv_dt": np.zeros((8, 1), np.int64)}, r"inv_dt .*int64"),
        ({KERNEL + "inv_dt": np.zeros((8, 3))}, r"inv_dt .*n=8.*\(8, 3\)"),
        ({KERNEL + "C": np.zeros((3, 8, 8, 2))}, r"kernel\.C .*1 or 2 rows.*3 rows"),
        ({"output_linear.0.bias": np.zeros(5)}, r"output_linear\.0\.bias .*16.*\(5,\)"),
        (
            {"output_linear.0.weight": np.zeros((20, 8)), "output_linear.0.bias": np.zeros(20)},
            r"8 or 16 rows .*20 rows",
        ),
        ({"extra.weight": np.zeros(2)}, r"extra\.weight .*nothing.*\(2,\)"),
    ],
)
def test_a_tensor_missing_surplus_or_misshapen_is_named(edit: Edit, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build(checkpoint("torch/s4_nplr/legs_r3", edit), config={})


# Buffers that mean nothing, and a head that may be the embedding's.
IDLE: tuple[str, ...] = ("transition.I", "transition.ones", "transition.arange", "omega", ".z", "kernel.kernel.A")
IDLE += ("num_batches_tracked", "lm_head.weight")


@pytest.mark.parametrize(
    "name",
    [
        "torch/s4d_minimal",
        "torch/s4_nplr/legs_r3",
        "torch/s4_legacy/v3_nplr",
        "torch/s4_legacy/v3_diag",
        "torch/lssl/lssl_m1",
        "torch/mamba/mamba_dstate8",
        "torch/small/example_s4block",
        "torch/small/lssl_lagt",
        "torch/small/lssl_legs",
        "torch/small/s4d_alone",
        "torch/small/seq_batch_bidir_transposed",
        "torch/small/seq_embedding",
        "torch/small/seq_ff",
        "torch/small/seq_highway",
        "torch/small/seq_tln_vector",
        "torch/small/v2_hurwitz",
        "torch/small/v2_nplr",
        "torch/small/v3_gate_bottleneck",
    ],
)
def test_every_tensor_counts(name: str) -> None:
    row = case(name)
    for key in checkpoint(name).tensors:
        if not key.endswith(IDLE):
            with pytest.raises(CheckpointError, match=r"key +\| expected +\| found|contradicts the tensors"):
                build(checkpoint(name, {key: None}), config=row.config)


DAMAGE: list[Callable[[Array], Array]] = [
    lambda a: a[None],
    lambda a: a.reshape(-1),
    lambda a: a[..., 0] if a.ndim else a[None],
    lambda a: a[:0] if a.ndim else a - 1,
    lambda a: np.concatenate([a, a], -1) if a.ndim else a * 10**9,
    lambda a: np.zeros(a.shape, np.int64),
    lambda a: np.zeros(a.shape, np.complex128),
    lambda a: np.zeros(a.shape, a.dtype),
    lambda a: np.full(a.shape, -1e30),
    lambda a: np.full(a.shape, np.inf),
]
JUNK: list[Any] = [None, 0, -1, True, 1.5, "glu", [], {}, [1], [None], {"_name_": [1]}, float("nan"), 10**30]
SMALL = ["nplr_bidir_channels2", "diag_nssm2", "lssl_toep", "seq_ff", "seq_id", "v2_nplr", "v3_gate_bottleneck"]


@pytest.mark.parametrize("name", SMALL)
def test_damaged_tensors_raise_nothing_else(name: str) -> None:
    name = f"torch/small/{name}"
    for key, tensor in checkpoint(name).tensors.items():
        for damage in DAMAGE:
            with contextlib.suppress(SsmrtError):
                build(checkpoint(name, {key: damage(tensor)}), config=case(name).config)


@pytest.mark.parametrize("name", SMALL)
def test_senseless_configs_raise_nothing_else(name: str) -> None:
    found, config = checkpoint(f"torch/small/{name}"), case(f"torch/small/{name}").config or {}
    places: list[tuple[str, ...]] = [(key,) for key in (*config, "l_max", "bandlimit", "decoder", "n_repeat", "mode")]
    places += [("model", key) for key in (*config.get("model", {}), "pool", "norm")]
    for place in places:
        for junk in JUNK:
            told = {**config, place[0]: junk}
            if len(place) == 2:
                told = {**config, "model": {**config.get("model", {}), place[1]: junk}}
            with contextlib.suppress(SsmrtError):
                build(found, config=told)


def test_a_gap_in_the_layers_is_named() -> None:
    found = checkpoint("torch/small/seq_ff")
    moved = {k.replace("layers.3.", "layers.999999999."): v for k, v in found.tensors.items()}
    with pytest.raises(CheckpointError, match=r"layers\.3"):
        build(replace(found, tensors=moved), config={})


def test_another_model_is_refused_with_what_was_found() -> None:
    with pytest.raises(CheckpointError, match=r"s4-example.*found 1 tensors of another model: fc\.weight"):
        build(Checkpoint({"fc.weight": np.zeros((2, 2))}, "x.pt", "torch"))
    with pytest.raises(CheckpointError, match=r"arch: expected one of .*'gru'"):
        build(Checkpoint({}, "x.pt", "torch"), arch="gru")
    with pytest.raises(CheckpointError, match=r"no names; pass arch="):
        build(Checkpoint({}, "x.eqx", "eqx", named=False))


def test_a_known_model_that_does_not_run_is_named() -> None:
    with pytest.raises(UnsupportedError, match="SaShiMi"):
        build(Checkpoint({"c_layers.0.norm.weight": np.zeros(2)}, "x.pt", "torch"))


def test_a_file_with_hyperparameters_of_its_own_is_asked_what_they_lack() -> None:
    found = replace(checkpoint("torch/s4d_minimal"), config={"lr": 0.01, "d_model": 32})
    with pytest.raises(ConfigRequired, match="prenorm"):
        build(found)
    with pytest.raises(CheckpointError, match="d_model"):
        build(replace(found, config={"d_model": 31}), config={})
    build(found, config={"prenorm": False})
    build(replace(found, config={"prenorm": True}))


def test_the_callers_config_lies_on_the_files() -> None:
    row = next(row for row in ROWS if row.name == "torch/s4_sequence_model_s4d_post")
    path, _ = next(pair for pair in row.files if pair[0].suffix == ".ckpt")
    found = read(path)
    assert found.config is not None
    document = build(found, config={"decoder": {"mode": "pool"}, "model": {"layer": {"l_max": 40}}})
    assert only(document, Pool).mode == "mean"
    layer = only(document, Diagonal)
    assert layer.kernel_length == 40
    assert layer.disc == "bilinear"


def test_kernels_of_the_repositorys_lssl_are_those_of_its_matrix() -> None:
    node = only(build(checkpoint("torch/small/lssl_legs"), config={}), Dense)
    # HiPPO-LegS has real negative eigenvalues -1, -2, ..., which training moved a little.
    assert (np.linalg.eigvals(node.A[0]).real < 0).all()
    assert kernel(node, node.C, 5).shape == (1, 4, 5)


def test_linear_weights_keep_their_dtype() -> None:
    document = build(checkpoint("torch/s4d_minimal"), config={})
    assert {node.weight.dtype for node in walk(document.root) if isinstance(node, Linear)} == {np.dtype(np.float32)}
    half = {k: v.astype(np.float16) for k, v in checkpoint("torch/s4d_minimal").tensors.items()}
    document = build(replace(checkpoint("torch/s4d_minimal"), tensors=half), config={})
    assert only(document, Linear).weight.dtype == np.float32


def test_highway_runs_its_layer_once() -> None:
    row = case("torch/small/seq_highway")
    document = build(checkpoint(row.name), config=row.config)
    assert sum(isinstance(node, Diagonal) for node in walk(document.root)) == 2
    assert any(isinstance(node, Residual) and node.skip is not None for node in walk(document.root))
