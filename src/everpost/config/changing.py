"""What may change while a server runs, and where its settings are read again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from everpost.config.masking import masked
from everpost.config.settings import Settings

__all__ = ["Origin", "unchangeable"]

_FIXED = (
    "node.data",
    "http.listen",
    "http.admin_listen",
    "postgres.url",
    "cluster.name",
    "cluster.listen",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """`file`: the configuration file that was named, None for the one in the data directory;
    `options` of the command line by dotted name, which win over everything."""

    file: Path | None = None
    options: Mapping[str, str | int] = field(default_factory=dict)


def unchangeable(now: Settings, wanted: Settings) -> tuple[str, ...]:
    """A sentence for each setting that differs and takes a restart of the server."""
    return tuple(
        f"{dotted} cannot change while the server runs: restart Everpost to make it "
        f"{masked(_value(wanted, dotted))!r} (it is {masked(_value(now, dotted))!r})"
        for dotted in _FIXED
        if _value(now, dotted) != _value(wanted, dotted)
    )


def _value(settings: Settings, dotted: str) -> str:
    section, _, name = dotted.partition(".")
    value = getattr(getattr(settings, section), name)
    return str(value.absolute() if isinstance(value, Path) else value)
