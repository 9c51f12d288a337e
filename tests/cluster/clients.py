"""Clients as they should be written: a key, a time-out, one more try by way of the other balancer.

They live in a namespace of their own; `Door` is what they know of the cluster.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tests.chaos.clients import Client
from tests.chaos.history import History
from tests.cluster.network import Namespace
from tests.support.house import House

__all__ = ["PULSES", "ClusterClient", "Door", "Pulse"]


PULSES = 1000
"""Numbers of clients from here on are those of a `Pulse`."""


@dataclass(frozen=True, slots=True)
class Door:
    """`places`: the balancers."""

    namespace: Namespace
    places: Sequence[tuple[str, int]]
    key: str


class ClusterClient(Client):
    """Asks once more, and then goes on to its next operation: what became of the last one is
    unknown to it."""

    tries = 2
    timeout_s = 2.0
    pause_s = 0.02

    def __init__(self, door: Door, history: History, *, number: int, seed: int, rate: float):
        super().__init__(cast(House, door), history, number=number, seed=seed, rate=rate)
        self._door = door
        self._place = number % len(door.places)

    def run(self) -> None:
        with self._door.namespace.inside():
            super().run()

    def _address(self) -> tuple[str, int]:
        return self._door.places[self._place]

    def _let_go(self) -> None:
        """After what went wrong the other balancer is asked."""
        super()._let_go()
        self._place = (self._place + 1) % len(self._door.places)

    def _gives_up(self, name: str) -> None:
        self._history.write("info", op="gave_up", key=name, why="asked twice")

    def _understand(self, status: int, text: bytes) -> Any:
        """A balancer's own refusals are pages for people."""
        try:
            return json.loads(text)
        except ValueError:
            assert status >= 500, f"{status}: {text[:200]!r}"
            return {}


class Pulse(ClusterClient):
    """One message at a time, in short intervals: by these the gaps are measured."""

    weights: Mapping[str, int] = {"send": 1}
