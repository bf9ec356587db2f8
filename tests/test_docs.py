"""The documentation is whole: generated pages are current, every page is in the contents, no link leads nowhere.

`make docs` builds the site with the same claims checked by its builder.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import pytest

import driftfield

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
sys.path.insert(0, str(ROOT / "tools"))

import docstrings  # noqa: E402
import mathml  # noqa: E402
import pages  # noqa: E402


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    return pages.pages()


def test_the_generated_pages_are_current(generated):
    stale = [path.name for path, text in generated.items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run `python tools/pages.py`: {', '.join(stale)}"
    assert set((DOCS / "reference").glob("*.md")) == set(generated)


def test_the_command_line_page_has_every_option_that_help_prints(generated):
    """The page is made from the commands' functions; this compares it with what `--help` says."""
    from typer.testing import CliRunner

    from driftfield.cli import app

    text = generated[DOCS / "reference" / "cli.md"]
    sections = dict(re.findall(r"^## (driftfield [^\n]+)\n(.*?)(?=^## |\Z)", text, re.S | re.M))
    assert set(sections) == {path for path, _ in pages.commands(app, "driftfield")}
    for path, section in sections.items():
        printed = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": "200"})
        assert printed.exit_code == 0
        options = {o for line in printed.output.splitlines() for o in re.findall(r"(?<![\w-])--[a-z][\w-]*", line[:60])}
        shown = {o for cell in re.findall(r"^\| ([^|]*)\|", section, re.M) for o in re.findall(r"--[a-z][\w-]*", cell)}
        assert shown == options - {"--help"}, path


def test_every_page_is_in_the_contents():
    listed = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert len(listed) == len(set(listed))
    assert set(listed) == {p.relative_to(DOCS).as_posix() for p in PAGES}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_links_and_pictures_are_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"
    assert not re.search(r"!\[[^\]]*\]\(http|<script|<iframe", text), f"{page.name} loads something from elsewhere"


def test_pictures_are_small_and_used():
    text = (ROOT / "README.md").read_text() + "".join(p.read_text() for p in PAGES)
    for picture in (DOCS / "images").iterdir():
        assert picture.suffix in (".png", ".webp")
        assert picture.stat().st_size < 200_000, picture.name
        assert picture.name in text, f"no page shows {picture.name}"


def test_every_public_name_has_a_page(generated):
    index = generated[DOCS / "reference" / "index.md"]
    everything = "".join(generated.values())
    for name in driftfield.__all__:
        assert f"[`{name}`][driftfield." in index
        assert f"::: driftfield.{driftfield._WHERE[name]}\n" in everything


def test_docstrings_become_paragraphs_and_links():
    text = "What is true.\n\nShapes: `x` is `(B,)`.\nRaises: ValueError. Source: Xu et al. 2023. [xu2023pfgmpp]"
    assert docstrings.as_markdown(text).split("\n\n") == [
        "What is true.",
        "**Shapes:** `x` is `(B,)`.",
        "**Raises:** ValueError.",
        "**Source:** Xu et al. 2023. [\\[xu2023pfgmpp\\]][xu2023pfgmpp]",
    ]


def test_bibtex_becomes_letters():
    entry = r"""@book{a2000b, author = {Bi{\'n}kowski, Miko{\l}aj and Sch{\"o}lkopf, B.}, title = {The {Stein} way}}"""
    wanted = {"author": "Bińkowski, Mikołaj and Schölkopf, B.", "title": "The Stein way"}
    assert pages.entries(entry) == {"a2000b": wanted}


def test_formulas_need_no_script():
    made = mathml.fence(r"x_t = A_t x_0 < 1", "math", "math", {}, None)
    assert html.unescape(re.sub(r"<[^>]*>", "", made)) == "xt=Atx0<1"
    assert 'alttext="x_t = A_t x_0 &lt; 1"' in made
    for page in PAGES:
        for formula in re.findall(r"^```math\n(.*?)^```", page.read_text(), re.S | re.M):
            shown = re.sub(r"<[^>]*>", "", mathml.fence(formula, "math", "math", {}, None))
            assert "\\" not in shown, f"{page.name}: TeX is left in {shown}"
    with pytest.raises(Exception, match="cannot read the formula"):
        mathml.fence(r"\frac", "math", "math", {}, None)


def test_pages_name_no_private_place():
    for page in PAGES:
        assert not re.search(r"/work/|/tmp/|/home/|/root/|localhost", page.read_text()), page.name
