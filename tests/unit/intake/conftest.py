"""An intake with everything handed in, over a store that only remembers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from everpost.ids import IdMaker
from everpost.intake import Draft, Intake, Limits
from everpost.model.credential import SENDING_ACCESS, Credential
from everpost.model.message import Assurance, Content, NewMessage
from everpost.model.states import InDoubtPolicy
from everpost.store.directory import Directory, Snapshot
from everpost.store.interface import (
    Accepted,
    Catalog,
    Conflicting,
    DomainRow,
    IdempotencyKey,
    ProjectRow,
    RelayRow,
    Replayed,
    StoreUnavailable,
    StreamRow,
)

NOW = 1_795_435_200_000
"""2026-11-23 12:00:00 UTC, a Monday."""
MINE, THEIRS, PENDING, TRUSTED = b"m" * 16, b"t" * 16, b"p" * 16, b"w" * 16
DAY_MS = 86_400_000


class StoppedClock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> int:
        return self.at

    def steady(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / 1000


class OpenSealer:
    """Seals nothing, so that tests can look inside; remembers what it was asked."""

    def __init__(self) -> None:
        self.key = 7
        self.contexts: list[bytes] = []

    def seal(self, project: int, plaintext: bytes, *, context: bytes) -> tuple[int, bytes]:
        self.contexts.append(context)
        return self.key, plaintext

    def part_hash(self, project: int, day: int, content: bytes) -> bytes:
        return f"{project}/{day}/{len(content)}/".encode().ljust(32, b"#")


class Shelf:
    """The store's accepting slice, in memory: what intake asks for, not how a store does it."""

    def __init__(self) -> None:
        self.messages: list[NewMessage] = []
        self.keys: dict[tuple[int, str], IdempotencyKey] = {}
        self.full = False
        self.assurance = Assurance.COMMITTED

    async def accept(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Accepted | Replayed | Conflicting:
        if self.full:
            raise StoreUnavailable("disk full")
        if key is not None:
            first = self.keys.setdefault((project, key.key), key)
            if first.fingerprint != key.fingerprint:
                return Conflicting()
            if first is not key:
                return Replayed(first.answer)
        self.messages.extend(messages)
        return Accepted(self.assurance)

    async def answered(self, project: int, key: str) -> IdempotencyKey | None:
        return self.keys.get((project, key))


def _stream(project: int, name: str) -> StreamRow:
    return StreamRow(
        project=project,
        name=name,
        priority=name,
        in_doubt=InDoubtPolicy.RESEND,
        lifetime_ms=5 * DAY_MS,
        retry_first_ms=60_000,
        retry_cap_ms=3_600_000,
    )


def _domain(id_: bytes, name: str, *, project: int = 1, **changes: Any) -> DomainRow:
    row = DomainRow(
        id=id_,
        project=project,
        name=name,
        status="verified",
        signing="sign",
        trusted=False,
        created_at=0,
    )
    return msgspec.structs.replace(row, **changes)


def _relay() -> RelayRow:
    return RelayRow(
        id=b"r" * 16,
        name="r",
        host="relay.test",
        port=25,
        state="enabled",
        settings={},
        key_id=0,
        password=None,
        created_at=0,
    )


def catalog() -> Snapshot:
    """Two tenants with a verified domain each, a relay, both streams."""
    domains = (
        _domain(MINE, "example.com"),
        _domain(THEIRS, "tenant-b.test", project=2),
        _domain(PENDING, "pending.test", status="pending"),
        _domain(TRUSTED, "trusted.test", status="pending", trusted=True),
    )
    return Snapshot(
        revision=1,
        projects={n: ProjectRow(id=n, name=str(n), sandbox=False, created_at=0) for n in (1, 2)},
        streams={
            (n, name): _stream(n, name) for n in (1, 2) for name in ("transactional", "broadcast")
        },
        domains={row.name: row for row in domains},
        relays=(_relay(),),
    )


@dataclass
class Desk:
    """One intake and all that it was given."""

    intake: Intake
    directory: Directory
    store: Shelf
    sealer: OpenSealer
    clock: StoppedClock
    strict: Shelf
    credential: Credential = field(
        default_factory=lambda: Credential(project=1, permission=SENDING_ACCESS, actor="test")
    )

    def catalog(self, **changes: Any) -> None:
        """Change the snapshot, as a refresh would."""
        self.directory.now = msgspec.structs.replace(self.directory.now, **changes)

    def prepare(self, draft: Draft, **credential: Any) -> NewMessage:
        asking = msgspec.structs.replace(self.credential, **credential)
        return self.intake.prepare(asking, draft).message

    def content(self, draft: Draft, **credential: Any) -> Content:
        return opened(self.prepare(draft, **credential))


def opened(message: NewMessage) -> Content:
    """The content inside, decoded as dispatch does."""
    return msgspec.msgpack.decode(message.sealed, type=Content)


def draft(**changes: Any) -> Draft:
    """A draft that passes, with some fields changed."""
    plain = Draft(
        sender="Acme <news@example.com>", to=("a@good.test",), subject="Hello", text="Hi there"
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture(name="new_desk")
def _new_desk() -> Callable[..., Desk]:
    def make(gives: Assurance = Assurance.COMMITTED, **limits: Any) -> Desk:
        clock, sealer, store, strict = StoppedClock(), OpenSealer(), Shelf(), Shelf()
        directory = Directory(cast(Catalog, None))
        directory.now = catalog()
        intake = Intake(
            store=store,
            directory=directory,
            sealer=sealer,
            clock=clock,
            ids=IdMaker(clock.now),
            randomness=lambda n: b"\x01" * n,
            limits=Limits(**limits),
            gives=gives,
            strict=strict,
        )
        return Desk(intake, directory, store, sealer, clock, strict)

    return make


@pytest.fixture(name="desk")
def _desk(new_desk: Callable[..., Desk]) -> Desk:
    return new_desk()
