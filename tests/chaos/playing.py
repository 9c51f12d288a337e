"""Plays a schedule of faults: when each begins, which of them meet, and what the history tells."""

import select
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.chaos import nemesis
from tests.chaos.history import History
from tests.chaos.nemesis import Fault, Kind, exclude

__all__ = ["Done", "Player", "rest"]

_BREATH_S = 1.5
"""After a fault that took longer than the schedule thought, mail flows for so long."""

Done = dict[str, Any]


class Player(ABC):
    """`play(schedule)` does them in order, several at once where the schedule says so. Each leaves
    two lines in the history, `fault` with `phase` begin and end, the same `fault` number and what
    was hit. `kills`: processes killed by it, those of power cuts left out; `done`: faults by name,
    those that found nothing to hit apart. `patience_s`: how long one that excludes the next may
    take.
    """

    def __init__(
        self,
        history: History,
        *,
        kinds: Mapping[str, Kind] = nemesis.KINDS,
        patience_s: float = 120.0,
    ) -> None:
        self._history = history
        self._kinds = kinds
        self._patience_s = patience_s
        self._active: dict[int, Fault] = {}
        self._change = threading.Condition()
        self._errors: list[BaseException] = []
        self._count = 0
        self.kills = 0
        self.done: Counter[str] = Counter()

    @abstractmethod
    def doer(self, name: str) -> Callable[[Fault], Done]:
        """What does a fault of this name, and returns when it is healed: what it hit."""

    @abstractmethod
    def _before(self, fault: Fault) -> None:
        """Whatever must be there for it; the schedule waits."""

    def play(self, plan: Iterable[Fault], *, seconds: float) -> None:
        """A fault that is late, because one that it excludes took long, moves all after it; those
        that would begin after `seconds` are left out. All is healed on return. Raises what a fault
        raised, such as AssertionError for a server that does not start."""
        begun = time.monotonic()
        threads = []
        late = 0.0
        for fault in plan:
            self._wait(begun + fault.at + late)
            self._wait_for_others(fault)
            self._before(fault)
            late = max(0.0, time.monotonic() - begun - fault.at)
            if self._errors or fault.end + late > seconds:
                break
            threads.append(self._begin(fault))
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def do(self, fault: Fault) -> None:
        """One, until it is healed."""
        self._begin(fault).join()
        if self._errors:
            raise self._errors[0]

    def _wait(self, until: float) -> None:
        with self._change:
            self._change.wait_for(
                lambda: bool(self._errors), timeout=max(0.0, until - time.monotonic())
            )

    def _wait_for_others(self, fault: Fault) -> None:
        def clear() -> bool:
            others = self._active.values()
            return bool(self._errors) or not any(
                exclude(fault.name, o.name, kinds=self._kinds) for o in others
            )

        with self._change:
            if clear():
                return
            assert self._change.wait_for(clear, timeout=self._patience_s), (
                f"{self._active} never ends"
            )
        self._wait(time.monotonic() + _BREATH_S)

    def _begin(self, fault: Fault) -> threading.Thread:
        with self._change:
            self._count += 1
            number = self._count
            self._active[number] = fault
        thread = threading.Thread(target=self._run, args=(number, fault), daemon=True)
        thread.start()
        return thread

    def _run(self, number: int, fault: Fault) -> None:
        found: Done = {}
        self._history.write(
            "fault", phase="begin", fault=number, name=fault.name, length=fault.length
        )
        try:
            found = self.doer(fault.name)(fault)
        except BaseException as error:  # the thread that plays raises it
            found = {"error": repr(error)}
            self._errors.append(error)
        finally:
            self._history.write("fault", phase="end", fault=number, name=fault.name, **found)
            with self._change:
                self.done[fault.name if _hit(found) else f"{fault.name} (hit nothing)"] += 1
                self.kills += len(found.get("killed", ()))
                del self._active[number]
                self._change.notify_all()


def _hit(found: Done) -> bool:
    """Whether there was a process, or whatever it was made for."""
    targets = [
        v for k, v in found.items() if k in ("killed", "told", "paused", "traced", "flipped")
    ]
    return bool(found) and "missed" not in found and "error" not in found and all(targets)


def rest(seconds: float) -> None:
    select.select([], [], [], seconds)
