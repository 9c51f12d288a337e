"""DNS, asked through dnspython: answers are values, and what could not be found out is told apart
from what does not exist (an outage must never look like a missing domain, F62).

The library is imported at the first question, so that processes that never ask do without it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from everpost.clock import Clock, SystemClock

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as Library
    from dns.message import QueryMessage
    from dns.rdata import Rdata

__all__ = ["Absent", "Answer", "Found", "Resolver", "Unresolved"]


class Found(msgspec.Struct, frozen=True, gc=False):
    """Records in presentation form (RFC 1035 §5.1), sorted; of a TXT record its strings joined, as
    text (bytes that are not UTF-8 become U+FFFD). `ttl` is in seconds, of the shortest link.

    `authenticated` is the AD bit (RFC 4035 §3.2.3): the resolver asked says that DNSSEC held. It
    is worth as much as the way to that resolver; trust it over loopback only.
    """

    records: tuple[str, ...]
    ttl: int
    authenticated: bool = False


class Absent(msgspec.Struct, frozen=True, gc=False):
    """There is none: no such name, or no record of this type there (RFC 2308 §2)."""

    kind: Literal["nxdomain", "nodata"]
    ttl: int = 0
    authenticated: bool = False


class Unresolved(msgspec.Struct, frozen=True, gc=False):
    """Not known now: SERVFAIL, no answer in time, no resolver. Ask again later. `answered`: a
    server said that it cannot tell (SERVFAIL, REFUSED), so the fault may be the name's own; else
    nobody was reached."""

    reason: str
    answered: bool = False


Answer = Found | Absent | Unresolved

Question = tuple[str, str]

_LONGEST_TTL = 3600
_SHORTEST_TTL = 1
"""Answers that must not be kept at all would be asked for with each of a thousand messages."""
_MOST_RECORDS = 128
"""Of one name and type. More are a mistake or an attack (F63): they cost time and memory."""
_LONGEST_NEGATIVE_TTL = 300
_FAILURE_S = 5.0
"""A failure is kept so long, so that a hundred waiting messages do not each wait for the same dead
server. RFC 2308 §7 allows five minutes; a recovery should be noticed sooner."""
_CACHED = 10_000
_AT_ONCE = 100
"""Questions under way; more wait. A resolver that is flooded answers nobody."""
_EDNS_PAYLOAD = 1232  # passes any IPv6 path unfragmented (DNS Flag Day 2020)
_SYSTEM = SystemClock()


class Resolver:
    """Asks the given name servers (addresses), or those of the system's configuration.

    Answers are kept for their TTL, an hour at most (five minutes where there was none), failures
    for seconds. Who asks what is being asked already waits for the same answer. `timeout` is in
    seconds, for a question with all its retries.
    """

    def __init__(
        self,
        nameservers: Sequence[str] | None = None,
        port: int = 53,
        timeout: float = 5.0,
        *,
        clock: Clock = _SYSTEM,
    ) -> None:
        self._nameservers = nameservers
        self._port = port
        self._timeout = timeout
        self._clock = clock
        self._library: Library | None = None
        self._heard = -1.0
        """Monotonic second of the last answer of any server."""
        self._kept: OrderedDict[Question, tuple[float, Answer]] = OrderedDict()
        self._under_way: dict[Question, asyncio.Task[Answer]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def txt(self, name: str, *, fresh: bool = False) -> Answer:
        """TXT records, each with its strings joined."""
        return await self.lookup(name, "TXT", fresh=fresh)

    async def lookup(self, name: str, rdtype: str, *, fresh: bool = False) -> Answer:
        """Records of a fully qualified `name`, CNAMEs followed. `fresh` asks anew even when an
        answer is kept. A name that DNS cannot hold does not exist."""
        question = (name.lower().rstrip("."), rdtype.upper())
        if not fresh:
            kept = self._kept.get(question)
            if kept is not None and kept[0] > self._clock.monotonic():
                return kept[1]
        asked = self._under_way.get(question)
        if asked is None or fresh:
            # A task of its own: whoever asked first may be cancelled, the others still wait.
            asked = asyncio.get_running_loop().create_task(self._answer(question))
            self._under_way[question] = asked
        return await asyncio.shield(asked)

    async def _answer(self, question: Question) -> Answer:
        try:
            async with self._places:
                answer = await self._ask(*question)
        finally:
            if self._under_way.get(question) is asyncio.current_task():
                del self._under_way[question]
        self._keep(question, answer)
        return answer

    def _keep(self, question: Question, answer: Answer) -> None:
        lived = _FAILURE_S if isinstance(answer, Unresolved) else answer.ttl
        seconds = max(lived, _SHORTEST_TTL)
        self._kept.pop(question, None)
        self._kept[question] = (self._clock.monotonic() + seconds, answer)
        if len(self._kept) > _CACHED:
            self._kept.popitem(last=False)

    async def _ask(self, name: str, rdtype: str) -> Answer:
        import dns.exception
        import dns.flags
        import dns.name
        import dns.rdatatype
        import dns.resolver

        wanted = dns.rdatatype.from_text(rdtype)
        try:
            absolute = dns.name.from_text(name, dns.name.root)
        except (dns.exception.DNSException, UnicodeError):
            return Absent("nxdomain")
        began = self._clock.monotonic()
        try:
            library = self._library or self._prepare()
            answer = await library.resolve(absolute, wanted, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            self._heard = self._clock.monotonic()
            response: QueryMessage = error.kwargs["responses"][absolute]
            ttl = response.resolve_chaining().minimum_ttl
            secure = bool(response.flags & dns.flags.AD)
            return Absent("nxdomain", min(ttl, _LONGEST_NEGATIVE_TTL), secure)
        except dns.exception.Timeout:
            # Where others were answered meanwhile, it is this name's own servers that are silent.
            return Unresolved(f"no answer within {self._timeout:g} s", self._heard >= began)
        except dns.resolver.NoNameservers as error:
            # Each error ends with the response it is about; an OSError has none.
            answered = any(tried[-1] is not None for tried in error.kwargs["errors"])
            if answered:
                self._heard = self._clock.monotonic()
            return Unresolved(_short(error), answered)
        except (dns.exception.DNSException, OSError) as error:
            return Unresolved(_short(error))
        self._heard = self._clock.monotonic()
        ttl = answer.chaining_result.minimum_ttl
        secure = bool(answer.response.flags & dns.flags.AD)
        if answer.rrset is None:
            return Absent("nodata", min(ttl, _LONGEST_NEGATIVE_TTL), secure)
        if len(answer.rrset) > _MOST_RECORDS:
            return Unresolved(f"{len(answer.rrset)} records, more than we take", answered=True)
        return Found(tuple(sorted(map(_text, answer.rrset))), min(ttl, _LONGEST_TTL), secure)

    def _prepare(self) -> "Library":
        """The library's resolver, set up once. Raises DNSException where no server is known."""
        import dns.asyncresolver
        import dns.flags

        library = dns.asyncresolver.Resolver(configure=self._nameservers is None)
        if self._nameservers is not None:
            library.nameservers = list(self._nameservers)
            library.port = self._port
        library.lifetime = self._timeout
        # AD in a question asks for AD in the answer, without the signatures (RFC 6840 §5.7).
        library.flags = dns.flags.RD | dns.flags.AD
        library.use_edns(0, 0, _EDNS_PAYLOAD)
        self._library = library
        return library


def _text(record: "Rdata") -> str:
    strings = getattr(record, "strings", None)
    if strings is not None:
        return b"".join(strings).decode("utf-8", "replace")
    return record.to_text()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
