"""Say what a checkpoint is, layer by layer, and what its file does not say.

What is missing is named with its choices and upstream's default, and --config says it.

    ssmrt info model.pth
    ssmrt info model.pth --config '{"prenorm": false}' --tensors
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from typing import Any

import numpy as np

from .. import readers
from ..document import KIND_OF, Node, branches
from ..errors import ConfigRequired, NotStreamable, SsmrtError
from ..families import identify
from ..load import is_own, load
from ..model import Model
from ..readers.checkpoint import Checkpoint
from .arguments import add_checkpoint, add_json, add_weights, config_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_checkpoint(parser)
    add_weights(parser)
    parser.add_argument("--tensors", action="store_true", help="list the file's tensors too")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known, and the question where one is open."""
    path = readers.located(arguments.model)
    checkpoint = None if is_own(path) else readers.read(path, step=arguments.step)
    facts: dict[str, Any] = {"path": str(path), **_content(checkpoint)}
    questions: list[ConfigRequired] = []
    model, failure = None, None
    try:
        model = _model(arguments, questions)
    except SsmrtError as error:
        failure = error
    known = None if checkpoint is None else identify(checkpoint)
    facts["arch"] = model.outline.meta.get("arch") if model else arguments.arch or (known[0] if known else None)
    facts["missing"] = [_question(question) for question in questions]
    facts["model"] = None if model is None else _describe(model)
    facts["assumes_defaults"] = model is not None and bool(questions)
    if arguments.json:
        print(json.dumps(facts))
    else:
        _print(facts, model, arguments.tensors)
    if failure is not None:
        sys.stdout.flush()
        raise failure
    return 0


def _model(arguments: argparse.Namespace, questions: list[ConfigRequired]) -> Model | None:
    """The model, with upstream's defaults for what is missing; None where something missing has no default."""
    for config in (config_of(arguments), {}):
        try:
            return load(
                arguments.model,
                config=config,
                arch=arguments.arch,
                step=arguments.step,
                prefix=arguments.prefix,
                weights=arguments.weights,
            )
        except ConfigRequired as question:
            if question.name not in [asked.name for asked in questions]:
                questions.append(question)
    return None


def _content(checkpoint: Checkpoint | None) -> dict[str, Any]:
    if checkpoint is None:
        return {"format": "ssmrt", "config": None, "tensors": {}}
    tensors = {k: {"shape": list(v.shape), "dtype": str(v.dtype)} for k, v in checkpoint.tensors.items()}
    config = None if checkpoint.config is None else json.loads(json.dumps(checkpoint.config, default=str))
    return {"format": checkpoint.format, "config": config, "tensors": tensors}


def _question(error: ConfigRequired) -> dict[str, Any]:
    return {
        "name": error.name,
        "path": list(error.path),
        "why": error.why,
        "choices": None if error.choices is None else list(error.choices),
        "default": error.default,
        "message": str(error),
    }


def _describe(model: Model) -> dict[str, Any]:
    try:
        model.stream()
        reason = None
    except NotStreamable as error:
        reason = str(error)
    return {
        "d_input": model.d_input,
        "d_output": model.d_output,
        "tokens": model.outline.tokens,
        "sample_rate": model.sample_rate,
        "labels": None if model.labels is None else list(model.labels),
        "num_parameters": model.num_parameters,
        "state_size": model.state_size,
        "weight_bytes": model.weight_bytes,
        "signal_to_noise": model.signal_to_noise,
        "streamable": model.streamable,
        "not_streamable": reason,
        "stability": [
            {key: layer[key] for key in ("name", "kind", "radius", "place", "unstable", "always_stable")}
            for layer in model.layers()
        ],
        "layers": list(_layers(model.outline.root, 0)),
    }


def _weights(model: Model) -> str:
    per = "token" if model.outline.tokens else "sample"
    text = f"{model.weight_bytes} bytes a {per}"
    return text if model.signal_to_noise is None else f"{text}, {model.signal_to_noise:.1f} dB above their rounding"


def _stability(layers: list[dict[str, Any]]) -> str:
    unstable = [
        f"{layer['name'] or layer['kind']} grows: {layer['place']} has an eigenvalue of modulus {layer['radius']:.6g}"
        for layer in layers
        if layer["unstable"]
    ]
    if unstable:
        return "; ".join(unstable)
    if all(layer["always_stable"] for layer in layers):
        return "stable at every rate"
    return f"stable, largest eigenvalue {max(layer['radius'] or 0.0 for layer in layers):.9g}"


def _layers(node: Node, depth: int) -> list[dict[str, Any]]:
    arrays = {f.name: v for f in fields(node) if isinstance(v := getattr(node, f.name), np.ndarray)}
    row = {
        "depth": depth,
        "name": node.name,
        "kind": KIND_OF[type(node)],
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "num_parameters": sum(a.size * (2 if np.iscomplexobj(a) else 1) for a in arrays.values()),
    }
    return [row, *(inner for child in branches(node) for inner in _layers(child, depth + 1))]


def _print(facts: dict[str, Any], model: Model | None, tensors: bool) -> None:
    rows = [("file", facts["path"]), ("format", facts["format"])]
    if facts["tensors"]:
        rows.append(("tensors", str(len(facts["tensors"]))))
    if facts["config"] is not None:
        rows.append(("config in it", json.dumps(facts["config"])))
    if facts["arch"] is not None:
        rows.append(("model", facts["arch"]))
    if model is not None:
        known = facts["model"]
        rows += [
            ("input", "tokens" if known["tokens"] else f"({model.d_input},) a sample"),
            ("output", f"({model.d_output},)" + (f": {', '.join(model.labels)}" if model.labels else "")),
            *([] if model.sample_rate is None else [("trained at", f"{model.sample_rate:g} samples a second")]),
            ("parameters", str(model.num_parameters)),
            ("weights", _weights(model)),
            ("state", f"{model.state_size} numbers a stream"),
            ("stability", _stability(known["stability"])),
            ("streams", "yes" if model.streamable else f"no: {known['not_streamable']}"),
        ]
    rows += [("missing", question["message"]) for question in facts["missing"]]
    for name, value in rows:
        print(f"{name:<13} {value}")
    if model is not None:
        print("\nlayers" + (", if upstream's defaults are right" if facts["missing"] else ""))
        print(model.summary())
    if tensors:
        print("\ntensors")
        for name, tensor in facts["tensors"].items():
            print(f"{name}  {tensor['dtype']} {tuple(tensor['shape'])}")
