"""One load test from its start to its result: sink, metrics, steps or search, drain."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random

from everpost.clock import Clock
from everpost.loadtest.far_sink import Source
from everpost.loadtest.feed import FeedReader
from everpost.loadtest.generator import Generator, Target
from everpost.loadtest.measure import Measure
from everpost.loadtest.mix import Kind, Mix
from everpost.loadtest.objective import Objective, Search, Trial, generator_fell_behind, judge
from everpost.loadtest.plan import MOST_SECONDS, Arrivals, Step
from everpost.loadtest.stages import Reading
from everpost.net.http import HttpError, Origin, request

__all__ = ["NotReachable", "Outcome", "Setup", "run"]

_PROGRESS_S = 0.5
_LOOK_S = 0.02
_SETTLE_S = 1.5
"""The server's processes share their metrics once a second."""
_LAST_S = 2.0
"""After an interruption: for the answers and arrivals that are on their way."""


class NotReachable(Exception):
    """Nobody answers at the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to do. With `search`, `steps` are the warm-up only, and each trial lasts `trial_s`.
    `sink` makes where arrivals are heard of, None: nowhere. `metrics` None: not read."""

    run: str
    target: Target
    kinds: Sequence[Kind]
    steps: Sequence[Step]
    arrivals: Arrivals
    objective: Objective
    messages: int
    drain_s: float
    search: Search | None = None
    trial_s: float = 5.0
    sink: Source | None = None
    metrics: Origin | None = None
    metrics_path: str = "/metrics"


@dataclass(slots=True)
class Outcome:
    """What came of it. `started`: wall clock, milliseconds since 1970."""

    measure: Measure
    started: int
    seconds: float = 0.0
    drained_s: float = 0.0
    interrupted: bool = False
    before: Reading | None = None
    after: Reading | None = None
    same_clock: bool = True
    most_connections: int = 0
    most_waiting: int = 0
    notes: list[str] = field(default_factory=list)


Progress = Callable[[Measure, str], None]
"""Called twice a second with what was measured so far and what is being done."""


async def run(setup: Setup, *, clock: Clock, chance: Random, progress: Progress) -> Outcome:
    """Run the test. SIGINT ends it early, with what was measured; a second one at once. Raises
    NotReachable, NoSink."""
    test = _Test(setup, clock=clock, chance=chance, progress=progress)
    return await test.run()


class _Test:
    def __init__(self, setup: Setup, *, clock: Clock, chance: Random, progress: Progress) -> None:
        self._setup = setup
        self._clock = clock
        self._progress = progress
        now = clock.monotonic()
        self._measure = Measure(setup.run, began=now, arrivals=setup.sink is not None)
        self._generator = Generator(
            setup.target,
            Mix(setup.kinds, run=setup.run, chance=chance),
            self._measure,
            clock=clock,
            chance=chance,
            arrivals=setup.arrivals,
            most=setup.messages,
        )
        self._outcome = Outcome(self._measure, clock.now())
        self._doing = "starting"
        self._enough = asyncio.Event()

    async def run(self) -> Outcome:
        setup, outcome = self._setup, self._outcome
        reader = FeedReader(
            self._measure.has_arrived,
            wall_minus_monotonic=self._clock.now() / 1000 - self._clock.monotonic(),
        )
        async with AsyncExitStack() as stack:
            if setup.sink is not None:
                await stack.enter_async_context(setup.sink(reader))
            outcome.before = await self._read_metrics()
            stack.push_async_callback(self._generator.close)
            try:
                await self._generator.open()
            except OSError as error:
                raise NotReachable(error.strerror or str(error) or "timed out") from error
            stack.enter_context(self._interruptible())
            stack.enter_context(_without_garbage_collection())
            await stack.enter_async_context(self._telling())
            await self._work()
            await self._generator.close()
            outcome.after = await self._read_metrics(later=outcome.before is not None)
        outcome.seconds = self._clock.monotonic() - self._measure.began
        outcome.interrupted = self._generator.stopped
        outcome.same_clock = reader.same_machine
        outcome.most_connections = self._generator.most_connections
        outcome.most_waiting = self._generator.most_waiting
        return outcome

    # -- steps -------------------------------------------------------------------------------------

    async def _work(self) -> None:
        self._measure.began = at = self._clock.monotonic()
        for n, step in enumerate(self._setup.steps, 1):
            if self._generator.stopped:
                break
            count = f"step {n} of {len(self._setup.steps)}"
            self._doing = f"{count if step.measured else 'warm-up'}: {step.label}"
            await self._generator.play(step, at)
            at += step.seconds
        if self._setup.search is not None:
            await self._find(self._setup.search)
        await self._drain()

    async def _find(self, search: Search) -> None:
        """Try the rates that `search` asks for, each with nothing left of the one before."""
        await self._drain()
        while (rate := search.next()) is not None and not self._generator.stopped:
            step = Step.steady(rate, self._setup.trial_s)
            if self._measure.planned + step.messages > self._setup.messages:
                search.stop(f"the next rate would exceed {self._setup.messages} messages")
                return
            if self._clock.monotonic() - self._measure.began + step.seconds > MOST_SECONDS:
                search.stop(f"{MOST_SECONDS:g} s are over")
                return
            self._doing = f"trial {len(search.trials) + 1}: {step.label}"
            tally = await self._generator.play(step, self._clock.monotonic())
            drained = await self._drain()
            if self._generator.stopped:
                search.stop("interrupted")
                return
            missed = tuple(judge(tally, self._setup.objective))
            search.note(Trial(rate, missed, by_generator=generator_fell_behind(tally)))
            if not drained and search.next() is not None:
                search.stop(f"not all mail of {step.label} arrived in {self._setup.drain_s:g} s")
                return

    async def _drain(self) -> bool:
        """Wait for answers, then for arrivals; whether all have come."""
        measure, generator, doing = self._measure, self._generator, self._doing
        await self._until(lambda: generator.quiet, self._setup.target.timeout + 1)
        if not measure.arrivals:
            return True
        began = self._clock.monotonic()
        self._doing = "waiting for mail to arrive"
        await self._until(lambda: measure.backlog <= 0, self._setup.drain_s)
        self._doing = doing
        self._outcome.drained_s = self._clock.monotonic() - began
        return measure.backlog <= 0

    async def _until(self, done: Callable[[], bool], within: float) -> None:
        """Wait so many seconds at most, and after an interruption a last moment only."""
        deadline = self._clock.monotonic() + within
        while not done() and not self._enough.is_set():
            now = self._clock.monotonic()
            if self._generator.stopped:
                deadline = min(deadline, now + _LAST_S)
            if now >= deadline:
                return
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._enough.wait()
            except TimeoutError:
                pass

    # -- around them -------------------------------------------------------------------------------

    async def _read_metrics(self, *, later: bool = False) -> Reading | None:
        """The server's metrics now; `later`: when its processes have shared the last ones."""
        origin = self._setup.metrics
        if origin is None:
            return None
        if later:
            self._doing = "reading the server's metrics"
            await asyncio.sleep(_SETTLE_S)
        try:
            answer = await asyncio.to_thread(
                request, origin, "GET", path=self._setup.metrics_path, timeout_s=10.0
            )
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            return Reading(answer.body.decode())
        except (HttpError, ValueError) as error:
            self._outcome.notes.append(
                f"No stage timings: {origin}{self._setup.metrics_path}: {error}; say --metrics URL"
            )
            return None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            if self._generator.stopped:
                self._enough.set()
            self._generator.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    @asynccontextmanager
    async def _telling(self) -> AsyncIterator[None]:
        async def tell() -> None:
            while True:
                self._progress(self._measure, self._doing)
                await asyncio.sleep(_PROGRESS_S)

        task = asyncio.create_task(tell())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A full collection stops the generator for tens of milliseconds, which would be measured as
    the server's; what is made here holds no cycles worth collecting."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
