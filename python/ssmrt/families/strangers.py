"""Models that are known and that ssmrt does not run: each is named, with the reason, before a family is asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import ConfigRequired, UnsupportedError
from ..readers.checkpoint import Checkpoint
from .facts import as_list

_HYBRID = "it has attention layers, which need the whole past"
_THIRD = "of Mamba the first two generations are supported"

# By the model_type of transformers' configurations; architectures begin with the same word.
_TYPES = {
    "mamba3": ("Mamba-3", _THIRD),
    "jamba": ("Jamba", _HYBRID),
    "bamba": ("Bamba", _HYBRID),
    "granitemoehybrid": ("GraniteMoeHybrid", _HYBRID),
    "zamba": ("Zamba", _HYBRID),
    "zamba2": ("Zamba2", _HYBRID),
    "falcon_h1": ("Falcon-H1", _HYBRID),
    "nemotron_h": ("Nemotron-H", _HYBRID),
    "recurrent_gemma": ("RecurrentGemma", f"its recurrence (RG-LRU) is not supported, and {_HYBRID}"),
    "caduceus": ("Caduceus", "a bidirectional Mamba reads the sequence from its end too and cannot be streamed"),
}
_BIDIRECTIONAL = ("bidirectional Mamba", "it reads the sequence from its end too, and cannot be streamed")
_FOUR_BITS = "its weights are quantised; save it with full-precision weights (float32, float16 or bfloat16)"

# By the names of tensors: all patterns of a row must be found. The first row that fits names the model.
_TENSORS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((r"\.lora_(A|B|embedding_A|embedding_B)\b",), "LoRA adapter", "merge it first: model.merge_and_unload()"),
    ((r"\.(absmax|quant_map|quant_state\.\w+)$",), "bitsandbytes 4-bit model", _FOUR_BITS),
    ((r"\.SCB$",), "bitsandbytes 8-bit model", _FOUR_BITS),
    ((r"\.qweight$", r"\.g_idx$"), "GPTQ model", _FOUR_BITS),
    ((r"\.qweight$", r"\.qzeros$"), "AWQ or GPTQ model", _FOUR_BITS),
    ((r"\brg_lru\.",), *_TYPES["recurrent_gemma"]),
    ((r"\bmamba_(fwd|rev)\.",), *_TYPES["caduceus"]),
    ((r"\bmixer\.(A_b_log|A_log_b|conv1d_b\.weight|x_proj_b\.weight)$",), *_BIDIRECTIONAL),
    ((r"\bmamba_decoder\.mamba\.x_proj", r"\bshared_transf\."), *_TYPES["zamba"]),
    ((r"\bmamba_decoder\.mamba\.", r"\bshared_transformer\."), *_TYPES["zamba2"]),
    ((r"\bmamba\.dt_layernorm\.", r"\bself_attn\."), *_TYPES["jamba"]),
    ((r"\bmamba\.A_log$", r"\bshared_mlp\."), *_TYPES["granitemoehybrid"]),
    # Both in one layer, where Bamba has them in turns.
    ((r"\.0\.mamba\.A_log$", r"\.0\.self_attn\.", r"\bpre_ff_layernorm\."), *_TYPES["falcon_h1"]),
    ((r"\bmamba\.A_log$", r"\bpre_ff_layernorm\."), *_TYPES["bamba"]),
    ((r"\bmixer\.A_log$", r"\bmixer\.(q_proj|up_proj)\."), *_TYPES["nemotron_h"]),
    ((r"\bmixer\.(Wqkv|q_proj)\.", r"\bmixer\.A_log$"), "Mamba hybrid", _HYBRID),
    # A comes out of in_proj: there is no A_log.
    ((r"\bB_bias$", r"\bC_bias$", r"\bdt_bias$"), *_TYPES["mamba3"]),
    ((r"(^|\.)[cdu]_layers\.\d",), "SaShiMi", "its backbone resamples the sequence, which is not supported"),
    (
        (r"(^|\.)down_ssms\.", r"(^|\.)up_ssms\."),
        "aTENNuate Denoiser",
        "it is not causal: each answer needs 1255 samples that come after it",
    ),
)

# What transformers calls a table that others call embedding.
_TRANSFORMERS = r"(^|\.)embeddings\.weight$"


def refuse(checkpoint: Checkpoint, config: Mapping[str, Any] | None, whole: Checkpoint) -> None:
    """Raise `UnsupportedError` for a model that is known and does not run; ``whole`` is the file it is a part of.

    Raises `ConfigRequired` where the tensors are Mamba's and FalconMamba's alike and nothing says whose they are.
    """
    said = {**(checkpoint.config or {}), **(config or {})}
    for fact, name, why in _by_config(said):
        raise UnsupportedError(f"{checkpoint.source}: {_kind(name)}, as {fact} says: {why}")
    names = list(checkpoint.tensors)
    for patterns, name, why in _TENSORS:
        examples = [_first(pattern, names) for pattern in patterns]
        if all(examples):
            raise UnsupportedError(f"{checkpoint.source}: {_kind(name)}, as {examples[0]} says: {why}")
    told = config is not None or any(said.get(n) is not None for n in ("model_type", "architectures", "mixer_rms_eps"))
    if not told and _first(r"\bx_proj\.weight$", names) and _first(_TRANSFORMERS, whole.tensors):
        raise ConfigRequired(
            "model_type",
            why="FalconMamba's tensors have the names and shapes of Mamba's, and config.json alone tells them apart",
            choices=("mamba", "falcon_mamba"),
            default="mamba",
        )


def _kind(name: str) -> str:
    article = "an" if name[0] in "aA" else "a"
    return f"{article} {name}" if name.split()[-1] in ("adapter", "model", "Denoiser") else f"{article} {name} model"


def _by_config(said: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the config says, the model that it means, and why that does not run."""
    layer = said.get("ssm_cfg")
    layer = layer.get("layer") if isinstance(layer, Mapping) else None
    told = [("['model_type']", said.get("model_type")), ("['ssm_cfg']['layer']", layer)]
    told += [("['architectures']", name) for name in as_list(said.get("architectures"))]
    for fact, word in told:
        plain = re.sub(r"[^a-z0-9]", "", word.lower()) if isinstance(word, str) else ""
        for kind, (name, why) in _TYPES.items():
            # "MambaForCausalLM" is "mamba" and a head's name, "Mamba2ForCausalLM" is not.
            if re.fullmatch(rf"{kind.replace('_', '')}((for|model|lmhead|pretrained).*)?", plain):
                yield f"config{fact} = {word!r}", name, why
    quantised = said.get("quantization_config")
    if isinstance(quantised, Mapping):
        yield "config['quantization_config']", f"quantised ({quantised.get('quant_method')})", _FOUR_BITS
    if isinstance(said.get("peft_type"), str):
        yield "config['peft_type']", f"{said['peft_type']} adapter", "merge it first: model.merge_and_unload()"


def _first(pattern: str, names: Iterable[str]) -> str | None:
    compiled = re.compile(pattern)
    return next((name for name in names if compiled.search(name)), None)
