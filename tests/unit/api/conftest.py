"""The whole door over real rooms and a store that only remembers."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from everpost import ids
from everpost.access import OPERATOR, Access
from everpost.api import (
    Admission,
    AdmissionLimits,
    ApiLimits,
    App,
    Services,
    build_admin,
    build_api,
    build_operator,
)
from everpost.catalog import (
    ApiKeys,
    Applier,
    Domains,
    NewPool,
    NewRelay,
    NewRoute,
    Pools,
    Projects,
    Relays,
    Routes,
    Streams,
)
from everpost.ids import Id, IdMaker
from everpost.intake import Intake, Limits
from everpost.model.credential import SENDING_ACCESS, Credential
from everpost.model.errors import Conflict
from everpost.model.message import Assurance, Content, Durability, NewMessage
from everpost.model.outcome import AttemptRecord
from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.monitoring import Facts, Health
from everpost.net.resolver import Absent, Answer, Found
from everpost.store.cluster import NodeRow, StoreState
from everpost.store.directory import Directory
from everpost.store.interface import (
    Accepted,
    ApiKeyRow,
    AttemptRow,
    Change,
    Conflicting,
    DkimKeyRow,
    DomainRow,
    EventRow,
    IdempotencyKey,
    MessageRow,
    Note,
    PoolRow,
    ProjectRow,
    QueueFacts,
    RecipientRow,
    RelayRow,
    Replayed,
    RouteRow,
    Store,
    StoreCorrupt,
    StoreUnavailable,
    StreamRow,
    WorkerRow,
)

NOW = 1_795_435_200_000
"""2026-11-23 12:00:00 UTC."""
DAY_MS = 86_400_000

Row = ProjectRow | StreamRow | ApiKeyRow | DomainRow | DkimKeyRow | RelayRow | PoolRow | RouteRow


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
    """Seals nothing."""

    def seal(self, project: int, plaintext: bytes, *, context: bytes) -> tuple[int, bytes]:
        return 1, plaintext

    def unseal(self, key_id: int, sealed: bytes, *, context: bytes) -> bytes:
        return sealed

    def part_hash(self, project: int, day: int, content: bytes) -> bytes:
        return content[:32].ljust(32, b"#")


class Shelf:
    """Every slice of the store that this door reaches, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Any, Any]] = {}
        self.messages_: list[NewMessage] = []
        self.cancelled: set[Id] = set()
        self.held: set[Id] = set()
        self.moved: dict[Id, int] = {}
        self.keys: dict[tuple[int, str], IdempotencyKey] = {}
        self.audits: list[dict[str, Any]] = []
        self.notes: list[Note] = []
        self.there: list[NodeRow] = []
        self.standing = StoreState()
        self.full = False
        self.broken = False
        self.damaged = False
        self.accepts = 0
        self.hold_accepts: asyncio.Event | None = None
        self.entered: asyncio.Event | None = None
        self._revision = 1

    # accepting
    async def accept(
        self, project: int, messages: Sequence[NewMessage], key: IdempotencyKey | None = None
    ) -> Accepted | Replayed | Conflicting:
        if self.entered is not None:
            self.entered.set()
        if self.hold_accepts is not None:
            await self.hold_accepts.wait()
        if self.full:
            raise StoreUnavailable("disk full")
        if self.damaged:
            raise StoreCorrupt("a path of this machine")
        if self.broken:
            raise RuntimeError("secret-detail")
        if key is not None:
            first = self.keys.setdefault((project, key.key), key)
            if first.fingerprint != key.fingerprint:
                return Conflicting()
            if first is not key:
                return Replayed(first.answer)
        self.accepts += 1
        self.messages_.extend(messages)
        return Accepted()

    async def answered(self, project: int, key: str) -> IdempotencyKey | None:
        return self.keys.get((project, key))

    # catalog
    async def revision(self) -> int:
        return self._revision

    def _all(self, kind: type) -> list[Any]:
        return list(self.rows.get(kind.__name__, {}).values())

    async def projects(self) -> Sequence[ProjectRow]:
        return self._all(ProjectRow)

    async def streams(self) -> Sequence[StreamRow]:
        return self._all(StreamRow)

    async def api_keys(self) -> Sequence[ApiKeyRow]:
        return self._all(ApiKeyRow)

    async def domains(self) -> Sequence[DomainRow]:
        return self._all(DomainRow)

    async def dkim_keys(self) -> Sequence[DkimKeyRow]:
        return self._all(DkimKeyRow)

    async def relays(self) -> Sequence[RelayRow]:
        return self._all(RelayRow)

    async def pools(self) -> Sequence[PoolRow]:
        return self._all(PoolRow)

    async def routes(self) -> Sequence[RouteRow]:
        return sorted(self._all(RouteRow), key=lambda row: row.position)

    async def change(self, changes: Sequence[Change], *, actor: str) -> None:
        for one in changes:
            if one.row is not None:
                await self.put(one.row, actor=actor, action=one.action)
            elif one.drop is not None:
                await self.drop(*one.drop, actor=actor, action=one.action)

    async def noted(self, kinds: Sequence[str], *, after: int = 0) -> tuple[int, Sequence[Note]]:
        return 0, [note for note in self.notes if note.kind in kinds]

    async def put(self, row: Row, *, actor: str, action: str) -> None:
        kind = type(row).__name__
        id_ = (row.project, row.name) if isinstance(row, StreamRow) else row.id
        if isinstance(row, DomainRow | RelayRow):
            for other in self._all(type(row)):
                if other.name == row.name and other.id != row.id:
                    raise Conflict(f"{row.name} exists already.")
        self.rows.setdefault(kind, {})[id_] = row
        self._audit(actor, action, kind)

    async def drop(self, kind: str, id_: Id, *, actor: str, action: str) -> bool:
        name = {
            "api_key": "ApiKeyRow", "domain": "DomainRow", "relay": "RelayRow", "pool": "PoolRow",
            "route": "RouteRow",
        }[kind]  # fmt: skip
        gone = self.rows.get(name, {}).pop(id_, None) is not None
        self._audit(actor, action, kind)
        return gone

    def _audit(self, actor: str, action: str, kind: str) -> None:
        self._revision += 1
        self.audits.insert(
            0,
            {"position": self._revision, "at": NOW, "actor": actor, "action": action,
             "kind": kind, "object": "x", "detail": {}},
        )  # fmt: skip

    async def audit(
        self, *, limit: int, after: int | None = None, before: int | None = None
    ) -> Sequence[Mapping[str, Any]]:
        if before is not None:
            return [row for row in self.audits if row["position"] > before][-limit:]
        return [r for r in self.audits if after is None or r["position"] < after][:limit]

    async def nodes(self) -> Sequence[NodeRow]:
        return self.there

    async def appear(self, node: NodeRow) -> None:
        self.there.append(node)

    async def disappear(self, name: str) -> None:
        self.there = [node for node in self.there if node.name != name]

    def state(self) -> StoreState:
        return self.standing

    async def workers(self) -> Sequence[WorkerRow]:
        return [
            WorkerRow(
                id=bytes(16), role=role, pid=pid, boot="b", dots="d", started_at=NOW, seen_at=NOW
            )
            for role, pid in (("dispatch", 7), ("later", 8))
        ]

    # reading
    def _find(self, project: int, id_: Id) -> NewMessage | None:
        return next((m for m in self.messages_ if m.id == id_ and m.project == project), None)

    def _row(self, m: NewMessage) -> MessageRow:
        state = State.CANCELLED if m.id in self.cancelled else State.QUEUED
        return MessageRow(
            id=m.id, project=m.project, stream=m.stream, created_at=NOW, message_id=m.message_id,
            sender=m.sender, subject=m.subject, to=m.to, cc=m.cc, bcc=m.bcc, reply_to=m.reply_to,
            tags=m.tags, metadata=m.metadata, scheduled_at=m.scheduled_at, expires_at=m.expires_at,
            in_doubt=m.in_doubt, dialect=m.dialect, sandbox=m.sandbox, durability="committed",
            size=m.size, key_id=m.key_id, content_id=m.id, sealed=m.sealed,
            recipients=[
                RecipientRow(
                    n=n, address=r.address, destination=r.destination, kind=r.kind, state=state,
                    reason=None, route="r", attempts=0,
                    not_before=self.moved.get(m.id, m.not_before), expires_at=m.expires_at,
                    settled_at=None, via=None,
                )
                for n, r in enumerate(m.recipients)
            ],
        )  # fmt: skip

    async def message(self, project: int, message: Id) -> MessageRow | None:
        found = self._find(project, message)
        return None if found is None else self._row(found)

    async def messages(
        self,
        project: int,
        *,
        limit: int,
        after: Id | None = None,
        before: Id | None = None,
        sandbox: bool | None = None,
    ) -> tuple[Sequence[MessageRow], bool]:
        mine = [
            m
            for m in sorted(self.messages_, key=lambda m: m.id, reverse=True)
            if m.project == project
            and sandbox in (None, m.sandbox)
            and (after is None or m.id < after)
            and (before is None or m.id > before)
        ]
        return [self._row(m) for m in mine[:limit]], len(mine) > limit

    async def attempts(self, project: int, message: Id) -> Sequence[AttemptRow]:
        outcome = {"type": "deferred", "reason": "busy", "reply": {"code": 451, "text": "later"}}
        record = AttemptRecord(started_at=NOW, ended_at=NOW + 5, relay="r", timings={"dot": 1.5})
        return [AttemptRow(n=0, attempt=1, outcome=outcome, record=record)]

    async def events(self, project: int, message: Id) -> Sequence[EventRow]:
        later = {"next_attempt_at": NOW + 60_000, "attempt": 1, "reason": "busy"}
        return [
            EventRow(message=message, seq=seq, n=n, type=type_, at=NOW, data=data)
            for seq, n, type_, data in (
                (1, None, "accepted", {}),
                (2, 0, "deferred", later),
                (3, None, "rescheduled", {"at": NOW + 1}),
                (4, 0, "other", {"at": "elsewhere", "next_attempt_at": None}),
            )
        ]

    async def facts(self) -> QueueFacts:
        return QueueFacts(
            states={"queued": len(self.messages_)}, accepted=len(self.messages_), due=1,
            oldest_due_ms=1500,
        )  # fmt: skip

    # controls
    async def cancel(self, project: int, message: Id) -> int:
        found = self._find(project, message)
        if found is None or found.id in self.cancelled:
            return 0
        self.cancelled.add(found.id)
        return len(found.recipients)

    async def reschedule(self, project: int, message: Id, at: int) -> int:
        found = self._find(project, message)
        if found is None or found.id in self.cancelled:
            return 0
        self.moved[found.id] = at
        return len(found.recipients)

    async def hold(self, project: int, message: Id, reason: HeldReason) -> int:
        found = self._find(project, message)
        if found is None or found.id in self.held:
            return 0
        self.held.add(found.id)
        return len(found.recipients)

    async def release(self, project: int, message: Id) -> int:
        found = self._find(project, message)
        if found is None or found.id not in self.held:
            return 0
        self.held.remove(found.id)
        return len(found.recipients)


class NoRecords:
    """DNS without records, but for `texts` that a test sets."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    async def txt(self, name: str, *, fresh: bool = False) -> Answer:
        text = self.texts.get(name)
        return Absent("nxdomain") if text is None else Found((text,), 60)


class Captured:
    """The sandbox's composed messages."""

    async def raw(self, credential: Credential, message: Id) -> bytes:
        return b"Subject: caught\r\n\r\nbody\xff\r\n"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self.headers
        return json.loads(self.body)


@dataclass
class Door:
    """The applications, and what is behind them."""

    services: Services
    store: Shelf
    directory: Directory
    facts: dict[str, Any]
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api = build_api(self.services)
        self.admin = build_admin(self.services)
        self.operator = build_operator(self.services)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "full",
        headers: Mapping[str, str] | None = None,
        app: App | None = None,
        chunks: Sequence[bytes] | None = None,
    ) -> Reply:
        """One request, straight to the application."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if key is not None:
            given.setdefault("authorization", f"Bearer {self.tokens.get(key, key)}")
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        pieces = list(chunks) if chunks is not None else [data]
        if chunks is None and data:
            given.setdefault("content-length", str(len(data)))
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
        return asyncio.run(call(app or self.api, method, path, pairs, pieces))

    def send(self, **fields: Any) -> Any:
        """The id of one accepted email."""
        answer = self.ask("POST", "/emails", email(**fields))
        assert answer.status == 200, answer.body
        return answer.json["id"]


async def call(
    app: App,
    method: str,
    path: str,
    headers: Sequence[tuple[bytes, bytes]],
    pieces: Sequence[bytes],
) -> Reply:
    """Speak ASGI as uvicorn does."""
    raw, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": raw, "raw_path": raw.encode(),
        "query_string": query.encode(), "headers": list(headers),
    }  # fmt: skip
    left = list(pieces)
    sent: list[Any] = []

    async def receive() -> Any:
        if not left:
            return {"type": "http.disconnect"}
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, end = sent
    names = {name.decode(): value.decode() for name, value in start["headers"]}
    assert int(names["content-length"]) == len(end["body"])
    return Reply(start["status"], names, end["body"])


def email(**fields: Any) -> dict[str, Any]:
    """An email that passes, with some fields changed; None removes one."""
    plain = {
        "from": "Acme <news@example.com>",
        "to": ["a@good.test"],
        "subject": "Hello",
        "text": "Hi there",
    }
    fields = {("from" if name == "sender" else name): value for name, value in fields.items()}
    return {name: value for name, value in {**plain, **fields}.items() if value is not None}


async def _furnish(door: Door) -> None:
    """Two tenants with a verified domain each, a relay, keys."""
    store = door.store
    for n in (1, 2):
        await store.put(
            ProjectRow(id=n, name=str(n), sandbox=False, created_at=0), actor="t", action="t"
        )
        for name in ("transactional", "broadcast"):
            stream = StreamRow(
                project=n, name=name, priority=name, in_doubt=InDoubtPolicy.RESEND,
                lifetime_ms=5 * DAY_MS, retry_first_ms=60_000, retry_cap_ms=3_600_000,
            )  # fmt: skip
            await store.put(stream, actor="t", action="t")
    await door.directory.refresh()
    tenant = msgspec.structs.replace(OPERATOR, project=2, operator=False)
    for credential, name in ((OPERATOR, "example.com"), (tenant, "tenant-b.test")):
        row = (await door.services.domains.add(credential, name)).row
        await store.put(
            msgspec.structs.replace(row, status="verified"), actor="t", action="domain.verify"
        )
    await door.services.relays.add(
        OPERATOR, NewRelay(url="smtp://user:hunter2@relay.test:2525", name="first")
    )
    await door.services.pools.add(OPERATOR, NewPool(name="main", tiers=[["first"]]))
    await door.services.routes.add(OPERATOR, NewRoute(name="way", pool="main", tag="kind"))
    keys = door.services.api_keys
    _, door.tokens["full"] = await keys.create(OPERATOR, "full")
    _, door.tokens["sending"] = await keys.create(OPERATOR, "s", permission=SENDING_ACCESS)
    _, door.tokens["sandbox"] = await keys.create(OPERATOR, "box", sandbox=True)
    _, door.tokens["tenant"] = await keys.create(tenant, "full")
    await door.directory.refresh()


def new_door(
    durability: Durability = Durability.COMMITTED,
    *,
    admission: Admission | None = None,
    **limits: Any,
) -> Door:
    clock, store = StoppedClock(), Shelf()
    sealer: Any = OpenSealer()
    shelf = cast(Store, store)
    directory = Directory(shelf)
    make_id = IdMaker(clock.now)
    facts: dict[str, Any] = {
        "store_writable": True, "free_bytes": 1 << 40, "relays": 1, "sandbox": False,
    }  # fmt: skip

    async def gather() -> Facts:
        return Facts(**facts)

    async def exposition() -> bytes:
        return b"# metrics\n"

    def read_content(row: MessageRow) -> Content:
        assert row.sealed is not None
        return msgspec.msgpack.decode(row.sealed, type=Content)

    services = Services(
        intake=Intake(
            store=shelf, directory=directory, sealer=sealer, clock=clock, ids=make_id,
            randomness=lambda n: b"\x01" * n, limits=Limits(),
            gives=Assurance(durability.value),
        ),
        access=Access(directory, clock),
        store=shelf,
        controls=shelf,
        api_keys=ApiKeys(shelf, directory, clock=clock, ids=make_id),
        domains=Domains(
            shelf, directory, sealer=sealer, clock=clock, ids=make_id, resolver=NoRecords(),
            make_key=lambda algorithm: (b"der", "cHVibGlj"),
        ),
        relays=Relays(shelf, directory, sealer=sealer, clock=clock, ids=make_id),
        pools=Pools(shelf, directory, clock=clock, ids=make_id),
        routes=Routes(shelf, directory, clock=clock, ids=make_id),
        streams=Streams(shelf, directory),
        projects=Projects(shelf, directory),
        applier=Applier(shelf, directory, sealer=sealer, clock=clock, ids=make_id),
        sandbox=Captured(),
        directory=directory,
        health=Health(gather, clock, fresh_for=0.0),
        clock=clock,
        ids=make_id,
        read_content=read_content,
        alarms=lambda: ("disk_low",),
        exposition=exposition,
        admission=admission
        or Admission(AdmissionLimits(), now=clock.monotonic, chance=lambda: 0.5),
        public_url="http://api.test",
        durability=durability,
        limits=ApiLimits(**limits),
    )  # fmt: skip
    door = Door(services, store, directory, facts)
    asyncio.run(_furnish(door))
    return door


@pytest.fixture(name="door")
def _door() -> Door:
    return new_door()


@pytest.fixture(name="make_door")
def _make_door() -> Callable[..., Door]:
    return new_door


@pytest.fixture(name="made_at")
def _made_at() -> str:
    return ids.text(bytes(16))
