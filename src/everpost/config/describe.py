"""Settings in words: the commented sample file and the reference page, from the dataclasses."""

from dataclasses import dataclass
from enum import StrEnum
from inspect import getdoc
from pathlib import Path
from textwrap import wrap
from typing import get_type_hints

from everpost.config.load import Key, environment_name, expected, keys
from everpost.config.settings import Settings

__all__ = ["Described", "describe", "literal", "reference", "sample"]


@dataclass(frozen=True, slots=True)
class Described:
    """One setting for readers. `default` is written as TOML, `form` says what fits."""

    section: str
    name: str
    default: str
    form: str
    help: str
    variable: str
    shown: str = ""
    """The default in readable units where that differs, for example `40 MiB`."""


def describe() -> tuple[Described, ...]:
    """Every setting, in order."""
    return tuple(_described(key) for key in keys())


def _described(key: Key) -> Described:
    return Described(
        section=key.section,
        name=key.name,
        default=literal(key.default),
        form=expected(key),
        help=key.meta.help,
        variable=environment_name(key),
        shown=_sized(key.default) if key.meta.unit == "bytes" else "",
    )


def literal(value: object) -> str:
    """A setting's value as TOML."""
    if isinstance(value, StrEnum):
        value = value.value
    if isinstance(value, str | Path):
        text = f"./{value}" if isinstance(value, Path) and not value.is_absolute() else str(value)
        return f'"{_escaped(text)}"'
    return f"{value:g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    """The inside of a TOML basic string."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in text)


def _sized(number: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number and number % size == 0:
            return f"{number // size} {unit}"
    return ""


def _section_help(section: str) -> str:
    return getdoc(get_type_hints(Settings)[section]) or ""


def sample() -> str:
    """A complete TOML file in which every setting is explained and stands at its default,
    commented out."""
    lines = [
        "# Everpost: what this node is. Every setting is shown at its default; remove the # to",
        "# change one. An environment variable EVERPOST_SECTION_SETTING wins over this file.",
    ]
    section = ""
    for item in describe():
        if item.section != section:
            section = item.section
            lines += ["", *_comment(_section_help(section)), f"[{section}]"]
        form = f"Expected: {item.form}." + (f" Default: {item.shown}." if item.shown else "")
        lines += ["", *_comment(item.help), *_comment(form), f"#{item.name} = {item.default}"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(text, 96)]


def reference() -> str:
    """The settings as Markdown: one table a section."""
    lines: list[str] = []
    section = ""
    for item in describe():
        if item.section != section:
            section = item.section
            lines += [
                "",
                f"## [{section}]",
                "",
                _section_help(section),
                "",
                "| setting | default | meaning | expected | variable |",
                "|---|---|---|---|---|",
            ]
        shown = f" ({item.shown})" if item.shown else ""
        cells = (
            f"`{item.name}`",
            f"`{item.default}`{shown}",
            item.help,
            item.form,
            f"`{item.variable}`",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).strip() + "\n"
