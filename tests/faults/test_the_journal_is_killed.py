"""F1, F2 for the accept journal: the process is killed at its n-th flush of the journal, and at a
moment of no choosing; the host's power is cut. What was answered is in the journal, whole, and gets
into the database once; what was not answered is there whole or not at all.

Invariants: I1, I8.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from everpost.ids import Id
from tests.support.house import House
from tests.support.journalling import desk
from tests.support.power import Host
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

_ENOUGH = 40


class Node:
    """A process that journals; `acknowledged` is what it has said. It stands in for a House where
    the power is cut."""

    def __init__(self, folder: Path, words: Path, prefix: Sequence[str] = ()) -> None:
        self.words = words
        with words.open("w") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.support.journalling",
                 str(folder / "store.db"), str(folder / "journal.db")],
                stdin=subprocess.PIPE,
                stdout=output,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
        wait_until(lambda: "ready" in words.read_text(), seconds=20, what="the node")

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> Sequence[int]:
        return ()

    def post(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def wait_acknowledged(self, count: int) -> None:
        wait_until(lambda: len(self.acknowledged) >= count, seconds=20, what=f"{count} answers")

    @property
    def acknowledged(self) -> list[Id]:
        lines = self.words.read_text().split("\n")
        return [bytes.fromhex(line) for line in lines[:-1] if line != "ready"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextmanager
def node(folder: Path, words: Path, prefix: Sequence[str] = ()) -> Iterator[Node]:
    running = Node(folder, words, prefix)
    try:
        yield running
    finally:
        running.kill()


def _drained(folder: Path, acknowledged: Sequence[Id]) -> None:
    """Everything acknowledged reaches the database, with both recipients, once."""

    async def scene() -> None:
        async with desk(folder / "store.db", journal=folder / "journal.db") as survivor:
            await survivor.drain.round()
            for id_ in acknowledged:
                row = await survivor.store.message(1, id_)
                assert row is not None
                assert len(row.recipients) == 2
            facts = await survivor.store.facts()
            assert facts.accepted >= 2 * len(acknowledged)
            assert facts.accepted % 2 == 0

    asyncio.run(scene())


@pytest.mark.parametrize("nth", [1, 2, *(pytest.param(n, marks=pytest.mark.long) for n in (3, 7))])
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_killed_at_a_flush(tmp_path: Path, call: str, nth: int) -> None:
    with node(tmp_path, tmp_path / "words") as running:
        with injecting(running.pid, f"{call}:signal=SIGKILL:when={nth}"):
            running.post()
            wait_until(lambda: running.process.poll() is not None, seconds=20, what="the kill")
        assert running.process.returncode == -signal.SIGKILL
        _drained(tmp_path, running.acknowledged)


def test_killed_after_an_answer(tmp_path: Path) -> None:
    with node(tmp_path, tmp_path / "words") as running:
        running.post()
        running.wait_acknowledged(_ENOUGH)
        os.kill(running.pid, signal.SIGKILL)
        running.kill()
        _drained(tmp_path, running.acknowledged)


def test_the_power_is_cut_after_an_answer(tmp_path: Path) -> None:
    with Host(tmp_path) as host:
        host.data.mkdir()
        with node(host.data, tmp_path / "words", host.prefix) as running:
            running.post()
            running.wait_acknowledged(_ENOUGH)
            host.cut(cast(House, running))
            _drained(host.data, running.acknowledged)


def test_a_disk_that_fails_to_flush(tmp_path: Path) -> None:
    """Nothing is acknowledged that was not flushed."""
    with node(tmp_path, tmp_path / "words") as running:
        with injecting(running.pid, "fdatasync:error=EIO:when=1+"):
            running.post()
            wait_until(lambda: running.process.poll() is not None, seconds=20, what="its end")
        _drained(tmp_path, running.acknowledged)
        assert running.acknowledged == []
