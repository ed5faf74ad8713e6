"""What becomes of each name of a model's configuration: a table beside each family, and the place that enforces it.

A name says something of the model, and then it is read or held against the tensors; or something that ssmrt runs
with some values only; or nothing that a trained model's answers depend on. A name of no table is refused: it may
be a fact.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import CheckpointError, UnsupportedError

MAX_INTEGER = 2**63 - 1


class Fate(Enum):
    """What becomes of a name whatever its value."""

    USED = "decides the answer where the tensors do not"
    CHECKED = "must agree with the tensors"
    IDLE = "without effect on a trained model"


@dataclass(frozen=True)
class Only:
    """A name that ssmrt runs with these values and refuses with others."""

    values: tuple[object, ...]


@dataclass(frozen=True)
class Facts:
    """The names of one mapping.

    ``names`` has what becomes of each; a table of its own where its value is a mapping. A mapping found in a file
    may be some trainer's own, of which only the names of the table are known; it is known for upstream's, and
    all its names must be in the table, where it has one of ``own``. ``open``: names beyond the table say nothing
    of the model, whoever says them.
    """

    names: Mapping[str, Fate | Only | Facts]
    own: tuple[str, ...] = ()
    open: bool = False

    def __or__(self, other: Facts) -> Facts:
        """Both tables; a name of both has the fate that it has in ``other``."""
        return Facts({**self.names, **other.names}, (*self.own, *other.own), self.open or other.open)

    def may_be_asked(self, name: str) -> bool:
        """Whether the family may read the name."""
        return self.names.get(name, Fate.IDLE) is not Fate.IDLE

    def mapping(self, value: Any) -> Mapping[str, Any] | None:
        """``value`` as the mapping that the table is of; a bare name is its ``_name_``. None for what is none."""
        if isinstance(value, str) and "_name_" in self.names:
            return {"_name_": value}
        return value if isinstance(value, Mapping) else None


def facts(
    *,
    used: str = "",
    checked: str = "",
    idle: str = "",
    only: Mapping[str, tuple[object, ...]] | None = None,
    inner: Mapping[str, Facts] | None = None,
    own: tuple[str, ...] = (),
    open: bool = False,
) -> Facts:
    """A table from lists of names with blanks between them."""
    names: dict[str, Fate | Only | Facts] = {}
    for fate, listed in ((Fate.IDLE, idle), (Fate.CHECKED, checked), (Fate.USED, used)):
        names.update(dict.fromkeys(listed.split(), fate))
    names.update({name: Only(values) for name, values in (only or {}).items()})
    names.update(inner or {})
    return Facts(names, own, open)


# What training scripts say of the training.
TRAINING = facts(
    idle="lr learning_rate lr_min lr_max lr_factor lr_base lr_scheduler lr_schedule scheduler optimizer weight_decay wd"
    " betas momentum warmup warmup_steps warmup_end grad_clip gradient_clip_val batch_size bsz epochs num_epochs"
    " max_epochs max_steps steps seed jax_seed patience dropout p_dropout device precision num_workers dataset"
    " criterion loss training name version_name notes output_dir log_dir"
)

# What transformers writes into every config.json.
HUGGING_FACE = facts(
    idle="transformers_version torch_dtype dtype _name_or_path use_cache output_hidden_states output_attentions"
    " return_dict chunk_size_feed_forward is_encoder_decoder id2label label2id problem_type initializer_range"
    " bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id tokenizer_class task_specific_params"
    " finetuning_task is_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder torchscript"
    " use_bfloat16 tf_legacy_loss pruned_heads max_length min_length do_sample early_stopping num_beams"
    " num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty"
    " no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores"
    " return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values"
    " exponential_decay_length_penalty suppress_tokens begin_suppress_tokens prefix"
)


def named(arch: str, *classes: str) -> Facts:
    """The names under which a configuration says of which model it is; ``classes`` are upstream's."""
    return facts(only={"model_type": (arch, None), "architectures": (None, *([name] for name in classes))})


def refuse_unknown(values: Mapping[str, Any], table: Facts, arch: str, place: str, *, strict: bool) -> None:
    """Raise `CheckpointError` for names that are in no table, where ``strict`` or the mapping is upstream's own.

    ``place`` is where ``values`` stand, for messages.
    """
    strict = strict or any(name in values for name in table.own)
    unknown = [str(name) for name in values if name not in table.names] if strict and not table.open else []
    if unknown:
        raise CheckpointError(_unknown(unknown, table, arch, place))
    for name, inside, fate in _inside(values, table):
        refuse_unknown(inside, fate, arch, f"{place}[{name!r}]", strict=strict)


def refuse_unsupported(values: Mapping[str, Any], table: Facts, arch: str, place: str) -> None:
    """Raise `UnsupportedError` for values that ssmrt does not run, `CheckpointError` for such as cannot be."""
    for name, value in values.items():
        fate = table.names.get(name, Fate.IDLE)
        if fate is not Fate.IDLE and isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise CheckpointError(f"{place}[{name!r}]: expected an integer of at most 64 bits, found a larger one")
        if isinstance(fate, Only) and not any(value == one for one in fate.values):
            choices = ", ".join(map(repr, fate.values))
            raise UnsupportedError(f"{place}[{name!r}] = {value!r} is not supported in {arch}; supported: {choices}")
        if isinstance(fate, Facts):
            for item in as_list(value):
                if fate.mapping(item) is None:
                    raise CheckpointError(f"{place}[{name!r}]: expected a mapping, found {item!r}")
    for name, inside, inner in _inside(values, table):
        refuse_unsupported(inside, inner, arch, f"{place}[{name!r}]")


def _inside(values: Mapping[str, Any], table: Facts) -> Iterator[tuple[str, Mapping[str, Any], Facts]]:
    """The mappings in ``values`` that have tables of their own; of a list each."""
    for name, value in values.items():
        fate = table.names.get(name)
        if isinstance(fate, Facts):
            for item in as_list(value):
                if (inside := fate.mapping(item)) is not None:
                    yield name, inside, fate


def as_list(value: Any) -> list[Any]:
    """A list as it is, nothing as an empty one, the rest as its only item."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _unknown(unknown: list[str], table: Facts, arch: str, place: str) -> str:
    says = [name for name, fate in table.names.items() if fate is not Fate.IDLE]
    told = ", ".join(f"{place}[{name!r}]" if i == 0 else repr(name) for i, name in enumerate(unknown))
    nearest = [near[0] for name in unknown if (near := difflib.get_close_matches(str(name), table.names, 1, 0.8))]
    mean = f" (did you mean {', '.join(map(repr, nearest))}?)" if nearest else ""
    return (
        f"{told}: not known in {arch}{mean}. What may change a model's answers is never ignored: leave out what says"
        f" nothing of the model. Known are {', '.join(sorted(says))}, and names of the training such as dropout and lr"
    )
