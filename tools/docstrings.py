"""Docstrings of this library as Markdown: each `Shapes:`, `Raises:` or `Source:` a paragraph, each key a link."""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEAD = re.compile(r"(?<![\n`])\s*\b((?:Shapes|Units|Raises|Exact|Cost|Source|Laws)):\s+(?=\S)")
_KEY = re.compile(r"\s*(?<!`)\[([a-z]+\d{4}[a-z]+)\](?![\[(`])")


class Plain(griffe.Extension):
    """Rewrites every docstring before it is rendered."""

    def on_instance(self, *, obj: griffe.Object, **more: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """`text` with its labelled lines as paragraphs and its citation keys as links to the bibliography."""
    text = _HEAD.sub(r"\n\n**\1:** ", text)
    return _KEY.sub(r" [\\[\1\\]][\1]", text)
