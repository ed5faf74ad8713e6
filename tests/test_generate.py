"""Tokens after a prompt: those that the whole sequence through the model each time would give, whatever runs beside."""

from __future__ import annotations

import io
import json
import shutil
from importlib import import_module
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import GOLDEN, cases
from command_line import Run
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from ssmrt.document import Document, Pool, Sequential
from ssmrt.errors import UnsupportedError
from ssmrt.sampling import Sampling

Array = NDArray[Any]

FOLDER = GOLDEN / "torch/hf_mamba2"
SAMPLED: dict[str, Any] = {"temperature": 0.9, "top_k": 20, "top_p": 0.95}


def loaded(name: str, dtype: str = "float64") -> ssmrt.Model:
    case = next(cases(name))
    path, config = case.files[0]
    return ssmrt.load(path, config=config, arch=case.arch, dtype=dtype)  # type: ignore[arg-type]


MODELS = ["torch/hf_mamba2", "torch/hf_falcon_mamba", "torch/mamba/mamba_dstate8", "jax/small/equinox_mamba"]


@pytest.fixture(scope="module")
def model() -> ssmrt.Model:
    return loaded("torch/hf_mamba2")


def plainly(
    model: ssmrt.Model, prompt: list[int], tokens: int, sampling: Sampling, seed: int, number: int = 0
) -> list[int]:
    """Each token from the whole sequence before it."""
    random, sequence = np.random.default_rng([seed, number]), list(prompt)
    for _ in range(tokens):
        sequence.append(sampling.choose(model(np.array(sequence))[-1], random))
    return sequence[len(prompt) :]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("said", [{}, {"temperature": 1.3}, SAMPLED], ids=["greedy", "sampled", "cut off"])
def test_streaming_is_the_whole_sequence_each_time(name: str, said: dict[str, Any]) -> None:
    model = loaded(name)
    prompt = [3, 1, 4, 1, 5]
    expected = plainly(model, prompt, 30, Sampling(**said), seed=5)
    assert list(ssmrt.generate(model, prompt, tokens=30, seed=5, **said)) == expected
    # Without a limit it goes on, and only as far as somebody asks.
    assert list(islice(ssmrt.generate(model, np.array(prompt), seed=5, **said), 12)) == expected[:12]


def test_several_prompts_are_each_as_alone(model: ssmrt.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[7], [1, 2, 3, 4, 5, 6, 7, 8, 9], list(range(64)) * 3, [60, 2, 9], [5] * 192]
    said: dict[str, Any]
    for said in ({}, SAMPLED):
        expected = [plainly(model, p, 8, Sampling(**said), 3, i) for i, p in enumerate(prompts)]
        # At once, and one after the other.
        for numbers in (1 << 24, 1):
            monkeypatch.setattr(import_module("ssmrt.generate"), "_NUMBERS", numbers)
            found = list(ssmrt.generate(model, prompts, tokens=8, seed=3, **said))
            assert found == [list(row) for row in zip(*expected)]


def test_a_stop_token_ends_its_sequence_alone(model: ssmrt.Model) -> None:
    prompts = [[1], [2], [3]]
    free = [list(column) for column in zip(*ssmrt.generate(model, prompts, tokens=12, **SAMPLED))]
    stop = {free[0][4], free[1][7]}
    kept = [column[: next((i for i, t in enumerate(column) if t in stop), len(column))] for column in free]
    assert len({len(column) for column in kept}) > 1
    found = list(ssmrt.generate(model, prompts, tokens=12, stop=list(stop), **SAMPLED))
    assert found == [list(row) for row in zip_longest(*kept)]
    alone = list(ssmrt.generate(model, prompts[0], tokens=12, stop=list(stop), **SAMPLED))
    assert alone == kept[0]
    assert list(ssmrt.generate(model, [1], tokens=0)) == list(ssmrt.generate(model, [1], stop=range(64))) == []


def test_a_model_that_answers_with_its_last_sample_alone_goes_on_too(model: ssmrt.Model) -> None:
    *body, head = model.document.root.children  # type: ignore[attr-defined]
    pooled = ssmrt.Model(Document(Sequential((*body, Pool("last"), head)), 1, 64), "float64")
    assert list(ssmrt.generate(pooled, [1, 2], tokens=9)) == list(ssmrt.generate(model, [1, 2], tokens=9))


# which token


def logits(draw: Any) -> Array:
    values = st.sampled_from([-2.0, 0.0, 0.5, 1.0]) | st.floats(-20, 20)
    return np.array(draw(st.lists(values, min_size=1, max_size=30)))


@given(st.data())
def test_candidates_are_the_most_probable_ones(data: st.DataObject) -> None:
    z = logits(data.draw)
    k = data.draw(st.none() | st.integers(1, len(z) + 2))
    p = data.draw(st.none() | st.floats(1e-3, 1))
    temperature = data.draw(st.floats(0.05, 5))
    tokens, probabilities = Sampling(temperature, k, p).candidates(z)
    # By the definition, one token after the other.
    order = sorted(range(len(z)), key=lambda t: (-z[t], t))[:k]
    weights = np.exp((z[order] - z.max()) / temperature)
    weights /= weights.sum()
    count = 1
    while p is not None and count < len(order) and weights[:count].sum() < p:
        count += 1
    near = p is not None and np.abs(np.cumsum(weights) - p).min() < 1e-12
    if p is not None and not near:
        order, weights = order[:count], weights[:count] / weights[:count].sum()
    if not near:
        assert sorted(tokens) == sorted(order)
        assert_allclose(probabilities[np.argsort(tokens)], weights[np.argsort(order)], rtol=1e-9, atol=1e-300)
    assert probabilities.sum() == pytest.approx(1)


def test_tokens_come_as_often_as_they_are_probable() -> None:
    z, count = np.log([0.5, 0.3, 0.15, 0.05]), 20_000
    for said, expected in (
        ({"temperature": 1.0}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, np.square([0.5, 0.3, 0.15, 0.05]) / np.square([0.5, 0.3, 0.15, 0.05]).sum()),
        ({"temperature": 1.0, "top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.9}, np.array([0.5, 0.3, 0.15, 0]) / 0.95),
    ):
        random = np.random.default_rng(0)
        found = np.bincount([Sampling(**said).choose(z, random) for _ in range(count)], minlength=4)  # type: ignore[arg-type]
        assert np.abs(found / count - expected).max() < 4 * np.sqrt(0.25 / count)


@given(st.data())
def test_cold_is_the_greatest_logit(data: st.DataObject) -> None:
    z = logits(data.draw)
    random = np.random.default_rng(0)
    assert Sampling().choose(z, random) == int(np.flatnonzero(z == z.max())[0])
    assert z[Sampling(1e-300).choose(z, random)] == z.max()
    assert z[Sampling(1.0, top_k=1).choose(z, random)] == z.max()


# bad input


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"prompt": [64]}, ValueError, "prompt: expected tokens from 0 to 63, found 64"),
        ({"prompt": [[1], [2, -1]]}, ValueError, "prompt: expected tokens from 0 to 63, found -1"),
        ({"prompt": [0.5]}, TypeError, "prompt: expected integer tokens, found dtype float64"),
        ({"prompt": []}, ValueError, "prompt: expected a token at least, found none"),
        ({"prompt": [[1], []]}, ValueError, "prompt: expected a token at least, found none"),
        ({"prompt": "text"}, TypeError, "prompt: expected tokens, or several sequences of them, found 'text'"),
        ({"prompt": 3}, TypeError, "prompt: expected tokens, or several sequences of them, found 3"),
        ({"prompt": [[[1]]]}, ValueError, r"prompt: expected tokens of shape \(length,\), found shape \(1, 1\)"),
        ({"stop": [64]}, ValueError, "stop: expected tokens from 0 to 63, found 64"),
        ({"stop": 3}, ValueError, r"stop: expected tokens of shape \(length,\)"),
        ({"tokens": -1}, ValueError, "tokens: expected 0 or more, found -1"),
        ({"temperature": -0.1}, ValueError, "temperature: expected 0 or more, found -0.1"),
        ({"temperature": float("nan")}, ValueError, "temperature: expected a finite number"),
        ({"top_k": 0}, ValueError, "top_k: expected 1 or more, found 0"),
        ({"top_k": 2.0}, TypeError, "top_k: expected a whole number"),
        ({"top_p": 0}, ValueError, "top_p: expected more than 0 and at most 1, found 0"),
        ({"top_p": 1.5}, ValueError, "top_p: expected more than 0 and at most 1, found 1.5"),
        ({"seed": -1}, ValueError, "seed: expected 0 or more, found -1"),
        ({"seed": None}, TypeError, "seed: expected a whole number"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_token(
    model: ssmrt.Model, said: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ssmrt.generate(model, **{"prompt": [1], **said})


def test_a_model_must_take_tokens_and_answer_with_logits(model: ssmrt.Model) -> None:
    layer = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05])
    with pytest.raises(UnsupportedError, match="expected a model that takes tokens, found one of 1 numbers a sample"):
        ssmrt.generate(layer, [1])
    headless = ssmrt.Model(Document(Sequential(model.document.root.children[:-1]), 1, 32))  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedError, match=r"logits of its 64 tokens, found one without that .* 32 numbers"):
        ssmrt.generate(headless, [1])
    with pytest.raises(TypeError, match=r"model: expected an ssmrt\.Model"):
        ssmrt.generate("mamba", [1])  # type: ignore[call-overload]


def test_answers_that_are_no_numbers_are_told() -> None:
    for broken in ([np.nan, 0.0], [0.0, np.inf]):
        with pytest.raises(ValueError, match="the model's answers are of no use"):
            Sampling().choose(np.array(broken), np.random.default_rng(0))


def test_another_models_state_is_refused(model: ssmrt.Model) -> None:
    other = loaded("torch/hf_falcon_mamba")
    with pytest.raises(ValueError, match="snapshot: expected one of the same model, rate and dtype"):
        model.stream().restore(other.stream().snapshot())
    with pytest.raises(ValueError, match="state: expected"):
        model(np.array([1, 2]), state=other.default_state())
    with pytest.raises(ValueError, match="state: expected"):
        model.step(np.array(1), other.default_state())


# on the command line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def tokens(out: str) -> list[int]:
    return [int(word) for word in out.split()]


def test_run_prints_tokens(run: Run, folder: Path, model: ssmrt.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ("run", folder, "--dtype", "float64", "--generate", "--tokens", 6)
    expected = list(ssmrt.generate(model, [1, 2, 3], tokens=6, stop=[2]))
    code, out, err = run(*common, "1,2,3")
    assert (code, tokens(out), err) == (0, expected, "")
    sampled = ("--temperature", "0.9", "--top-k", 20, "--top-p", "0.95", "--seed", 4)
    expected = list(ssmrt.generate(model, [1, 2, 3], tokens=6, stop=[2], seed=4, **SAMPLED))
    assert tokens(run(*common, "1,2,3", *sampled)[1]) == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("1,2,3\n"))
    assert tokens(run(*common, "-", *sampled)[1]) == expected
    # Several at once, and from a file.
    np.save(folder / "u.npy", np.array([[4, 5], [6, 7]]))
    several = list(ssmrt.generate(model, [[1, 2, 3], [4, 5], [6, 7]], tokens=6, stop=[2]))
    code, out, _ = run(*common, "1,2,3", folder / "u.npy")
    flat = [[i, token] for row in several for i, token in enumerate(row) if token is not None]
    assert [tokens(line) for line in out.splitlines()] == flat
    lines = [json.loads(line) for line in run(*common, "1,2,3", folder / "u.npy", "--json")[1].splitlines()]
    assert lines == [{"sequence": i, "token": token} for i, token in flat]


def test_run_stops_where_the_folder_says(run: Run, folder: Path, model: ssmrt.Model) -> None:
    common = ("run", folder, "--dtype", "float64", "--generate", "--tokens", 9)
    free = list(ssmrt.generate(model, [1], tokens=9))
    end = next(token for i, token in enumerate(free) if i > 2 and token not in free[:i])
    kept = free[: free.index(end)]
    assert tokens(run(*common, "1", "--stop", end)[1]) == kept
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 63]}))
    assert tokens(run(*common, "1")[1]) == kept
    assert tokens(run(*common, "1", "--stop", "")[1]) == free
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": None}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": end}))
    assert tokens(run(*common, "1")[1]) == kept
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
    code, _, err = run(*common, "1")
    assert (code, "eos_token_id: expected a token or a list of tokens, found '</s>'" in err) == (2, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--generate",), "the following arguments are required: INPUT"),
        (("--generate", "once"), "INPUT: expected tokens with commas between (there is no tokenizer.json"),
        (("--generate", "64"), "prompt: expected tokens from 0 to 63, found 64"),
        (("--generate", "1", "--stop", "a"), "--stop: expected tokens with commas between, found 'a'"),
        (("--generate", "1", "--top-p", "2"), "top_p: expected more than 0 and at most 1, found 2.0"),
        (("--generate", "1", "--stream"), "--stream: expected none with --generate"),
        (("--generate", "1", "--rate", "2"), "--rate: expected none with --generate"),
        (("--generate", "none.npy"), "none.npy: No such file"),
        (("u.npy", "--temperature", "0.5"), "--temperature: needs --generate"),
    ],
)
def test_run_says_what_is_wrong(run: Run, folder: Path, given: tuple[str, ...], words: str) -> None:
    code, out, err = run("run", folder, *given)
    assert (code, out, err.count("\n"), words in err) == (2, "", 1, True), err


def test_a_tokenizer_that_is_none_is_told(run: Run, folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    code, out, err = run("run", folder, "--generate", "a")
    assert (code, out, "tokenizer.json: expected a tokenizer: " in err) == (2, "", True)


@pytest.fixture
def texts(folder: Path) -> Any:
    """The tokenizer in the model's folder."""
    import letters

    return letters.write(folder / "tokenizer.json")


def test_run_takes_and_prints_text(run: Run, folder: Path, model: ssmrt.Model, texts: Any) -> None:
    common = ("run", folder, "--dtype", "float64", "--generate", "--tokens", 40)
    for prompt, said in (("the cat", ()), ("ähnlich", ("--temperature", "1", "--seed", 3))):
        ids = texts.encode(prompt).ids
        seeded: dict[str, Any] = {"temperature": 1.0, "seed": 3} if said else {}
        after = list(ssmrt.generate(model, ids, tokens=40, stop=[2], **seeded))
        code, out, err = run(*common, prompt, *said)
        whole = texts.decode(ids + after)
        assert whole.startswith(prompt)
        # Bytes at the end that are no whole character are not printed.
        assert (code, err, out[:-1]) == (0, "", whole[len(prompt) :].rstrip("\ufffd"))
        lines = [json.loads(line) for line in run(*common, prompt, *said, "--json")[1].splitlines()]
        assert [line["token"] for line in lines] == after
        assert "".join(line["text"] for line in lines) == out[:-1]


def test_run_prints_the_text_of_several_by_lines(run: Run, folder: Path, model: ssmrt.Model, texts: Any) -> None:
    common = ("run", folder, "--dtype", "float64", "--generate", "--tokens", 5)
    code, out, _ = run(*common, "the", "a hat")
    several = ssmrt.generate(model, [texts.encode("the").ids, texts.encode("a hat").ids], tokens=5, stop=[2])
    expected = [(i, token) for row in several for i, token in enumerate(row) if token is not None]
    assert code == 0
    assert [(int(line.split()[0]), int(line.split()[1])) for line in out.splitlines()] == expected
    spoken = [json.loads(line.split(maxsplit=2)[2]) for line in out.splitlines()]
    for (_, token), text in zip(expected, spoken, strict=True):
        assert text in ("", texts.decode([token])) or not text.isascii()
