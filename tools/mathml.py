"""Formulas as MathML, made when the pages are built: a reader needs no script, no font and no network."""

from __future__ import annotations

from html import escape
from typing import Any

from latex2mathml.converter import convert
from pymdownx.superfences import SuperFencesException


def fence(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **more: Any) -> str:
    """The fenced block ```` ```math ````, TeX in the source, as one displayed formula a line.

    Raises: SuperFencesException, the one error that stops a build and does not leave the TeX on the page.
    """
    lines = [line.strip() for line in source.strip().splitlines() if line.strip()]
    try:
        return "".join(f'<p class="formula">{_one(line)}</p>' for line in lines)
    except Exception as error:
        raise SuperFencesException(f"cannot read the formula {source.strip()!r}") from error


def _one(tex: str) -> str:
    return convert(tex, display="block").replace("<math ", f'<math alttext="{escape(tex)}" ', 1)
