"""Through a model's tree, layer by layer, with what each of them hears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from .. import document as doc
from .systems import Signal, model_of

Signals = Sequence[Signal]
Change = Callable[[doc.Node, Signals, Signals], doc.Node]

REMEMBERS = (doc.Diagonal, doc.Dplr, doc.Dense, doc.DiagonalMimo, doc.Linoss, doc.Selective, doc.Ssd)


def rebuilt(node: doc.Node, full: Signals, reduced: Signals, change: Change) -> doc.Node:
    """The node with every state-space node below it changed, in the order in which they run.

    ``change`` is given a node, the sequences that it hears in the full model, and those that it hears in the one whose
    nodes before it have been changed. What comes after a pool hears one sample a sequence, and stays as it is.
    """
    if isinstance(node, doc.Sequential):
        children: list[doc.Node] = []
        for i, child in enumerate(node.children):
            if isinstance(child, doc.Pool):
                break
            children.append(rebuilt(child, full, reduced, change))
            if any(isinstance(n, REMEMBERS) for later in node.children[i + 1 :] for n in doc.walk(later)):
                unchanged = reduced is full and children[-1] is child
                full = run(child, full)
                reduced = full if unchanged else run(children[-1], reduced)
        return replace(node, children=(*children, *node.children[len(children) :]))
    inner = {f.name: getattr(node, f.name) for f in fields(node)}
    nodes = {
        name: rebuilt(value, full, reduced, change) for name, value in inner.items() if isinstance(value, doc.Node)
    }
    node = replace(node, **nodes) if nodes else node  # type: ignore[arg-type]
    return change(node, full, reduced) if isinstance(node, REMEMBERS) else node


def run(node: doc.Node, signals: Signals) -> list[Signal]:
    """What the node answers."""
    tokens = isinstance(doc.first(node), doc.Embedding)
    model = model_of(node, 1 if tokens else signals[0].shape[-1])
    return [model(u) for u in signals]
