"""What all connections of a sink share: the counts, the kept messages, and who waits for them."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from everpost.clock import Clock
from everpost.loadtest.behaviour import Script
from everpost.loadtest.maildir import Maildir
from everpost.protocol.smtp.server_events import Message

__all__ = ["Arrival", "OnMessage", "Reception", "Stats"]

OnMessage = Callable[[str, tuple[str, ...], bytes], None]
"""Called with envelope sender, recipients and content of each message that was taken."""


@dataclass(slots=True)
class Stats:
    """Counts since the start. `octets` of content; `refusals` said by rules or for failed logins;
    `endings` of connections by reason (see `Closed`), `lost` where the client just went."""

    connections: int = 0
    open: int = 0
    peak: int = 0
    tls: int = 0
    logins: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    refusals: int = 0
    endings: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Builtins, in declared order."""
        return asdict(self)


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A message taken. `at` is the monotonic clock in seconds, which on Linux all processes of a
    machine share; `time` is the wall clock in seconds since 1970. `message_id` is without angle
    brackets, `mark` what stands in X-Loadtest-Id; both empty where there was none."""

    message_id: str
    at: float
    sender: str
    recipients: tuple[str, ...]
    size: int
    mark: str = ""
    time: float = 0.0


_find_message_id = re.compile(
    rb"^message-id:[ \t]*(?:\r\n[ \t]+)?<?([^<>\r\n]*)", re.IGNORECASE | re.MULTILINE
).search
_find_mark = re.compile(rb"^x-loadtest-id:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE).search


class Reception:
    """Takes messages from the sessions. `script` may be exchanged while it runs."""

    def __init__(
        self,
        script: Script,
        clock: Clock,
        *,
        maildir: Maildir | None = None,
        keep_arrivals: bool = False,
        on_arrival: Callable[[Arrival], None] | None = None,
        on_message: OnMessage | None = None,
    ) -> None:
        self.script = script
        self.stats = Stats()
        self.arrivals: list[Arrival] = []
        self._clock = clock
        self._maildir = maildir
        self._keep = keep_arrivals
        self._on_arrival = on_arrival
        self._on_message = on_message
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def take(self, message: Message) -> None:
        """Store and count. Raises OSError where it could not be stored: then it is not counted."""
        mail, recipients, content = message.mail, message.recipients, message.content
        if self._maildir is not None:
            self._maildir.store(mail.sender, recipients, content)
        stats = self.stats
        stats.messages += 1
        stats.recipients += len(recipients)
        stats.octets += len(content)
        if self._keep or self._on_arrival is not None:
            arrival = self._arrival(mail.sender, recipients, content)
            if self._keep:
                self.arrivals.append(arrival)
            if self._on_arrival is not None:
                self._on_arrival(arrival)
        if self._on_message is not None:
            self._on_message(mail.sender, recipients, content)
        if self._waiters:
            self._wake()

    def _arrival(self, sender: str, recipients: tuple[str, ...], content: bytes) -> Arrival:
        end = content.find(b"\r\n\r\n")
        head = content if end < 0 else content[: end + 2]
        return Arrival(
            _found(_find_message_id(head)),
            self._clock.monotonic(),
            sender,
            recipients,
            len(content),
            _found(_find_mark(head)),
            self._clock.now() / 1000,
        )

    async def wait_for(self, messages: int, timeout: float | None) -> None:
        """Return once that many messages were taken since the start; TimeoutError after `timeout`
        seconds, where given."""
        if self.stats.messages >= messages:
            return
        reached = asyncio.get_running_loop().create_future()
        waiter = (messages, reached)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await reached
        except TimeoutError:
            raise TimeoutError(
                f"{self.stats.messages} of {messages} messages within {timeout} s"
            ) from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        for messages, reached in self._waiters:
            if self.stats.messages >= messages and not reached.done():
                reached.set_result(None)


def _found(found: re.Match[bytes] | None) -> str:
    return "" if found is None else found[1].strip().decode("utf-8", "replace")
