"""The picture of the architecture: what makes a Document, and what is made of one.

    python tools/architecture_picture.py

Writes docs/pictures/architecture.svg. Its background is the page's, light or dark: text stands in boxes that bring
their own light ground, and arrows are of a grey that is seen on both. Colours go with places and words, so that none is
needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "architecture.svg"

TEXT = "#1a1a1a"
ARROW = "#7f8794"
# Ground and edge, of Okabe and Ito's hues.
READ, DOCUMENT, RUN, WRITE = (
    ("#fdebc8", "#b36b00"),
    ("#d3e8f7", "#0072b2"),
    ("#cdebdf", "#00795a"),
    ("#f4dfea", "#a3477a"),
)

WIDTH, HEIGHT, LINE = 760, 424, 17
TITLE = "The architecture of ssmrt"
SAYS = (
    "Checkpoint files go through readers and families, and arrays through ssmrt.nn, into a Document. reduce makes "
    "another Document of it; it is planned in Rust and run by step, push and forward; or exported as ONNX or as C; or "
    "it runs in a browser."
)


@dataclass(frozen=True)
class Box:
    """A box with a title and lines below it. x, y: its upper left corner."""

    x: int
    y: int
    width: int
    height: int
    colours: tuple[str, str]
    title: str
    lines: tuple[str, ...] = ()

    @property
    def right(self) -> int:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.y + self.height

    @property
    def centre(self) -> int:
        """Half way between its left and its right edge."""
        return self.x + self.width // 2

    @property
    def middle(self) -> int:
        """Half way down."""
        return self.y + self.height // 2

    def svg(self) -> str:
        """Its elements."""
        ground, edge = self.colours
        first = self.middle - LINE * len(self.lines) / 2 + 5
        parts = [
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="7"'
            f' fill="{ground}" stroke="{edge}" stroke-width="1.5"/>',
            f'<text class="title" x="{self.centre}" y="{first:g}">{escape(self.title)}</text>',
        ]
        parts += [
            f'<text x="{self.centre}" y="{first + LINE * i:g}">{escape(line)}</text>'
            for i, line in enumerate(self.lines, 1)
        ]
        return "\n".join(parts)


FILES = Box(10, 10, 215, 68, READ, "checkpoint files", ("PyTorch, safetensors, Flax,", "Orbax, Equinox, NumPy"))
READERS = Box(272, 10, 215, 68, READ, "readers", ("tensors and configuration,", "without torch or jax"))
FAMILIES = Box(534, 10, 215, 68, READ, "families", ("one module a code base;", "no fact is guessed"))
ARRAYS = Box(10, 128, 185, 68, READ, "arrays of your own", ("ssmrt.nn, or one call", "a layer"))
NARROW = Box(
    242,
    128,
    275,
    68,
    DOCUMENT,
    "Document",
    ("typed nodes in continuous time;", "one safetensors file, to save and load"),
)
REDUCE = Box(564, 128, 185, 68, DOCUMENT, "reduce", ("fewer states:", "another Document"))
PLAN = Box(10, 246, 321, 68, RUN, "plan, in Rust", ("discrete at one rate, in float64;", "a list of operations"))
STEP = Box(10, 350, 97, 64, RUN, "step", ("one sample",))
PUSH = Box(122, 350, 97, 64, RUN, "push", ("a block",))
FORWARD = Box(234, 350, 97, 64, RUN, "forward", ("sequences",))
BROWSER = Box(
    350, 246, 123, 168, RUN, "browser", ("the same engine", "as WebAssembly,", "in the thread", "of the sound")
)
ONNX = Box(488, 246, 123, 168, WRITE, "ONNX", ("real arithmetic,", "state in and out,", "for other", "runtimes"))
C = Box(626, 246, 123, 168, WRITE, "C99", ("float32 or", "fixed point,", "for micro-", "controllers"))
BOXES = (FILES, READERS, FAMILIES, ARRAYS, NARROW, REDUCE, PLAN, STEP, PUSH, FORWARD, BROWSER, ONNX, C)


def arrow(*points: tuple[int, int], both: bool = False) -> str:
    """From the first point to the last, with a head at the end, or at both ends."""
    start = ' marker-start="url(#head)"' if both else ""
    along = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{along}"{start} marker-end="url(#head)"/>'


def arrows() -> list[str]:
    """All of them."""
    # The head of an arrow ends this far before a box.
    gap, fork = 3, NARROW.bottom + 26
    to_document = FAMILIES.bottom + 25
    lines = [
        arrow((FILES.right, FILES.middle), (READERS.x - gap, READERS.middle)),
        arrow((READERS.right, READERS.middle), (FAMILIES.x - gap, FAMILIES.middle)),
        arrow(
            (FAMILIES.centre, FAMILIES.bottom),
            (FAMILIES.centre, to_document),
            (NARROW.centre, to_document),
            (NARROW.centre, NARROW.y - gap),
        ),
        arrow((ARRAYS.right, ARRAYS.middle), (NARROW.x - gap, NARROW.middle)),
        arrow((NARROW.right + gap, NARROW.middle), (REDUCE.x - gap, REDUCE.middle), both=True),
    ]
    for box in (PLAN, BROWSER, ONNX, C):
        path = ((NARROW.centre, NARROW.bottom), (NARROW.centre, fork), (box.centre, fork), (box.centre, box.y - gap))
        lines.append(arrow(*path))
    lines += [arrow((box.centre, PLAN.bottom), (box.centre, box.y - gap)) for box in (STEP, PUSH, FORWARD)]
    return lines


def svg() -> str:
    """The picture."""
    head = '<path d="M0,0 L8,4 L0,8 z"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-labelledby="name says">',
            f'<title id="name">{escape(TITLE)}</title>',
            f'<desc id="says">{escape(SAYS)}</desc>',
            "<defs>",
            '<marker id="head" markerUnits="userSpaceOnUse" markerWidth="8" markerHeight="8" refX="7" refY="4"'
            f' orient="auto-start-reverse" fill="{ARROW}">{head}</marker>',
            "</defs>",
            f'<g fill="none" stroke="{ARROW}" stroke-width="2" stroke-linejoin="round">',
            *arrows(),
            "</g>",
            '<g font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13" text-anchor="middle" '
            f'fill="{TEXT}">',
            "<style>.title { font-weight: 600; font-size: 15px }</style>",
            *(box.svg() for box in BOXES),
            "</g>",
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
