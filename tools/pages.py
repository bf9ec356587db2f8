"""Write the generated pages of docs/reference: the command line, the names of the library, and the bibliography.

`python tools/pages.py` writes them; `tests/test_docs.py` fails where a page is not what this script would write now.
"""

from __future__ import annotations

import html
import inspect
import re
import sys
import tomllib
import types
import typing
import unicodedata
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "driftfield"
HIDDEN = {"__init__", "__main__", "cli"}
FOLDERS = {  # the pages of the reference, in the order of the layers, and what each is called
    "process": "Processes",
    "network": "Networks",
    "pde": "Equations of physics",
    "denoise": "Denoisers",
    "adapt": "Other people's models",
    "guide": "Guidance",
    "field": "Fields",
    "solve": "Solvers",
    "objective": "Objectives",
    "bridge": "diffusers",
    "data": "Data",
    "column": "Columns of tables",
    "metric": "Scores",
    "train": "Training",
    "recipes": "Recipes by name",
    "report": "Reports",
    "deploy": "Export",
}


def pages() -> dict[Path, str]:
    """Every generated page, by the path it goes to."""
    made = {"cli.md": command_line(), "index.md": names(), "bibliography.md": bibliography(), "modules.md": modules()}
    made |= {f"{name}.md": part(name, title) for name, title in parts().items()}
    return {DOCS / "reference" / name: text.rstrip() + "\n" for name, text in made.items()}


# --- the command line -------------------------------------------------------------------------------------------


def command_line() -> str:
    """One section for each command, from what its function declares: the source of its `--help`."""
    from driftfield.cli import app

    lines = [
        "# Command line",
        "",
        f"{app.info.help}",
        "",
        "Every command prints its own help with `--help`. The exit status is 0, 1 (failed: one sentence on standard",
        "error), 2 (the command itself was mistyped) or 130 (interrupted). `DRIFTFIELD_DEBUG=1` in the environment",
        "shows the traceback of a failure. This page is made from the commands by `tools/pages.py`.",
    ]
    for path, command in commands(app, "driftfield"):
        params = _params(command)
        takes = [p for p in params if p.argument]
        usage = [path, *(["[OPTIONS]"] if len(takes) < len(params) else []), *(p.usage for p in takes)]
        lines += ["", f"## {path}", "", inspect.cleandoc(command.__doc__ or ""), "", "```", " ".join(usage), "```"]
        lines += _table("Argument", takes) + _table("Option", [p for p in params if not p.argument])
    return "\n".join(lines)


def commands(app: Any, path: str) -> list[tuple[str, Any]]:
    """The commands of a typer application and of its groups: the words to type, and the function behind them."""
    found = [(f"{path} {c.name or c.callback.__name__.replace('_', '-')}", c.callback) for c in app.registered_commands]
    for group in app.registered_groups:
        name = group.name if isinstance(group.name, str) else group.typer_instance.info.name
        found += commands(group.typer_instance, f"{path} {name}")
    return found


@dataclass(frozen=True)
class Param:
    """One argument or option of a command, as the page shows it."""

    argument: bool
    called: str
    usage: str
    said: str
    default: str


_WORDS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}


def _params(command: Any) -> list[Param]:
    from typer.models import ArgumentInfo

    hints = typing.get_type_hints(command, include_extras=True)
    made = []
    for name, given in inspect.signature(command).parameters.items():
        kind, info = typing.get_args(hints[name])[:2]
        union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        kind = next(k for k in typing.get_args(kind) if k is not type(None)) if union else kind
        several = typing.get_origin(kind) is list
        kind = typing.get_args(kind)[0] if several else kind
        word = _word(kind)
        said, default = re.fullmatch(r"(.*?)(?: \[([^\]]*)\])?", info.help or "", re.S).groups()  # type: ignore[union-attr]
        required = given.default is inspect.Parameter.empty
        if default is None:
            default = "required" if required and not isinstance(info, ArgumentInfo) else _shown(given.default)
        if isinstance(info, ArgumentInfo):
            usage = name.upper() + ("..." if several else "")
            usage = usage if required else f"[{usage}]"
            made.append(Param(True, f"`{usage}`", usage, said, default))
            continue
        own = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("-")]
        plain = f"--{name.replace('_', '-')}"
        spelt = own or ([plain, plain.replace("--", "--no-", 1)] if kind is bool else [plain])
        called = ", ".join(f"`{s}`" for s in spelt) + ("" if kind is bool else f" *{word}*")
        made.append(Param(False, called + (", may be repeated" if several else ""), "", said, default))
    return made


def _word(kind: Any) -> str:
    values = list(kind) if isinstance(kind, type) and issubclass(kind, Enum) else typing.get_args(kind)
    return " / ".join(str(getattr(v, "value", v)) for v in values) if values else _WORDS.get(kind, "TEXT")


def _shown(value: Any) -> str:
    if value is inspect.Parameter.empty or value is None or value is False or value == []:
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _table(kind: str, params: list[Param]) -> list[str]:
    rows = [f"| {_cell(p.called)} | {_cell(p.said)} | {_cell(p.default)} |" for p in params]
    return ["", f"| {kind} | Meaning | Default |", "|---|---|---|", *rows] if rows else []


def _cell(text: str) -> str:
    """Text for the cell of a table: a bar would end it, and inside code it cannot be escaped but as HTML."""
    code = lambda m: m[0] if "|" not in m[0] else f"<code>{html.escape(m[1]).replace('|', '&#124;')}</code>"
    return re.sub(r"`([^`]*)`", code, " ".join(text.split())).replace("|", "\\|")


# --- the library ------------------------------------------------------------------------------------------------


def parts() -> dict[str, str]:
    """The folders of the package that have a page, and its title; a folder that `FOLDERS` does not name is an error."""
    there = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))} - HIDDEN
    if unnamed := there - set(FOLDERS):
        raise SystemExit(f"tools/pages.py has no title for {', '.join(sorted(unnamed))}: add it to FOLDERS")
    return {name: title for name, title in FOLDERS.items() if name in there}


def part(name: str, title: str) -> str:
    """The page of a folder: every module of it that says something."""
    files = [p for p in sorted((PACKAGE / name).glob("*.py")) if p.read_text().strip()]
    whole = [f"driftfield.{name}" if p.stem == "__init__" else f"driftfield.{name}.{p.stem}" for p in files]
    return f"# {title}\n\n" + "\n\n".join(f"::: {module}" for module in whole)


def modules() -> str:
    """The page of the modules at the top of the package."""
    files = [p.stem for p in sorted(PACKAGE.glob("*.py")) if p.stem not in HIDDEN]
    return "# Single modules\n\n" + "\n\n".join(f"::: driftfield.{name}" for name in files)


def names() -> str:
    """Every name of `driftfield.__all__`, with its first sentence and where it is explained."""
    import driftfield

    lines = [
        "# Reference",
        "",
        "```python",
        "import driftfield as df",
        "```",
        "",
        "These names are imported when they are first used, so `import driftfield` costs nothing. They stay stable.",
        "Everything else is reached by its module, such as `driftfield.objective.laws`, and is explained on the pages",
        "of the parts. The [command line](cli.md) and the [bibliography](bibliography.md) have pages of their own.",
        "",
        "| Name | What it is |",
        "|---|---|",
    ]
    for module, named in driftfield._HOME.items():
        for name in named:
            first = re.split(r"(?<=\.)\s|\n\n", inspect.getdoc(getattr(driftfield, name)) or "", maxsplit=1)[0]
            lines.append(f"| [`{name}`][driftfield.{module}.{name}] | {_cell(first)} |")
    lines += ["", "## Extras", "", "`pip install 'driftfield[NAME]'` brings what some parts need:", ""]
    lines += ["| Name | Brings |", "|---|---|"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, needs in sorted(extras.items()):
        if name not in ("dev", "docs", "bench"):
            lines.append(f"| `{name}` | {', '.join(f'`{need}`' for need in needs)} |")
    return "\n".join(lines)


# --- the bibliography -------------------------------------------------------------------------------------------


def bibliography() -> str:
    """references.bib as a page: one entry a key, which the docstrings and the pages cite in brackets."""
    lines = [
        "# Bibliography",
        "",
        "What a formula or a method is taken from is said where it is written, by a key in brackets. The entries are",
        "those of `references.bib`, which comes with the package; every one of them is cited.",
    ]
    for key, fields in sorted(entries((PACKAGE / "references.bib").read_text()).items()):
        where = fields.get("journal") or fields.get("booktitle") or fields.get("publisher") or ""
        where += f" {fields['volume']}" if "volume" in fields and where else ""
        link = fields.get("url") or (f"https://doi.org/{fields['doi']}" if "doi" in fields else "")
        title = f"[{fields['title']}]({link})" if link else fields["title"]
        by = fields["author"].replace(" and others", " et al.").replace(" and ", "; ")
        tail = ", ".join(v for v in (where, fields["year"]) if v)
        lines += ["", f"### {key} {{ #{key} }}", "", f"{by.rstrip('.')}. *{title}*. {tail}."]
    return "\n".join(lines)


def entries(text: str) -> dict[str, dict[str, str]]:
    """The entries of a BibTeX file by key, each a mapping of its fields, with accents as letters."""
    found = {}
    value = r"(\w+)\s*=\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"  # braces nest up to twice in a value
    for match in re.finditer(r"^@\w+\{(\w+),(.*?)\}\s*$", text, re.M | re.S):
        key, body = match.groups()
        found[key] = {name: _letters(said) for name, said in re.findall(value, body)}
    return found


_ACCENTS = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303", "v": "\u030c", "c": "\u0327"}
_ACCENTED = re.compile(r"\{?\\(['`\"^~]|[vc](?=[\s{]))\s*\{?(\\?[A-Za-z])\}?\}?")


def _letters(text: str) -> str:
    """TeX accents as letters, without the braces that keep capitals."""
    text = _ACCENTED.sub(lambda m: m[2].strip("\\") + _ACCENTS[m[1]], text)
    for code, letter in (("\\l", "ł"), ("\\o", "ø"), ("\\ss", "ß"), ("\\&", "&"), ("--", "–")):
        text = text.replace(code, letter)
    return unicodedata.normalize("NFC", re.sub(r"[{}]", "", text))


def main() -> int:
    """Write the pages; those of parts that are gone are removed."""
    wanted = pages()
    for path in (DOCS / "reference").glob("*.md"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(wanted)} pages of driftfield {version('driftfield')} in {DOCS / 'reference'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
