"""CPU and memory of process trees, read from /proc."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Usage", "measure", "tree"]

_TICK = os.sysconf("SC_CLK_TCK")


class Usage:
    """`cpu_s`: seconds used by the trees, ended children included. `peak_mb`: the highest sum of
    proportional set sizes seen (shared pages counted once)."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.peak_mb = 0.0


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(roots: Sequence[int]) -> list[int]:
    """The processes of these trees that live now."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(entry)] = int(_stat(int(entry))[1])
    found = set(roots) & set(parents)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return sorted(found)
        found |= more


def _cpu(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            stat = _stat(pid)
            total += sum(int(stat[n]) for n in (11, 12, 13, 14))  # own and waited-for children
    return total / _TICK


def _memory_mb(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


@contextlib.contextmanager
def measure(roots: Sequence[int]) -> Iterator[Usage]:
    """Measure these process trees while the block runs."""
    usage = Usage()
    before = _cpu(tree(roots))
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            usage.peak_mb = max(usage.peak_mb, _memory_mb(tree(roots)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield usage
    finally:
        ended.set()
        watcher.join()
        usage.peak_mb = max(usage.peak_mb, _memory_mb(tree(roots)))
        usage.cpu_s = _cpu(tree(roots)) - before
