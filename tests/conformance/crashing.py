"""Run as `python -m tests.conformance.crashing ENGINE PLACE SCENE`: a process of its own for the
tests to kill. It says what it has done on standard output, one line each."""

import asyncio
import os
import signal
import sys
from typing import Any

from everpost.clock import SystemClock
from everpost.ids import Id, IdMaker
from everpost.store.interface import IdempotencyKey, Store
from everpost.store.postgres import lane
from everpost.store.postgres import work as postgres_work
from everpost.store.sqlite import work as sqlite_work
from everpost.store.sqlite import writer
from tests.conformance.engines import open_at
from tests.conformance.making import claims, delivered, message

clock = SystemClock()
ids = IdMaker(clock.now)
KEY = "the-key"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _key() -> IdempotencyKey:
    return IdempotencyKey(KEY, b"f", b"first answer", clock.now() + 1_000_000)


async def accept_and_die_before_the_answer(store: Store) -> None:
    """Killed when COMMIT has returned and nobody has been told (F1)."""
    for kind in (writer.Writer, lane.Lane):
        kind._post = _die  # type: ignore[method-assign]
    await store.accept(1, [message(not_before=clock.now())], _key())


async def accept_and_die_before_the_commit(store: Store) -> None:
    for kind in (sqlite_work.Transaction, postgres_work.Transaction):
        kind.finish = _die  # type: ignore[method-assign]
    await store.accept(1, [message(not_before=clock.now())], _key())


async def accept_for_ever(store: Store) -> None:
    """Says every id that was acknowledged."""

    async def caller() -> None:
        while True:
            sent = message(id_=ids(), not_before=clock.now())
            await store.accept(1, [sent])
            _say(sent.id.hex())

    await asyncio.gather(*(caller() for _ in range(8)))


async def deliver_all(store: Store) -> None:
    """Claims and settles until nothing is due; says every recipient it settled."""
    owner: Id = ids()
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    while got := claims(await store.claim(owner, limit=7, lease_ms=60_000)):
        written = await asyncio.gather(*(store.settle(owner, [delivered(c)]) for c in got))
        for claim, was in zip(got, written, strict=True):
            _say(f"{claim.message.hex()} {claim.n} {was[0]}")
    await store.close()
    os._exit(0)


SCENES = {
    f.__name__: f
    for f in (
        accept_and_die_before_the_answer,
        accept_and_die_before_the_commit,
        accept_for_ever,
        deliver_all,
    )
}


async def _main(engine: str, place: str, scene: str) -> None:
    store = open_at(engine, place, clock=clock)
    await store.open()
    await SCENES[scene](store)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:4]))
