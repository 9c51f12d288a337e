"""From sealed content to signed bytes, for the far end at hand.

Composing happens on the event loop (tens of microseconds); RSA signing, the dearest step of all,
in threads beside it, where OpenSSL works without the interpreter's lock.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Protocol

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.compose import (
    COMPOSER,
    CannotCompose,
    Composed,
    SigningKey,
    UnreadableKey,
    assemble,
    compose,
    form_for,
    load_key,
    sign,
)
from everpost.delivery import CannotRender, Render
from everpost.ids import Id, day
from everpost.model.message import Content, Form, Rendered
from everpost.model.outcome import Bounced, Deferred, Failed, Phase, Reply, Speaker
from everpost.model.relay import Relay
from everpost.protocol.smtp.extensions import Extensions
from everpost.security import UnknownKey, Unsealable
from everpost.store.directory import Directory
from everpost.store.interface import Claimed, DkimKeyRow, StoreCorrupt

__all__ = ["ContentDamaged", "Renderer"]

_COMPOSE = telemetry.histogram("everpost_compose_seconds", "Composing one message's bytes")
_SIGN = telemetry.histogram("everpost_sign_seconds", "DKIM signatures of one message")
_decode = msgspec.msgpack.Decoder(Content).decode

_SETTINGS_ALARMS = ("domain_missing", "dkim_key_missing", "dkim_key_unreadable")

_NEEDS_UTF8 = Bounced(
    reply=Reply(
        code=553,
        enhanced="5.6.7",
        text="An address needs SMTPUTF8, which the mail server does not offer (RFC 6531 §3.2)",
    ),
    phase=Phase.COMPOSE,
    speaker=Speaker.SELF,
)

Parts = Callable[[int, Sequence[tuple[int, bytes]]], Awaitable[Sequence[tuple[int, bytes]]]]
"""(project, [(day, keyed hash)]) -> [(key id, sealed)]."""

Contents = Callable[[Id], Awaitable[bytes]]
"""content id -> sealed."""


class Unsealing(Protocol):
    """What rendering needs of the sealer."""

    def unseal(self, key_id: int, sealed: bytes, *, context: bytes) -> bytes: ...


class Stored(Protocol):
    """Sealed content as the store hands it out, with a claim or to a reader."""

    @property
    def project(self) -> int: ...
    @property
    def key_id(self) -> int: ...
    @property
    def content_id(self) -> Id: ...


class ContentDamaged(Exception):
    """What is stored of a message is not what was accepted: sent it must not be, and waiting does
    not mend it (F9)."""


class Renderer:
    """Makes the render functions that dispatch hands to delivery."""

    def __init__(
        self,
        *,
        sealer: Unsealing,
        directory: Directory,
        contents: Contents,
        parts: Parts,
        threads: Executor,
        clock: Clock,
    ) -> None:
        self._sealer = sealer
        self._directory = directory
        self._contents = contents
        self._parts = parts
        self._threads = threads
        self._clock = clock
        self._keys: dict[Id, SigningKey] = {}
        self._revision = 0

    async def open(self, stored: Stored, sealed: bytes | None) -> Content:
        """The whole content; what `sealed` and its parts take is let go on the way. Raises
        ContentDamaged, or CannotRender when it cannot be read now: a key that is missing may come
        back, and another release may know what this one cannot decode."""
        try:
            if sealed is None:
                sealed = await self._contents(stored.content_id)
            content = self._unsealed(stored, sealed)
            del sealed
            if any(a.part is not None for a in content.attachments):
                content = await self._with_parts(stored, content)
        except (UnknownKey, msgspec.DecodeError) as error:
            telemetry.alarm("content_unreadable").raise_(
                content=stored.content_id, error=str(error)
            )
            raise _later("The stored content cannot be read; an operator must look") from error
        except (Unsealable, StoreCorrupt) as error:
            telemetry.alarm("content_corrupt").raise_(content=stored.content_id, error=str(error))
            raise ContentDamaged(str(error)) from error
        return content

    async def open_claimed(self, claimed: Claimed) -> Content:
        """As `open`; the sealed content must name the sender that the message's row names."""
        content = await self.open(claimed, claimed.sealed)
        sender = content.sender.address
        if claimed.sender != sender and not claimed.sender.endswith(f"<{sender}>"):
            telemetry.alarm("row_corrupt").raise_(message=claimed.message, error="sender")
            raise ContentDamaged("the message's row names another sender than its content")
        return content

    def _unsealed(self, stored: Stored, sealed: bytes) -> Content:
        return _decode(self._sealer.unseal(stored.key_id, sealed, context=stored.content_id))

    async def _with_parts(self, stored: Stored, content: Content) -> Content:
        """Fill in attachment bodies that are stored once for many messages, one after the other:
        together they may be as large as the message."""
        stored_on = day(stored.content_id)
        bodies: dict[bytes, bytes] = {}
        for part in dict.fromkeys(a.part for a in content.attachments if a.part is not None):
            ((key_id, sealed),) = await self._parts(stored.project, [(stored_on, part)])
            bodies[part] = self._sealer.unseal(key_id, sealed, context=part)
            del sealed
        return msgspec.structs.replace(
            content,
            attachments=tuple(
                msgspec.structs.replace(a, content=bodies[a.part], part=None)
                if a.part is not None
                else a
                for a in content.attachments
            ),
        )

    async def captured(self, stored: Stored, sealed: bytes) -> bytes:
        """What the sandbox shows: the bytes as they would have left, but never signed: whoever may
        read a capture could send it, and the sandbox lets anyone name any sender. Raises
        CannotRender, ContentDamaged."""
        content = await self.open(stored, sealed)
        form = form_for(
            content, eight_bit=False, smtputf8=True, needs_utf8=_headers_need_utf8(content)
        )
        composed, _ = self._compose(content, form)
        return assemble(composed)

    def for_message(self, claimed: Claimed, content: Content) -> Render:
        """The function from a far end's extensions to bytes; delivery calls it once a session."""
        domain = content.sender.address.rpartition("@")[2]
        in_headers = _headers_need_utf8(content)
        in_envelope = not all(c.address.isascii() for c in claimed.claims)

        async def render(extensions: Extensions, relay: Relay) -> Rendered:
            form = form_for(
                content,
                eight_bit=extensions.eight_bit and relay.eight_bit,
                smtputf8=extensions.smtputf8,
                # Without SMTPUTF8 delivery leaves such recipients out; the others need it not.
                needs_utf8=in_headers or (in_envelope and extensions.smtputf8),
            )
            composed, body_hash = self._compose(content, form)
            assert form is not None
            first = claimed.body_hashes.get(form.value)
            # Another composer version may write other bytes; only the same one must not.
            if first is not None and first[0] == COMPOSER and first != body_hash:
                telemetry.alarm("composer_not_deterministic").raise_(message=claimed.message)
                raise _later("The composed body differs from the first attempt's")
            signatures = b""
            if not claimed.sandbox:
                signatures = await self._sign(
                    composed, domain, project=claimed.project, headers=relay.signed_headers
                )
            return Rendered(data=assemble(composed, signatures), form=form, body_hash=body_hash)

        return render

    def _compose(self, content: Content, form: Form | None) -> tuple[Composed, bytes]:
        if form is None:
            raise CannotRender(_NEEDS_UTF8)
        started = time.perf_counter()
        try:
            composed = compose(content, form)
        except CannotCompose as error:
            raise CannotRender(
                Failed(reason=str(error), phase=Phase.COMPOSE, enhanced="5.6.0")
            ) from error
        body_hash = bytes((COMPOSER,)) + hashlib.sha256(composed.body).digest()
        _COMPOSE.observe(time.perf_counter() - started)
        return composed, body_hash

    async def _sign(
        self, composed: Composed, domain: str, *, project: int, headers: Sequence[str] | None
    ) -> bytes:
        self._forgive()
        row = self._directory.now.domains.get(domain)
        if row is None or row.project != project:
            telemetry.alarm("domain_missing").raise_(domain=domain)
            raise _later(f"The domain {domain} was removed: whether to sign is not known")
        if row.signing == "unsigned":
            return b""
        keys = self._signing_keys(domain, self._directory.now.dkim_keys.get(row.id, ()))
        started = time.perf_counter()
        at = self._clock.now() // 1000

        def work() -> bytes:
            return sign(composed, keys, at=at, headers=headers)

        if any(key.algorithm == "rsa-sha256" for key in keys):
            signatures = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        else:  # Ed25519 costs less than the way to a thread and back
            signatures = work()
        _SIGN.observe(time.perf_counter() - started)
        return signatures

    def _forgive(self) -> None:
        """New settings may have mended what an alarm is about; if not, it is raised again."""
        revision = self._directory.now.revision
        if revision != self._revision:
            self._revision = revision
            for name in _SETTINGS_ALARMS:
                telemetry.alarm(name).clear()

    def _signing_keys(self, domain: str, rows: Sequence[DkimKeyRow]) -> list[SigningKey]:
        """Loaded keys of a domain. What should be signed never leaves unsigned (F84)."""
        keys = []
        for row in rows:
            key = self._keys.get(row.id)
            if key is None:
                try:
                    der = self._sealer.unseal(row.key_id, row.sealed, context=row.id)
                    key = load_key(der, domain=domain, selector=row.selector)
                except (Unsealable, UnreadableKey) as error:
                    telemetry.alarm("dkim_key_unreadable").raise_(
                        domain=domain, selector=row.selector, error=str(error)
                    )
                    raise _later(
                        f"The DKIM key {row.selector} of {domain} is unreadable"
                    ) from error
                self._keys[row.id] = key
            keys.append(key)
        if not keys:
            telemetry.alarm("dkim_key_missing").raise_(domain=domain)
            raise _later(f"The domain {domain} is to be signed and has no active DKIM key")
        return keys


def _headers_need_utf8(content: Content) -> bool:
    """Whether an address in the headers has a local part beyond ASCII (RFC 6532)."""
    everyone = (content.sender, *content.to, *content.cc, *content.reply_to)
    return not all(a.address.isascii() for a in everyone)


def _later(reason: str) -> CannotRender:
    return CannotRender(Deferred(reason=reason, phase=Phase.COMPOSE, speaker=Speaker.SELF))
