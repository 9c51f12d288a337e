"""One setting: a field of a section, and what it promises."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KIB", "META", "MIB", "Meta", "setting"]

KIB = 1024
MIB = 1024 * 1024

META = "everpost"
"""Under this key a field's metadata holds its `Meta`."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What a field promises. `low` and `high` are inclusive. `form` says in words what a text must
    look like and `check` whether it does."""

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    form: str = ""
    check: Callable[[str], bool] | None = None


def setting(default: Any, help_: str, **meta: Any) -> Any:
    """A dataclass field with its `Meta`."""
    return field(default=default, metadata={META: Meta(help_, **meta)})
