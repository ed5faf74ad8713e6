"""Makes the data of ``ssmrt demo``: the spotter in ssmrt's own format, and the first twelve of its test clips.

    python tools/make_demo.py ../shared/checkpoints/kws

The folder holds ``kws_s4d.pth``, a checkpoint of upstream's S4D example, and ``test_clips.npz``, 980 clips of one
second at 16 kHz in 8-bit mu-law, ten words in turn.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from ssmrt.demo import RATE, WORDS
from ssmrt.document import to_bytes
from ssmrt.load import read_document

DATA = Path(__file__).parents[1] / "python" / "ssmrt" / "data"
CLIPS = 12


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Makes the data of `ssmrt demo`.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    # Upstream's example normalises after its layers, which the file does not say.
    document = read_document(folder / "kws_s4d.pth", config={"prenorm": False})
    meta = {"arch": document.meta["arch"], "source": "kws_s4d.pth"}
    document = replace(document, meta=meta, sample_rate=RATE, labels=WORDS)
    DATA.joinpath("spotter.ssm.safetensors").write_bytes(to_bytes(document))
    with np.load(folder / "test_clips.npz") as clips:
        labels = clips["labels"][:CLIPS].astype(np.int8)
        np.savez_compressed(DATA / "clips.npz", mulaw=clips["mulaw"][:CLIPS], labels=labels)


if __name__ == "__main__":
    main()
