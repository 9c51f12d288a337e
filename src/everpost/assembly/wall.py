"""This node's clock: the anchor of all its processes in a file, and what is told of steps."""

import json
import os
from pathlib import Path

from everpost import telemetry
from everpost.clock import DRIFT_MS, Anchor, SettlingClock

__all__ = ["AnchorFile", "boot_id", "borrow_clock", "open_clock", "watch_clock"]

_TIME_NAMESPACE = Path("/proc/self/ns/time")


class AnchorFile:
    """The anchor in a small file, replaced as a whole. `boot` names this run of the host: what
    another one has left counts for nothing, nor does what is torn. Nothing depends on it: without
    the file a process goes by what it sees itself. `ours` False: it is never written."""

    def __init__(self, path: Path, *, boot: str, ours: bool = True) -> None:
        self._path = path
        self._ours = ours
        # Steady time may be another one in a container.
        self._boot = f"{boot} {_link(_TIME_NAMESPACE)}"

    def load(self) -> Anchor | None:
        try:
            known = json.loads(self._path.read_bytes())
            if known["boot"] != self._boot:
                return None
            other = known["other"]
            return Anchor(
                int(known["offset"]), None if other is None else int(other), int(known["since"])
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, anchor: Anchor) -> None:
        """Not flushed: it is worth nothing after the host went down."""
        if not self._ours:
            return
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            fresh.write_text(json.dumps({"boot": self._boot, **anchor._asdict()}), "ascii")
            os.replace(fresh, self._path)
        except OSError as error:
            telemetry.event("clock.anchor_unwritable", error=str(error))


def open_clock(path: Path, *, boot: str, settle_s: float) -> SettlingClock:
    return SettlingClock(AnchorFile(path, boot=boot), settle_s=settle_s, changed=_tell)


def borrow_clock(path: Path, *, boot: str, settle_s: float) -> SettlingClock:
    """For a tool beside the service: it goes by the service's anchor and does not move it."""
    anchors = AnchorFile(path, boot=boot, ours=False)
    return SettlingClock(anchors, settle_s=settle_s, changed=lambda *_: None)


def watch_clock(clock: SettlingClock) -> None:
    """Raise or clear the alarm, by what stands now."""
    alarm, off = telemetry.alarm("clock_stepped"), clock.off_ms
    if off:
        alarm.raise_(ms=off)
    else:
        alarm.clear()


def boot_id() -> str:
    """This run of the kernel; another value means that every earlier process is dead."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _tell(was: Anchor, now: Anchor) -> None:
    if now.other is not None:
        telemetry.event("clock.step_held_off", ms=now.other - now.offset)
    elif abs(now.offset - was.offset) > DRIFT_MS:
        telemetry.event("clock.step_adopted", ms=now.offset - was.offset)
    else:
        telemetry.event("clock.step_taken_back")


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
