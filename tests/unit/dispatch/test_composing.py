"""Who composes beside whom: a suspect never beside anybody, and nobody waits for ever."""

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from everpost.dispatch.composing import Composing


class Scene:
    """Tasks that enter, and leave when they are told to."""

    def __init__(self) -> None:
        self.composing = Composing()
        self.inside: list[int] = []
        self.order: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.suspects: set[int] = set()
        self._leave: list[asyncio.Event] = []

    def enter(self, *, alone: bool) -> None:
        n = len(self.tasks)
        self._leave.append(asyncio.Event())
        if alone:
            self.suspects.add(n)
        self.tasks.append(asyncio.create_task(self._compose(n, alone=alone)))

    async def _compose(self, n: int, *, alone: bool) -> None:
        if not self.composing.entered(alone=alone):
            await self.composing.turn(alone=alone)
        try:
            self.inside.append(n)
            self.order.append(n)
            assert len(self.inside) == 1 or not self.suspects & set(self.inside)
            try:
                await self._leave[n].wait()
            finally:
                self.inside.remove(n)
        finally:
            self.composing.leave()

    def leave(self, n: int) -> None:
        self._leave[n].set()

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)


def test_a_suspect_composes_beside_others() -> None:
    async def run() -> None:
        scene = Scene()
        for alone in (False, False, True, False):
            scene.enter(alone=alone)
        await scene.settle()
        assert scene.inside == [0, 1]  # the last may not pass the suspect
        scene.leave(0)
        await scene.settle()
        assert scene.inside == [1]
        scene.leave(1)
        await scene.settle()
        assert scene.inside == [2]
        scene.leave(2)
        await scene.settle()
        assert scene.inside == [3]
        scene.leave(3)
        await asyncio.gather(*scene.tasks)

    asyncio.run(run())


def test_one_is_cancelled_while_another_leaves() -> None:
    """Its turn comes after it was cancelled, and before it has noticed."""

    async def run() -> None:
        scene = Scene()
        for alone in (True, True, False):
            scene.enter(alone=alone)
        await scene.settle()
        scene.leave(0)
        scene.tasks[1].cancel()
        await scene.settle()
        assert scene.inside == [2]
        scene.leave(2)
        await asyncio.gather(*scene.tasks, return_exceptions=True)
        assert scene.tasks[0].exception() is None
        assert scene.tasks[2].exception() is None

    asyncio.run(run())


def test_one_that_is_let_in_and_cancelled_at_once_blocks_the_rest() -> None:
    async def run() -> None:
        scene = Scene()
        for alone in (True, True, False):
            scene.enter(alone=alone)
        await scene.settle()
        assert scene.inside == [0]
        scene.leave(0)
        while not scene.tasks[0].done():  # its leaving lets the next in, which has not run yet
            await asyncio.sleep(0)
            if scene.inside == []:
                scene.tasks[1].cancel()
                break
        await scene.settle()
        assert scene.inside == [2]
        scene.leave(2)
        await asyncio.gather(*scene.tasks, return_exceptions=True)
        assert scene.tasks[1].cancelled()

    asyncio.run(run())


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.booleans()),
        st.tuples(st.sampled_from(["leave", "cancel"]), st.integers(0, 9)),
    ),
    max_size=30,
)


@given(steps=_STEPS)
def test_somebody_waits_for_ever_or_beside_a_suspect(steps: Sequence[tuple[str, int]]) -> None:
    async def run() -> None:
        scene = Scene()
        for what, value in steps:
            if what == "enter":
                scene.enter(alone=bool(value))
            elif value < len(scene.tasks):
                if what == "leave":
                    scene.leave(value)
                else:
                    scene.tasks[value].cancel()
            if value % 2:
                await scene.settle()
        for n in range(len(scene.tasks)):
            scene.leave(n)
        async with asyncio.timeout(5):
            results = await asyncio.gather(*scene.tasks, return_exceptions=True)
        assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)
        for at, n in enumerate(scene.order):  # a suspect passes nobody, and nobody passes it
            if n in scene.suspects:
                assert all(other < n for other in scene.order[:at])
                assert all(other > n for other in scene.order[at + 1 :])

    asyncio.run(run())
