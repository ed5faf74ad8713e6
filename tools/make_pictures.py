"""Draw the pictures of the documentation into docs/pictures.

    python tools/make_pictures.py

Needs matplotlib. The picture of the architecture is drawn by tools/architecture_picture.py, those of benchmarks by
benches/compare.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from ssmrt import demo, plots

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"


def layer() -> Figure:
    """A layer of the spotter, half a second of it."""
    return plots.figure(demo.spotter(), demo.RATE // 2, layer=1)


def heard() -> Figure:
    """A clip, and what the spotter makes of it sample by sample."""
    clip = demo.clips()[0]
    answers = demo.spotter().stream().push(clip.samples[:, None])
    powers = np.exp(answers - answers.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    made = Figure(figsize=(10, 5), layout="constrained")
    sound, words = made.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    time = np.arange(len(clip.samples)) / demo.RATE
    sound.plot(time, clip.samples, color="0.4", linewidth=0.5)
    sound.set(ylabel="sound", title=f"someone says “{clip.word}”")
    for word, line in zip(demo.WORDS, probabilities.T):
        spoken = word == clip.word
        words.plot(time, line, color="#0072B2" if spoken else "#E69F00", linewidth=2 if spoken else 0.8)
        if line.max() > 0.3:
            at = time[line.argmax()]
            words.annotate(word, (at, line.max()), ha="center" if at > 0.02 else "left", va="bottom")
    words.set(xlabel="time (s)", ylabel="probability", ylim=(0, 1.1), xlim=(0, time[-1]))
    return made


def main() -> None:
    """Draw them."""
    FOLDER.mkdir(exist_ok=True)
    for make in (layer, heard):
        make().savefig(FOLDER / f"{make.__name__}.png", dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
