"""Alarms on rows that cannot be read: one a row, ended when it can be, or when it is gone."""

from collections.abc import Iterable

from everpost import telemetry

__all__ = ["Unusable"]


class Unusable:
    """The alarms `<kind>_unusable:<name>` that this process has raised."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._raised: set[str] = set()

    def found(self, name: str, *, reason: str, error: Exception) -> None:
        """The row of this name cannot be read."""
        self._raised.add(name)
        facts = {self._kind: name, "reason": reason, "error": type(error).__name__}
        telemetry.alarm(self._alarm(name)).raise_(**facts)

    def fine(self, name: str) -> None:
        """It can."""
        if name in self._raised:
            self._raised.discard(name)
            telemetry.alarm(self._alarm(name)).clear()

    def only(self, names: Iterable[str]) -> None:
        """There are no others any more."""
        for name in self._raised.difference(names):
            self.fine(name)

    def _alarm(self, name: str) -> str:
        return f"{self._kind}_unusable:{name}"
