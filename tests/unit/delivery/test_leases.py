"""What a process holds of its relays' limits, between the slices."""

import asyncio

import pytest

from everpost.clock import SystemClock
from everpost.model.shares import Ask, Grant
from tests.support.carrying import LOOPS, carrier, carry, relay, run

pytestmark = pytest.mark.parametrize("loop", LOOPS)


class Stopped(SystemClock):
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._began, self._monotonic = 1_800_000_000_000, super().monotonic()

    def now(self) -> int:
        return self._began + round(self.seconds * 1000)

    def monotonic(self) -> float:
        return self._monotonic + self.seconds


def test_relay_that_has_sent_its_minute_stays_away_for_ever(loop: str) -> None:
    """Its budget opens between two looks, while nobody wants anything."""

    async def main() -> None:
        clock = Stopped()
        c = carrier(relay(25, messages_per_minute=1), clock=clock)
        c.leases.begin(lambda: None)

        def answer(wish: Ask, seats: int) -> Grant:
            amount = seats if wish.kind == "seats" else 0
            return Grant(wish.name, amount, clock.now() + 60_000)

        def ask(seats: int) -> None:
            asked_at, wall = clock.monotonic(), clock.now()
            parts = [answer(wish, seats) for wish in c.leases.asks()]
            c.leases.grant(parts, asked_at=asked_at, wall=wall)

        waiting = asyncio.ensure_future(carry(c))
        await asyncio.sleep(0)
        ask(2)
        await waiting
        assert c.capacity("default") > 2  # it is away: who comes is told so
        clock.seconds += 3
        ask(0)
        clock.seconds = 54.9995
        assert c.leases.asks() == []
        clock.seconds += 0.001
        c.leases.look_in()
        assert c.capacity("default") == 1
        await c.close(deadline=1)

    run(loop, main())
