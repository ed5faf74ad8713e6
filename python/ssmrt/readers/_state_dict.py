"""Where in the value that ``torch.save`` was given the model's own tensors and its configuration are."""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from . import _config
from ._numpy_pickle import Ndarray
from ._pickle import Record, describe
from ._torch_pickle import Tensor

# Under these keys training code keeps the model beside epoch, accuracy, optimiser and the like.
_MODEL = ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "weights", "params")
_COPIES = ("ema", "optim", "sched", "averag", "swa", "callback", "loops", "scaler", "teacher")
_EMA = ("ema.", "model_ema.", "ema_model.")
_COMPILED = "_orig_mod."  # torch.compile puts it before the names of whatever it wraps
_PARALLEL = "module."  # DataParallel, DistributedDataParallel and AveragedModel before all of them
_EXTRA = "_extra_state"  # whatever a module's get_extra_state returns
REMEDY = "Load it where it was made and save it with torch.save(model.state_dict(), ...)"


def find(root: Any, source: str) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The model's tensors by name, and the hyper-parameters that Lightning keeps with them.

    Optimiser and averaged copies are left out, and so are the prefixes of the wrappers that a model was trained
    in. Raises `CheckpointError` where there is no model or more than one, or where one of its tensors is an object
    of a class that is not PyTorch's own.
    """
    if not isinstance(root, dict):
        raise CheckpointError(
            f"{source}: expected a state dict or a dict that holds one, found {describe(root)};"
            f" nothing was run. {REMEDY}"
        )
    config = _config.plain(root.get("hyper_parameters", root.get("hparams")), source)
    return _own(_choose(root, source), source), config if isinstance(config, dict) and config else None


def _choose(root: dict[Any, Any], source: str) -> dict[Any, Any]:
    for key in _MODEL:
        value = root.get(key)
        if isinstance(value, dict):
            inner = value.get("state_dict")
            if isinstance(inner, dict) and _has_tensors(inner):
                return inner
            if _has_tensors(value):
                return value
    if _has_tensors(root):
        return root
    others = {
        key: value
        for key, value in root.items()
        if isinstance(key, str) and isinstance(value, dict) and _has_tensors(value)
        if not any(copy in key.lower() for copy in _COPIES)
    }
    if len(others) == 1:
        return next(iter(others.values()))
    keys = [key for key in root if isinstance(key, str)][:20]
    for value in (root, *(root[key] for key in keys)):
        if isinstance(value, dict) and any(isinstance(item, Ndarray) for item in value.values()):
            raise CheckpointError(
                f"{source}: expected tensors, found NumPy arrays, which torch.save has pickled;"
                " save them with np.savez(path, **arrays)"
            )
    for key in keys:
        if isinstance(root[key], Record) and (key in _MODEL or len(root) == 1):
            raise CheckpointError(
                f"{source}: {key[:60]!r}: expected a state dict or a tensor, found {describe(root[key])};"
                f" nothing was run. {REMEDY}"
            )
    raise CheckpointError(
        f"{source}: expected one state dict, found {len(others)} under the keys"
        f" {', '.join(key[:60] for key in keys) or '(none)'}; save the one wanted: torch.save(model.state_dict(), ...)"
    )


def _has_tensors(value: dict[Any, Any]) -> bool:
    return any(isinstance(item, Tensor) for item in value.values())


def _own(state: dict[Any, Any], source: str) -> dict[str, Tensor]:
    for key, value in state.items():
        if isinstance(value, Record) and not str(key).endswith(_EXTRA) and not _config.is_known(value):
            raise CheckpointError(
                f"{source}: {str(key)[:200]!r}: expected a tensor, found {describe(value)}; nothing was run. {REMEDY}"
            )
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    tensors = {k: v for k, v in tensors.items() if not k.startswith(_EMA)} or tensors
    names = [name.replace(_COMPILED, "") for name in tensors]
    if "n_averaged" in names and len(names) > 1 and all(n.startswith(_PARALLEL) for n in names if n != "n_averaged"):
        del tensors["n_averaged"]
        names.remove("n_averaged")
    while names and all(name.startswith(_PARALLEL) for name in names):
        names = [name[len(_PARALLEL) :] for name in names]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{source}: two tensors have the same name once {_COMPILED!r} is left out")
    return dict(zip(names, tensors.values()))
