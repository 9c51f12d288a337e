"""What the supervisor knows of its children, in a file for the others (`run/children.json`).

The supervisor writes it whenever something of it changes; upkeep raises alarms by it, metrics and
`everpost config reload` read it. It says how things are and is not flushed to disk.
"""

import os
from enum import StrEnum
from pathlib import Path

import msgspec

__all__ = ["ChildFacts", "Children", "Reload", "ReloadState", "read_children", "write_children"]

_MOST_BYTES = 1 << 20


class ReloadState(StrEnum):
    """How far the last reload of the configuration has come."""

    READING = "reading"
    ROLLING = "rolling"
    APPLIED = "applied"
    REFUSED = "refused"
    """It cannot be used: nothing was changed."""
    FAILED = "failed"
    """It can be used, but a process did not start with it: the old one is in force again."""

    @property
    def over(self) -> bool:
        return self not in {ReloadState.READING, ReloadState.ROLLING}


class Reload(msgspec.Struct, frozen=True):
    """`number` counts the reloads of this server from 1 (0: none yet); `why` has a sentence a
    problem; `at` is wall time in milliseconds."""

    number: int = 0
    state: ReloadState = ReloadState.APPLIED
    why: tuple[str, ...] = ()
    at: int = 0

    @property
    def refused(self) -> bool:
        """Whether what stands in the configuration is not what is in force."""
        return self.state in {ReloadState.REFUSED, ReloadState.FAILED}


class ChildFacts(msgspec.Struct, frozen=True):
    """One child. `pid` 0: it does not run now; `next_start_at`: wall time in milliseconds;
    `last_exit`: as of `waitpid`, negative for a signal."""

    name: str
    pid: int = 0
    ready: bool = False
    restarts: int = 0
    short_lives: int = 0
    loops: bool = False
    hung_kills: int = 0
    late_kills: int = 0
    next_start_at: int | None = None
    last_exit: int | None = None


class Children(msgspec.Struct, frozen=True):
    """All of them. `file` and `options`: where the server's configuration comes from."""

    supervisor: int
    children: tuple[ChildFacts, ...]
    reload: Reload = Reload()
    file: str | None = None
    options: dict[str, str | int] = {}


_decode = msgspec.json.Decoder(Children).decode


def write_children(path: Path, facts: Children) -> None:
    """Put it in the old one's place, whole. Raises OSError."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(facts))
    os.replace(fresh, path)


def read_children(path: Path) -> Children | None:
    """None: there is no supervisor, or it has not written yet. Raises OSError."""
    try:
        with path.open("rb") as file:
            return _decode(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:  # of another version of Everpost
        return None
