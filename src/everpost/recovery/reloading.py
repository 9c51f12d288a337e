"""A reload of the configuration: it is read in a process of its own, then one child after the other
is replaced. A bad one, or one that a child does not start with, leaves the old one in force."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from everpost.recovery.spawning import Child
from everpost.recovery.watching import Patience

__all__ = ["Plan", "Reader", "Reading", "Roll"]

_READ_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run. `drain_s`: what a child may take to end after it was told to; `linger_s`: how
    long all go on, not ready any more, after the supervisor was."""

    children: Sequence[Child]
    drain_s: float
    patience: Patience
    linger_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reader:
    """`command`, run with `environment`, reads the configuration; `decide` makes of what it printed
    a plan, or sentences on why there can be none."""

    command: Sequence[str]
    environment: Mapping[str, str]
    decide: Callable[[bytes], Plan | tuple[str, ...]]


class Reading:
    """The process that reads, under way. Its output goes to memory, so that nobody waits."""

    def __init__(self, reader: Reader) -> None:
        """Raises OSError."""
        self._decide = reader.decide
        self._output = os.memfd_create("configuration")
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                list(reader.command),
                env=dict(reader.environment),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                start_new_session=True,
            )
        except OSError:
            os.close(self._output)
            raise
        try:
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            os.close(self._output)
            self._process.kill()
            self._process.wait()
            raise
        self.deadline = time.monotonic() + _READ_S

    def kill(self) -> None:
        self._process.kill()

    def result(self) -> Plan | tuple[str, ...]:
        """After its end."""
        code = self._process.wait()
        size = os.fstat(self._output).st_size
        said = os.pread(self._output, size, 0)
        os.close(self._output)
        os.close(self.pidfd)
        if code != 0:
            return (f"the configuration could not be read (exit code {code}; see the log)",)
        try:
            return self._decide(said)
        except Exception as error:  # such as what an upgrade beneath this server printed
            return (f"what is read now this server cannot use; restart Everpost ({error!r})",)


@dataclass(slots=True)
class Roll:
    """Children being replaced, in order. `back`: to the plan that was in force before, after
    `why`."""

    plan: Plan
    todo: list[Child]
    done: list[str] = field(default_factory=list)
    back: bool = False
    why: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(child.name for child in self.plan.children)

    def turned(self, before: Plan, why: tuple[str, ...]) -> "Roll":
        """The way back: what was replaced is replaced again with what it was."""
        again = [child for child in before.children if child.name in self.done]
        return Roll(before, again, back=True, why=(*self.why, *why))
