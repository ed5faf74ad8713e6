"""How wide samples are, as the layers say."""

from __future__ import annotations

from .. import document as doc


def takes(node: doc.Node) -> int | None:
    """The width of a sample that goes in; None where any does."""
    match node:
        case doc.Embedding():
            return 1
        case doc.Linear():
            return int(node.weight.shape[1])
        case doc.Norm():
            given = node.bias if node.weight is None else node.weight
            return None if given is None else len(given)
        case doc.Conv1d():
            return len(node.weight)
        case doc.StateSpace():
            return int(node.C.shape[1])
        case doc.DiagonalMimo():
            return int(node.B.shape[1])
        case doc.Selective():
            return len(node.A)
        case doc.Residual():
            width = takes(node.child)
            return width if width is not None or node.skip is None else takes(node.skip)
        case doc.Gate():
            width = takes(node.left)
            return takes(node.right) if width is None else width
        case doc.Sequential():
            # What halves the channels before the first layer of a width takes twice as many.
            halved = 0
            for child in node.children:
                width = takes(child)
                if width is not None:
                    return width << halved
                halved += _halves(child)
    return None


def _halves(node: doc.Node) -> int:
    """How often a layer that takes any width halves it."""
    if isinstance(node, doc.Sequential):
        return sum(_halves(child) for child in node.children)
    if isinstance(node, doc.Residual | doc.Gate):
        return _halves(node.child if isinstance(node, doc.Residual) else node.left)
    return int(isinstance(node, doc.Glu))


def gives(node: doc.Node, width: int) -> int:
    """The width of a sample that comes out, where one of ``width`` goes in. Whether they fit is the engine's to say."""
    match node:
        case doc.Linear():
            return len(node.weight)
        case doc.Embedding():
            return int(node.weight.shape[1])
        case doc.Glu():
            return width // 2
        case doc.StateSpace():
            return int(node.C.shape[0] * node.C.shape[1])
        case doc.DiagonalMimo():
            return len(node.C)
        case doc.Residual():
            return gives(node.child, width)
        case doc.Gate():
            return gives(node.left, width)
        case doc.Sequential():
            for child in node.children:
                width = gives(child, width)
    return width
