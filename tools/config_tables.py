"""Write into docs/config.md what becomes of each name of a configuration, from the tables beside the families.

python tools/config_tables.py
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from ssmrt import families
from ssmrt.families import s4_example, s4_sequence_model
from ssmrt.families.facts import HUGGING_FACE, TRAINING, Facts, Fate, Only

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
MARK = "<!-- What follows is written by tools/config_tables.py from the tables beside the families. -->\n"

TITLES = {
    "s4-example": "`s4-example`: S4D layers, and an S4D layer alone",
    "s4-sequence-model": "`s4-sequence-model`: the backbone's arguments, in `model` or without it, and what is around",
}
MORE = {
    "`s4-example` with S4Block layers: those of `s4-block`, and": s4_example.MODEL,
    "`s4-sequence-model`: a feed-forward layer's options; other layers have those of `s4-block`, S4D and `lssl`": (
        s4_sequence_model.FFN
    ),
}
# They name the model, whatever the family.
WHOSE = ("model_type", "architectures")
LINES = {
    Fate.USED: "decide the answer where the tensors do not",
    Fate.CHECKED: "must agree with the tensors",
    Fate.IDLE: "have no effect on a trained model",
}


def entries(table: Facts, path: str = "") -> Iterator[tuple[str, Fate | Only]]:
    """Each name of the table, dots between mappings, and what becomes of it."""
    for name, fate in table.names.items():
        if not isinstance(fate, Facts):
            yield path + name, fate
        else:
            yield from entries(fate, f"{path}{name}.")


def rows(table: Facts) -> Iterator[str]:
    """The table in Markdown."""
    found = [(name, fate) for name, fate in entries(table) if name not in {**TRAINING.names, **HUGGING_FACE.names}]
    for fate, line in LINES.items():
        names = sorted(name for name, other in found if other is fate)
        if names:
            yield f"| {line} | {', '.join(f'`{name}`' for name in names)} |"
    limited = sorted((name, fate.values) for name, fate in found if isinstance(fate, Only) and name not in WHOSE)
    told = [f"`{name}`: {' or '.join(f'`{value!r}`' for value in values)}" for name, values in limited]
    if told:
        yield f"| have these values alone | {'; '.join(told)} |"


def page() -> str:
    """What stands behind the mark."""
    tables = {TITLES.get(arch, f"`{arch}`"): families.family(arch).FACTS for arch in families.FAMILIES} | MORE
    parts = [f"### {title}\n\n| names | |\n|---|---|\n" + "\n".join(rows(table)) for title, table in tables.items()]
    for title, table in (("Of the training", TRAINING), ("Of transformers, beside `mamba`'s own", HUGGING_FACE)):
        names = ", ".join(f"`{name}`" for name in sorted(table.names))
        parts.append(f"### {title}\n\nWithout effect:\n{textwrap.fill(names, 120)}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + "\n" + page(), encoding="utf-8")
