"""From a checkpoint's path to a running model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from . import checks, families, readers
from .document import METADATA_KEY, Document, from_bytes
from .errors import CheckpointError
from .model import Dtype, Model, Weights
from .readers import memory, safetensors

OWN_SUFFIX = ".ssm.safetensors"


Source = str | Path | Mapping[Any, Any] | BinaryIO


def load(
    path: Source,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    arch: str | None = None,
    dtype: Dtype = "float32",
    step: int | None = None,
    prefix: str | None = None,
    weights: Weights | None = None,
) -> Model:
    """Open a trained model.

    Parameters
    ----------
    path
        A checkpoint file or directory in any supported format, or ssmrt's own: of a directory the latest step, or
        the only checkpoint in it. Or the file opened in binary mode, or a mapping of names to arrays, such as
        PyTorch's ``model.state_dict()`` or Flax's variables, of which copies are taken.
    config
        What the file does not hold, under the upstream constructor's own argument names: a mapping, or the
        path of a JSON file. ``{}`` means upstream's defaults.
    arch
        The model's family; found from the tensors' names, and needed only where a file has none (``.eqx``).
    dtype
        The engine's precision, "float32" or "float64".
    step
        Which checkpoint of a directory of checkpoints; None: the latest.
    prefix
        Takes the part of the file whose tensors' names start so, "model." or "params/encoder/"; the others are
        left out. None: every tensor of the file has a place in the model.
    weights
        How the matrices of mixing layers are held; sums and everything else stay in float32. None: nothing is rounded,
        and those whose numbers all are of bfloat16, as those of a file in bfloat16 are, take two bytes a number.
        "float32": all take four. "bfloat16" rounds to two: half the memory, and half of what a sample reads.
        "int8" rounds to one, integers of -127 to 127 times a scale for each output. `Model.signal_to_noise` says what
        that leaves. A table of tokens is rounded where the head is tied to it.

    Raises
    ------
    CheckpointError
        The file is no checkpoint, is damaged or hostile, or its tensors do not fit the model or ``config``.
    ConfigRequired
        A fact that changes the result is neither in the file nor in ``config``.
    UnsupportedError
        The model holds something that ssmrt does not run.
    TypeError, ValueError
        An argument is of another kind or out of range.

    >>> model = ssmrt.load("model.ssm.safetensors")
    >>> model
    <ssmrt.Model s4-example: 1 -> 10, 84234 parameters, float32>
    """
    own = _own(path, prefix)
    if own is None:
        model = Model(read_document(path, config=config, arch=arch, step=step, prefix=prefix), dtype, weights)
    else:
        model = _parse(own, dtype, weights)
    model.warn_of_instability()
    return model


def _own(path: Source, prefix: str | None) -> Path | None:
    """The path of a file of ssmrt's own format."""
    if isinstance(path, Mapping) or hasattr(path, "read"):
        return None
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected a path, a mapping of arrays or an open file, found {checks.found(path)}")
    located = readers.located(Path(path))
    if not (located.name.endswith(OWN_SUFFIX) or is_own(located)):
        return None
    if prefix is not None:
        raise CheckpointError(f"{located}: prefix={prefix!r}: ssmrt's own files hold one model, without parts")
    return located


def _parse(path: Path, dtype: Dtype, weights: Weights | None) -> Model:
    data = _read(path)
    try:
        return Model.parse(data, dtype, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_document(
    path: Source,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    arch: str | None = None,
    step: int | None = None,
    prefix: str | None = None,
) -> Document:
    """As `load`, up to the Document."""
    config = _config(config)
    if arch is not None:
        arch = checks.text("arch", arch)
    if step is not None:
        step = checks.whole("step", step)
    if prefix is not None:
        prefix = checks.text("prefix", prefix)
    if isinstance(path, Mapping):
        return families.build(memory.of_mapping(path), config=config, arch=arch, prefix=prefix)
    if not isinstance(path, str | Path) and hasattr(path, "read"):
        with memory.on_disk(path) as copy:
            return read_document(copy, config=config, arch=arch, step=step, prefix=prefix)
    if (own := _own(path, prefix)) is not None:
        return from_bytes(_read(own), str(own))
    checkpoint = readers.read(checks.path("path", path), step=step)
    return families.build(checkpoint, config=config, arch=arch, prefix=prefix)


def is_own(path: Path) -> bool:
    """Whether a file is a safetensors file with ssmrt's tree in its header, whatever its name."""
    return path.is_file() and METADATA_KEY in safetensors.metadata(path)


def _config(config: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any] | None:
    if config is None or isinstance(config, Mapping):
        return config
    if not isinstance(config, str | os.PathLike):
        raise TypeError(f"config: expected a mapping or the path of a JSON file, found {checks.found(config)}")
    try:
        path = Path(config).expanduser()
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: expected a JSON file, found a folder, a pipe, a device or a socket")
        value = json.loads(path.read_text())
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"config: expected the path of a JSON file, found {config}: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{config}: expected a JSON object, found {type(value).__name__}")
    return value
