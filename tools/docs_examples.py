"""For mkdocs.yml: examples in docstrings (``>>>``) get the heading that sets them apart from the section above."""

from __future__ import annotations

import re
from typing import Any

import griffe

# A run of lines up to an empty one.
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Gives it to them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """One object, once its members are there."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"Examples\n--------\n\g<0>", obj.docstring.value)
