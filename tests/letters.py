"""A tokenizer for the small language models: of letters, and of bytes for what is none."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models

_LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?"
_WORDS = ["<end>", *_LETTERS, "<0xC3>", "<0xA4>", "<0xB6>", "th", "he"]


def write(path: Path) -> Tokenizer:
    """Writes it where a model of 64 tokens is."""
    assert len(_WORDS) <= 64
    numbers = {word: i for i, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[("t", "h"), ("h", "e")], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(path))
    return tokenizer
