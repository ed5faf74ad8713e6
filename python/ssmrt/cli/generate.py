"""`ssmrt run MODEL --generate`: what a language model goes on with, token by token as they come."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import readers
from ..errors import CheckpointError
from ..generate import generate
from ..model import Model
from ..readers import hugging_face
from .console import printable
from .inputs import STDIN, open_input

_FILES = (".npy", ".npz", ".csv", ".parquet")
# What only a run over samples knows, and what only this.
_OTHERS = ("stream", "rate", "sample_rate", "mono", "raw", "output")
_OWN = ("tokens", "temperature", "top_k", "top_p", "seed", "stop")
_TOKENS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("a language model")
    group.add_argument(
        "--generate",
        action="store_true",
        help="go on from each INPUT: text, where a tokenizer.json is in the model's folder (needs ssmrt[text]), else"
        " tokens with commas between; - for that from stdin; or a file of tokens. Several go on at once",
    )
    group.add_argument("--tokens", type=int, metavar="N", help=f"how many at most (default: {_TOKENS})")
    group.add_argument(
        "--temperature", type=float, metavar="T", help="divides the logits; 0: the likeliest token (default)"
    )
    group.add_argument("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens")
    group.add_argument(
        "--top-p", type=float, metavar="P", help="choose among the fewest tokens that have this probability together"
    )
    group.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same tokens (default: 0)")
    group.add_argument(
        "--stop",
        metavar="TOKENS",
        help="tokens, with commas between, that end a sequence (default: eos_token_id of generation_config.json or"
        " config.json in the model's folder); '' for none",
    )


def run(arguments: argparse.Namespace, model: Model) -> int:
    """Print what the model goes on with, each token as it comes."""
    _refuse(arguments, _OTHERS, "expected none with --generate, found one")
    folder = _folder(arguments.model)
    tokenizer = _tokenizer(folder / hugging_face.TOKENIZER)
    prompts = [prompt for text in arguments.inputs for prompt in _prompts(text, model, tokenizer, arguments)]
    said = {name: value for name in _OWN if (value := getattr(arguments, name)) is not None}
    said["stop"] = _numbers("--stop", said["stop"]) if "stop" in said else hugging_face.stop_tokens(folder)
    several = generate(model, prompts, **{"tokens": _TOKENS, **said})
    texts = [_decoder(tokenizer, prompt) for prompt in prompts]
    show = _json if arguments.json else _line if len(prompts) > 1 else _word
    for chosen in several:
        for i, token in enumerate(chosen):
            if token is not None:
                sys.stdout.write(show(i, token, texts[i](token)))
        sys.stdout.flush()
    if show is _word:
        sys.stdout.write("\n")
    return 0


def check_absent(arguments: argparse.Namespace) -> None:
    """Raise `ValueError` where something was said that only `run` knows."""
    _refuse(arguments, _OWN, "needs --generate")


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value is not False:
            raise ValueError(f"--{name.replace('_', '-')}: {why}")


# What is printed of a sequence's next token, whose text is None where there is no tokenizer.


def _json(sequence: int, token: int, text: str | None) -> str:
    said = {} if text is None else {"text": text}
    return json.dumps({"sequence": sequence, "token": token, **said}) + "\n"


def _line(sequence: int, token: int, text: str | None) -> str:
    said = "" if text is None else f"  {json.dumps(text, ensure_ascii=False)}"
    return printable(f"{sequence:>4} {token:>8}{said}\n")


def _word(sequence: int, token: int, text: str | None) -> str:
    return f"{token} " if text is None else printable(text)


def _folder(model: str) -> Path:
    path = readers.located(Path(model))
    return path if path.is_dir() else path.parent


def _tokenizer(path: Path) -> Any:
    """The tokenizer of a file; None where there is no file."""
    if not path.is_file():
        return None
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise ImportError(f"{path} needs tokenizers: pip install 'ssmrt[text]'") from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises nothing more special.
        raise CheckpointError(f"{path}: expected a tokenizer: {error}") from None


def _prompts(text: str, model: Model, tokenizer: Any, arguments: argparse.Namespace) -> list[list[int]]:
    """The tokens of an INPUT, which may be a file of several prompts."""
    if Path(text).suffix.lower() in _FILES:
        with open_input(text, model, arguments) as given:
            return [row.tolist() for group in given.groups for row in np.concatenate(list(group), axis=1)]
    text = sys.stdin.read().removesuffix("\n") if text == STDIN else text
    if tokenizer is None:
        return [_numbers("INPUT", text, " (there is no tokenizer.json in the model's folder)")]
    return [tokenizer.encode(text).ids]


def _decoder(tokenizer: Any, prompt: list[int]) -> Callable[[int], str | None]:
    """What gives the text that each token after a prompt adds: none while a character is not whole."""
    if tokenizer is None:
        return lambda token: None
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(ids=prompt)
    return lambda token: stream.step(tokenizer, token) or ""


def _numbers(name: str, text: str, why: str = "") -> list[int]:
    try:
        return [int(number) for number in text.split(",")] if text else []
    except ValueError:
        raise ValueError(f"{name}: expected tokens with commas between{why}, found {text!r}") from None
