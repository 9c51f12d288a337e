"""Canaries round by round, with a real store and a mailbox that the test fills: what goes wrong on
our own side is never held against a relay, and nothing is forgotten when another process leads."""

import asyncio
import secrets
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from everpost import telemetry
from everpost.ids import IdMaker, text
from everpost.intake import Intake, Limits
from everpost.model.message import Assurance
from everpost.monitoring.canaries import Tally
from everpost.monitoring.canary import Canary
from everpost.net.mailbox import MailboxError
from everpost.store.directory import Directory
from everpost.store.interface import Claim, DomainRow, Note, RelayRow
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import START, HandClock, claims, delivered

IDS = IdMaker(lambda: START)
EVERY_S, WAIT_S = 60.0, 30.0


class OpenSealer:
    def seal(self, project: int, plaintext: bytes, *, context: bytes) -> tuple[int, bytes]:
        return 7, plaintext

    def part_hash(self, project: int, day: int, content: bytes) -> bytes:
        return content[:32]


class Post:
    """A store with one domain, and a mailbox: `inbox` holds the tokens that are in it; `broken`,
    why it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.store = SqliteStore(folder / "s.db", clock=self.clock)
        self.directory = Directory(self.store)
        self.inbox: set[str] = set()
        self.broken: str | None = None
        self.looks = 0

    async def __aenter__(self) -> "Post":
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def put(self, row: RelayRow | DomainRow) -> None:
        await self.store.put(row, actor="test", action="put")
        await self.directory.refresh()

    async def domain(self) -> None:
        await self.put(
            DomainRow(
                id=IDS(), project=1, name="own.test", status="verified", signing="unsigned",
                trusted=True, created_at=0,
            )
        )  # fmt: skip

    async def relay(self, name: str) -> RelayRow:
        row = RelayRow(
            id=IDS(), name=name, host="relay.test", port=25, state="enabled", settings={}, key_id=0,
            password=None, created_at=0,
        )  # fmt: skip
        await self.put(row)
        return row

    async def look(self, tokens: Collection[str]) -> Collection[str]:
        self.looks += 1
        if self.broken is not None:
            raise MailboxError(self.broken)
        found = self.inbox & set(tokens)
        self.inbox -= found
        return found

    def canary(self) -> Canary:
        return Canary(
            owner=IDS(),
            store=self.store,
            directory=self.directory,
            intake=Intake(
                store=self.store,
                directory=self.directory,
                sealer=OpenSealer(),
                clock=self.clock,
                ids=IDS,
                randomness=secrets.token_bytes,
                limits=Limits(),
                gives=Assurance.COMMITTED,
            ),
            look=self.look,
            token=lambda: secrets.token_hex(4),
            clock=self.clock,
            address="canary@box.test",
            every_s=EVERY_S,
            wait_s=WAIT_S,
        )

    async def taken(self) -> Sequence[Claim]:
        """Claim what is queued, and settle it as a relay that says yes would have it."""
        found = claims(await self.store.claim(b"w" * 16, limit=9, lease_ms=60_000))
        await self.store.settle(b"w" * 16, [delivered(claim) for claim in found])
        return found

    async def tally(self, relay: RelayRow) -> Tally:
        _, notes = await self.store.noted(("canary",))
        (data,) = [note.data for note in notes if note.key == text(relay.id)]
        return msgspec.convert(data, Tally)

    def arrive(self, tally: Tally) -> None:
        self.inbox |= set(tally.waiting)


def run(folder: Path, test: Callable[[Post], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), Post(folder) as post:
            await test(post)

    asyncio.run(main())


def _raised(name: str) -> bool:
    return telemetry.alarm(name).raised


def test_a_canary_is_pinned_to_its_relay_and_found_again(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.domain()
        relay = await post.relay("honest-1")
        canary = post.canary()
        await canary.round()
        found = await post.store.claim(b"w" * 16, limit=9, lease_ms=60_000)
        assert [(c.only, [x.address for x in c.claims]) for c in found] == [
            (relay.id, ["canary@box.test"])
        ]
        await post.store.settle(b"w" * 16, [delivered(claim) for claim in claims(found)])
        post.arrive(await post.tally(relay))
        post.clock.pass_(2_000)
        await canary.round()
        tally = await post.tally(relay)
        assert (tally.sent, tally.arrived, tally.lost, tally.delay_ms) == (1, 1, 0, 2_000)
        looks = post.looks
        await canary.round()
        assert post.looks == looks  # nobody waits for anything

    run(tmp_path, test)


def test_a_loss_is_told_to_the_process_that_leads_next(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.domain()
        relay = await post.relay("liar-1")
        first, second = post.canary(), post.canary()
        await first.round()
        await second.round()  # not its turn to lead
        await post.taken()
        post.clock.pass_(31_000)  # beyond the lease, and what is waited for a canary
        await second.round()
        assert (await post.tally(relay)).lost == 1
        assert _raised("relay_lies:liar-1")
        await first.round()  # the alarm is the other's now, and in this process it ends
        assert not _raised("relay_lies:liar-1")
        await second.round()
        assert _raised("relay_lies:liar-1")
        await post.store.drop("relay", relay.id, actor="test", action="drop")
        await post.directory.refresh()
        await second.round()
        assert not _raised("relay_lies:liar-1")

    run(tmp_path, test)


def test_a_mailbox_that_cannot_be_read_is_nobodys_lie(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.domain()
        relay = await post.relay("honest-2")
        canary = post.canary()
        await canary.round()
        await post.taken()
        post.broken = "no route to host"
        for _ in range(3):
            post.clock.pass_(60_000)
            await canary.round()
        tally = await post.tally(relay)
        assert (tally.sent, tally.lost) == (1, 0)  # and no further one is sent into the dark
        assert _raised("canary_failing")
        post.broken = None
        post.arrive(tally)
        await canary.round()
        assert (await post.tally(relay)).arrived == 1
        assert not _raised("canary_failing")

    run(tmp_path, test)


def test_a_canary_that_the_relay_never_took_is_nobodys_lie(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.domain()
        relay = await post.relay("slow-1")
        canary = post.canary()
        await canary.round()
        for _ in range(5):
            post.clock.pass_(59_000)
            await canary.round()
        assert (await post.tally(relay)).lost == 0
        assert not _raised("relay_lies:slow-1")

    run(tmp_path, test)


def test_without_a_verified_domain_an_operator_is_told(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.relay("any-1")
        canary = post.canary()
        await canary.round()
        assert _raised("canary_failing")
        await post.domain()
        await canary.round()
        assert not _raised("canary_failing")
        assert len(await post.taken()) == 1

    run(tmp_path, test)


def test_what_another_release_noted_is_passed_over(tmp_path: Path) -> None:
    async def test(post: Post) -> None:
        await post.domain()
        relay = await post.relay("any-2")
        other = await post.relay("any-3")
        odd = {"waiting": {"t": {"message": f"odd/{text(other.id)}", "at": post.clock.now()}}}
        ends = post.clock.now() + 60_000
        await post.store.note(
            [
                Note("canary", text(relay.id), {"waiting": 7}, ends),
                Note("canary", text(other.id), odd, ends),
            ]
        )
        await post.canary().round()
        assert (await post.tally(relay)).sent == 1

    run(tmp_path, test)
