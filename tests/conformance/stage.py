"""A store with mail in many ways of being, which a test then damages behind the store's back."""

import asyncio
from collections.abc import Callable

from everpost.dispatch import decide
from everpost.dispatch.retry import RetryPolicy
from everpost.ids import Id
from everpost.ledger import Findings, check_store, walk
from everpost.model.outcome import Deferred, Delivered, InDoubt, Outcome, Phase, Reply, Speaker
from everpost.model.states import InDoubtPolicy
from everpost.store.interface import Claim, Settlement, Store, WorkerRow
from tests.conformance.engines import Engine
from tests.conformance.making import START, attempt, claims, make_id, message

__all__ = ["DELIVERED", "OWNER", "Stage", "on_a_stage", "settled"]

DELIVERED = Delivered(reply=Reply(code=250, text="ok", enhanced="2.0.0"))
DEFERRED = Deferred(reason="busy", phase=Phase.MAIL, speaker=Speaker.RELAY)
OWNER = make_id()
NOBODY = make_id()


def settled(claim: Claim, outcome: Outcome, in_doubt: InDoubtPolicy) -> Settlement:
    """As dispatch decides it."""
    return decide(
        claim,
        outcome,
        attempt(relay="r1"),
        policy=RetryPolicy(1_000, 2_000),
        in_doubt=in_doubt,
        now=START,
        jitter=0.5,
    )


class Stage:
    """A store with one message in each of many ways of being, by name."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self.engine = engine
        self.store = store
        self.ids: dict[str, Id] = {}

    async def fill(self) -> None:
        await self.store.register(
            WorkerRow(OWNER, "dispatch", 1, "boot", "dots-1.log", START, START)
        )
        await self._accept("delivered", "a@one.test", "b@one.test")
        await self._settle(DELIVERED)
        await self._accept("doubtful", "a@one.test")
        await self._settle(InDoubt(reason="cut"), InDoubtPolicy.HOLD)
        await self._accept("tried", "a@one.test", "b@two.test")
        await self._settle(DEFERRED)
        await self._accept("cancelled", "a@one.test")
        await self.store.cancel(1, self.ids["cancelled"])
        await self._accept("claimed", "a@one.test")
        await self.store.claim(OWNER, limit=9, lease_ms=60_000)
        await self._accept("queued", "a@one.test", "b@two.test", "c@two.test")

    async def _accept(self, name: str, *addresses: str) -> None:
        one = message(*addresses, parts=[(name.encode(), b"part of " + name.encode())])
        self.ids[name] = one.id
        await self.store.accept(1, [one])

    async def _settle(
        self, outcome: Outcome, in_doubt: InDoubtPolicy = InDoubtPolicy.RESEND
    ) -> None:
        taken = claims(await self.store.claim(OWNER, limit=9, lease_ms=60_000))
        assert taken
        assert all(await self.store.settle(OWNER, [settled(c, outcome, in_doubt) for c in taken]))

    def damage(self, sql: str) -> None:
        """Change rows behind the store's back. `:delivered` and the like are messages' ids."""
        assert self.engine.execute(sql, self.ids | {"nobody": NOBODY, "no_bytes": b"\0"})

    async def found(self) -> Findings:
        findings = Findings()
        checked = await walk(self.store, findings, limit=2)
        rest, _ = await check_store(self.store, findings)
        assert checked.complete
        assert rest.complete
        return findings


def on_a_stage(engine: Engine, scene: Callable[[Stage], object]) -> None:
    async def run() -> None:
        async with engine.opened() as store:
            stage = Stage(engine, store)
            await stage.fill()
            done = scene(stage)
            if asyncio.iscoroutine(done):
                await done

    asyncio.run(run())
