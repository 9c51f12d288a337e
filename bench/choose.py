"""What it costs to choose a relay: a place in a pool's turns, taken and given back, in a process
whose relays all have mail in flight. No mail is sent."""

import asyncio
import random
import time

from bench.figures import WARM_UP, Figures, Work
from everpost.clock import SystemClock
from everpost.delivery.envelope import Envelope
from everpost.delivery.lane import Lane
from everpost.delivery.lanes import Lanes
from everpost.delivery.shaping import Shaper
from everpost.delivery.sites import lone
from everpost.ids import IdMaker
from everpost.model.outcome import Deferred
from everpost.model.relay import Relay

__all__ = ["run"]

_IN_FLIGHT = 2
"""A relay, on average."""
_TAKES_S = 0.05
_CHOICES = 20
"""For each message of the case: it takes a moment, and is to be measured well."""
_ANYWHERE = lone("")


def run(work: Work) -> Figures:
    """`destinations` of the work is the number of relays."""
    return asyncio.run(_choose(relays=work.destinations, count=work.messages * _CHOICES))


async def _choose(*, relays: int, count: int) -> Figures:
    clock, rng = SystemClock(), random.Random(1)
    ids = IdMaker(clock.now)
    lanes = Lanes(clock, Shaper(), random=rng.random)
    lanes.use(
        [Relay(id=ids(), name=f"r{n}", host="x", weight=rng.randint(1, 9)) for n in range(relays)],
        (),
    )
    envelope = Envelope("a@example.test", ("b@receiver.test",), ids())
    taken: list[Lane] = []

    async def choose(times: int) -> None:
        for _ in range(times):
            lane = await lanes.take(envelope, frozenset(), _ANYWHERE)
            assert lane is not None
            assert not isinstance(lane, Deferred)
            taken.append(lane)
            if len(taken) > _IN_FLIGHT * relays:
                lanes.give_back(taken.pop(rng.randrange(len(taken))), _ANYWHERE, envelope)

    for lane in lanes:
        lane.meter.worked(_TAKES_S * rng.random(), now=clock.monotonic())
    await choose(WARM_UP + _IN_FLIGHT * relays)
    began, cpu = time.perf_counter(), time.process_time()
    await choose(count)
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    return Figures(
        messages=count,
        accepted_per_s=count / seconds,
        delivered_per_s=count / seconds,
        cpu_s_per_1000=spent / count * 1000,
        peak_mb=0.0,  # of this process, which is nobody's
        generator_cpu_s_per_1000=0.0,
        sink_cpu_s_per_1000=0.0,
    )
