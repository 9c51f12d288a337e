"""Draft to durable message: `prepare` decides (no I/O), `accept` does.

Everything that the composed bytes depend on is fixed here: Message-ID, Date, boundary seed.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.compose import CannotCompose, check, estimate_size
from everpost.ids import Id, day, text
from everpost.intake import demands, fields, parties, schedule
from everpost.intake.attachments import attachments
from everpost.intake.draft import Draft
from everpost.intake.limits import Limits
from everpost.intake.plaintext import plain_text
from everpost.model.address import destination, parse_mailbox, shown
from everpost.model.credential import Credential
from everpost.model.errors import Conflict, Invalid, Missing, Unavailable
from everpost.model.message import Address, Assurance, Content, NewMessage, Priority
from everpost.model.states import InDoubtPolicy
from everpost.security import SealingError
from everpost.store.directory import Directory
from everpost.store.interface import (
    Accepted,
    Accepting,
    Conflicting,
    IdempotencyKey,
    Replayed,
    StoreCorrupt,
    StoreUnavailable,
    StreamRow,
)

__all__ = ["Intake", "Prepared", "Receipt", "SealerLike", "for_relay"]

_ACCEPTED = telemetry.counter(
    "everpost_intake_accepted_total", "Messages made durable", ("stream",)
)
_REPLAYED = telemetry.counter(
    "everpost_intake_replayed_total", "Requests answered with the first answer to their key"
)
_PREPARE = telemetry.histogram("everpost_intake_prepare_seconds", "Checking and sealing a message")
_COMMIT = telemetry.histogram("everpost_intake_commit_seconds", "Making a request durable")

_CANNOT_SEAL = telemetry.alarm("content_cannot_be_sealed")

_DEFAULT_STREAM = "transactional"
_TOKEN_BYTES = 10

_RESTORED_S = 60
"""To come back to a damaged store after; an operator has to restore it first."""


class SealerLike(Protocol):
    """What intake needs of `security`: sealing, and the keyed hash that names a shared part."""

    def seal(self, project: int, plaintext: bytes, *, context: bytes) -> tuple[int, bytes]:
        """(key id, sealed bytes)."""
        ...

    def part_hash(self, project: int, day: int, content: bytes) -> bytes: ...


class Prepared(msgspec.Struct, frozen=True):
    """A message that passed every check and waits to be accepted. `least`: what its acceptance must
    mean, by its request, its stream or its project; None: whatever it can."""

    message: NewMessage
    least: Assurance | None = None


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to give, and where what it speaks of is safe."""

    answer: bytes
    assurance: Assurance


def for_relay(prepared: Prepared, relay: Id) -> Prepared:
    """The message for this one relay, whatever pool it would go to, and whatever its state."""
    message = msgspec.structs.replace(prepared.message, only=relay)
    return msgspec.structs.replace(prepared, message=message)


class Intake:
    """Checks, seals and accepts. One per process, used from one thread: its event loop's.

    `gives` is what a success of `strict` means; `store` may give less, for those who demand
    nothing. Without a `strict` they are the same.
    """

    def __init__(
        self,
        *,
        store: Accepting,
        directory: Directory,
        sealer: SealerLike,
        clock: Clock,
        ids: Callable[[], Id],
        randomness: Callable[[int], bytes],
        limits: Limits,
        gives: Assurance,
        strict: Accepting | None = None,
        idempotency_ms: int = 86_400_000,
    ) -> None:
        self._store = store
        self._strict = store if strict is None else strict
        self._directory = directory
        self._sealer = sealer
        self._clock = clock
        self._ids = ids
        self._randomness = randomness
        self._limits = limits
        self._gives = gives
        self._idempotency_ms = idempotency_ms
        self._encode = msgspec.msgpack.Encoder().encode
        self._permits = parties.Permits(directory.now)

    def prepare(self, credential: Credential, draft: Draft) -> Prepared:
        """The message that a draft asks for. Raises `model.errors` refusals; no I/O.

        A `scheduled_at` in English (`is_english`) takes up to 0.2 s the first time, about 1 ms
        later.
        """
        started = self._clock.monotonic()
        now = self._clock.now()
        project = credential.project
        permits = self._current()
        sender = parse_mailbox(draft.sender, field="from")
        sandbox = permits.sandbox(credential)
        if not sandbox:
            permits.check_sender(credential, destination(sender.address))
        stream = _stream(project, draft, permits)
        people = parties.gather(draft, self._limits)
        tags = fields.tags(draft.tags, self._limits)
        metadata = fields.metadata(draft.metadata, self._limits)
        in_doubt = _in_doubt(draft, stream)
        tenant = permits.snapshot.projects.get(project)
        least = demands.least(draft.durability, stream, tenant, gives=self._gives)
        due = self._due(draft, now)
        not_before = now if due is None else due
        expires_at = not_before + self._lifetime(draft, stream)
        id_ = self._ids()
        content, size = self._content(draft, sender, people, id_=id_, now=now)
        key_id, sealed, parts = self._sealed(project, id_, content)
        message = NewMessage(
            id=id_,
            project=project,
            stream=stream.name,
            priority=Priority(stream.priority),
            sealed=sealed,
            key_id=key_id,
            size=size,
            message_id=content.message_id,
            sender=shown(sender),
            subject=content.subject,
            to=parties.texts(people.to),
            recipients=people.recipients,
            not_before=not_before,
            expires_at=expires_at,
            in_doubt=in_doubt,
            return_token=self._randomness(_TOKEN_BYTES),
            cc=parties.texts(people.cc),
            bcc=parties.texts(people.bcc),
            reply_to=parties.texts(content.reply_to),
            tags=tags,
            metadata=metadata,
            parts=parts,
            scheduled_at=due,
            dialect=draft.dialect,
            api_key=credential.key,
            sandbox=sandbox,
        )
        _PREPARE.observe(self._clock.monotonic() - started)
        return Prepared(message, least)

    async def accept(
        self,
        credential: Credential,
        prepared: Sequence[Prepared],
        *,
        key: str | None = None,
        fingerprint: bytes = b"",
        answer: bytes,
    ) -> Receipt:
        """Make all of `prepared` durable at once, or nothing; the answer to give.

        That is `answer`, or the first answer when `key` and `fingerprint` came before. Raises
        Conflict when `key` came before with another fingerprint, Unavailable when the store cannot
        write now, or not as durably as one of them must be: then nothing was written, as far as the
        store knows.
        """
        started = self._clock.monotonic()
        record = None
        if key is not None:
            expires_at = self._clock.now() + self._idempotency_ms
            record = IdempotencyKey(key, fingerprint, answer, expires_at)
        least = next((each.least for each in prepared if each.least is not None), None)
        store = self._store if least is None else self._strict
        try:
            outcome = await store.accept(credential.project, [p.message for p in prepared], record)
        except (StoreUnavailable, StoreCorrupt) as error:
            raise _unavailable(error) from error
        match outcome:
            case Accepted(assurance=assurance):
                _COMMIT.observe(self._clock.monotonic() - started)
                for each in prepared:
                    _ACCEPTED.add(1, each.message.stream)
                return Receipt(answer, assurance)
            case Replayed(answer=first, assurance=assurance):
                _REPLAYED.add(1)
                return Receipt(first, assurance)
            case Conflicting():
                raise Conflict(
                    "This idempotency key was used before with a different request.",
                    name="invalid_idempotent_request",
                )

    async def answered(self, credential: Credential, key: str, fingerprint: bytes) -> bytes | None:
        """The first answer to this very request under `key`, if there was one. What is refused now
        (its `scheduled_at` has passed, its sender is gone) may have been accepted before (I7)."""
        try:
            first = await self._store.answered(credential.project, key)
        except (StoreUnavailable, StoreCorrupt) as error:
            raise _unavailable(error) from error
        if first is None or first.fingerprint != fingerprint:
            return None
        _REPLAYED.add(1)
        return first.answer

    def _current(self) -> parties.Permits:
        """What the newest snapshot permits; worked out again only when there is a newer one."""
        snapshot = self._directory.now
        if self._permits.snapshot is not snapshot:
            self._permits = parties.Permits(snapshot)
        return self._permits

    def _content(
        self, draft: Draft, sender: Address, people: parties.Parties, *, id_: Id, now: int
    ) -> tuple[Content, int]:
        """What the bytes depend on, and about how many bytes that will be."""
        limits = self._limits
        own_headers, replies = fields.headers(draft.headers, limits) if draft.headers else ((), ())
        reply_to = draft.reply_to or replies
        plain, html = _bodies(draft)
        content = Content(
            sender=sender,
            to=people.to,
            subject=fields.subject(draft.subject, limits),
            message_id=f"{text(id_)}@{destination(sender.address)}",
            date=now // 1000,
            boundary=id_.hex(),
            cc=people.cc,
            reply_to=parties.mailboxes(reply_to, limits, field="reply_to") if reply_to else (),
            text=plain,
            html=html,
            attachments=attachments(draft.attachments, limits) if draft.attachments else (),
            headers=own_headers,
        )
        size = estimate_size(content)
        if size > limits.message_bytes:
            raise Invalid(
                f"The message is larger than {limits.message_bytes} bytes.",
                name="message_too_large",
            )
        try:
            check(content)  # what was accepted must never turn out to be unwritable
        except CannotCompose as fault:
            raise Invalid(
                f"Invalid `{fault.field}` field. It is refused: {fault.reason}.", field=fault.field
            ) from None
        return content, size

    def _sealed(
        self, project: int, id_: Id, content: Content
    ) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
        """As `_seal`. A missing key is our own fault, and an operator's matter: Unavailable."""
        try:
            sealed = self._seal(project, id_, content)
        except SealingError as error:
            _CANNOT_SEAL.raise_(project=project, error=str(error))
            raise Unavailable("New mail cannot be stored now. Try again later.") from error
        except StoreCorrupt as error:  # waiting helps once an operator has restored it
            raise Unavailable(
                "New mail cannot be stored: the store is damaged.",
                name="store_corrupt",
                retry_after=_RESTORED_S,
            ) from error
        if _CANNOT_SEAL.raised:
            _CANNOT_SEAL.clear()
        return sealed

    def _seal(
        self, project: int, id_: Id, content: Content
    ) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
        """(key id, sealed content, large attachments as (keyed hash, sealed bytes))."""
        parts: dict[bytes, bytes] = {}
        keys = set()
        if content.attachments:
            kept = []
            for file in content.attachments:
                if len(file.content) >= self._limits.part_bytes:
                    hash_ = self._sealer.part_hash(project, day(id_), file.content)
                    if hash_ not in parts:
                        key, parts[hash_] = self._sealer.seal(project, file.content, context=hash_)
                        keys.add(key)
                    kept.append(msgspec.structs.replace(file, content=b"", part=hash_))
                else:
                    kept.append(file)
            content = msgspec.structs.replace(content, attachments=tuple(kept))
        key_id, sealed = self._sealer.seal(project, self._encode(content), context=id_)
        if keys - {key_id}:  # a message has one key id; the next try finds the new key settled
            raise Unavailable("A data key is being replaced. Try again.")
        return key_id, sealed, tuple(parts.items())

    def _due(self, draft: Draft, now: int) -> int | None:
        if draft.scheduled_at is None:
            return None
        return schedule.parse_when(draft.scheduled_at, now=now, days=self._limits.schedule_days)

    def _lifetime(self, draft: Draft, stream: StreamRow) -> int:
        """Milliseconds from the due time in which the message is tried."""
        if draft.expires_in is None:
            return stream.lifetime_ms
        lifetime = schedule.parse_duration(draft.expires_in, field="expires_in")
        if not self._limits.lifetime_floor_s * 1000 <= lifetime <= stream.lifetime_ms:
            raise Invalid(
                f"Invalid `expires_in` field. It lies between {self._limits.lifetime_floor_s} and "
                f"{stream.lifetime_ms // 1000} seconds, the lifetime of the stream.",
                field="expires_in",
            )
        return lifetime


def _bodies(draft: Draft) -> tuple[str | None, str | None]:
    """(text, html), at least one of them. Raises Missing."""
    plain = fields.body(draft.text, field="text") if draft.text else None
    html = fields.body(draft.html, field="html") if draft.html else None
    if plain is None and html is None:
        raise Missing("Missing `html` or `text` field.", field="html")
    if draft.text is None and html is not None:  # an empty text asks for HTML alone
        plain = plain_text(html) or None
    return plain, html


def _stream(project: int, draft: Draft, permits: parties.Permits) -> StreamRow:
    name = draft.stream or _DEFAULT_STREAM
    stream = permits.snapshot.streams.get((project, name))
    if stream is None:
        raise Invalid(f"Invalid `stream` field. There is no stream {name[:80]!a}.", field="stream")
    return stream


def _in_doubt(draft: Draft, stream: StreamRow) -> InDoubtPolicy:
    if draft.in_doubt is None:
        return stream.in_doubt
    try:
        return InDoubtPolicy(draft.in_doubt)
    except ValueError:
        raise Invalid(
            "Invalid `in_doubt` field. It is `resend`, `hold` or `fail`.", field="in_doubt"
        ) from None


def _unavailable(error: StoreUnavailable | StoreCorrupt) -> Unavailable:
    if isinstance(error, StoreUnavailable):
        return Unavailable("New mail cannot be stored now. Try again later.")
    return Unavailable(  # waiting helps once an operator has restored it
        "New mail cannot be stored: the store is damaged.",
        name="store_corrupt",
        retry_after=_RESTORED_S,
    )
