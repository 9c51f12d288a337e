"""Several processes on one store, some of them killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from everpost.clock import SystemClock
from everpost.model.states import State
from everpost.store.interface import Accepted, IdempotencyKey, Replayed
from tests.conformance.crashing import KEY
from tests.conformance.engines import Engine
from tests.conformance.making import make_id, message

Spawned = list[subprocess.Popen[str]]
clock = SystemClock()


@pytest.fixture
def spawned() -> Iterator[Spawned]:
    processes: Spawned = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _spawn(spawned: Spawned, engine: Engine, scene: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.crashing", engine.name, engine.place, scene],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    spawned.append(process)
    return process


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _record(fingerprint: bytes = b"f") -> IdempotencyKey:
    return IdempotencyKey(KEY, fingerprint, b"second answer", clock.now() + 1_000_000)


def test_killed_between_the_commit_and_the_answer(engine: Engine, spawned: Spawned) -> None:
    process = _spawn(spawned, engine, "accept_and_die_before_the_answer")
    assert process.wait(timeout=30) == -signal.SIGKILL

    async def scene() -> None:
        async with engine.opened(clock=clock) as store:
            assert len((await store.messages(1, limit=9))[0]) == 1
            assert await store.accept(1, [message()], _record()) == Replayed(b"first answer")
            assert (await store.facts()).accepted == 1

    asyncio.run(scene())


def test_killed_before_the_commit(engine: Engine, spawned: Spawned) -> None:
    process = _spawn(spawned, engine, "accept_and_die_before_the_commit")
    assert process.wait(timeout=30) == -signal.SIGKILL

    async def scene() -> None:
        async with engine.opened(clock=clock) as store:
            assert (await store.messages(1, limit=9)) == ([], False)
            assert (await store.facts()).accepted == 0
            assert await store.accept(1, [message()], _record()) == Accepted()

    asyncio.run(scene())


def test_killed_while_many_are_writing(engine: Engine, spawned: Spawned) -> None:
    """Two writers, one killed: what either acknowledged is there, and the other goes on."""
    process = _spawn(spawned, engine, "accept_for_ever")

    async def scene() -> None:
        async with engine.opened(clock=clock) as store:
            mine = [message(id_=make_id()) for _ in range(60)]
            assert process.stdout is not None
            said = [_line(process) for _ in range(200)]
            for sent in mine[:30]:
                await store.accept(1, [sent])
            process.kill()
            for sent in mine[30:]:
                await asyncio.wait_for(store.accept(1, [sent]), 20)
            said += process.stdout.read().split()
            acknowledged = {bytes.fromhex(i) for i in said if len(i) == 32} | {m.id for m in mine}
            found: set[bytes] = set()
            after = None
            while True:
                page, more = await store.messages(1, limit=500, after=after)
                found |= {m.id for m in page}
                if not more:
                    break
                after = page[-1].id
            assert acknowledged <= found
            facts = await store.facts()
            assert facts.accepted == facts.states[State.QUEUED] == len(found)

    asyncio.run(scene())


def test_three_processes_deliver_each_recipient_once(engine: Engine, spawned: Spawned) -> None:
    now = engine.clock.time = clock.now()
    sent = [message(*(f"x{i}@r{i % 5}.test" for i in range(12)), not_before=now) for _ in range(25)]

    async def fill() -> None:
        async with engine.opened() as store:
            await store.accept(1, sent)

    asyncio.run(fill())
    processes = [_spawn(spawned, engine, "deliver_all") for _ in range(3)]
    for process in processes:
        assert _line(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    settled: Counter[tuple[str, str]] = Counter()
    for process in processes:
        assert process.stdout is not None
        for line in process.stdout:
            id_, n, was = line.split()
            assert was == "True"
            settled[id_, n] += 1
        assert process.wait(timeout=30) == 0
    assert len(settled) == 300
    assert set(settled.values()) == {1}

    async def check() -> None:
        async with engine.opened() as store:
            for each in sent:
                seqs = [e.seq for e in await store.events(1, each.id)]
                assert seqs == list(range(1, 14))
            facts = await store.facts()
            assert facts.states["delivered"] == 300

    asyncio.run(check())


def test_a_paused_process_holds_up_nobody_but_writers(engine: Engine, spawned: Spawned) -> None:
    """A stopped process may sit on the lock (F35). Reads go on; writes wait, and go on with it."""
    process = _spawn(spawned, engine, "accept_for_ever")

    async def scene() -> None:
        async with engine.opened(clock=clock) as store:
            assert [len(_line(process)) for _ in range(20)] == [32] * 20
            os.kill(process.pid, signal.SIGSTOP)
            writing = asyncio.ensure_future(store.accept(1, [message()]))
            page, _ = await asyncio.wait_for(store.messages(1, limit=5), 10)
            assert len(page) == 5
            os.kill(process.pid, signal.SIGCONT)
            assert await asyncio.wait_for(writing, 20) == Accepted()

    asyncio.run(scene())
