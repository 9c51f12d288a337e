"""DNS, asked through dnspython: answers are values, and what could not be found out is told apart
from what does not exist (an outage must never look like a missing domain, F62).

The library is imported at the first question, so that processes that never ask do without it.
"""

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
    """Not known now: SERVFAIL, no answer in time, no resolver. Ask again later."""

    reason: str


Answer = Found | Absent | Unresolved

_LONGEST_TTL = 3600
_LONGEST_NEGATIVE_TTL = 300
_CACHED = 10_000
_EDNS_PAYLOAD = 1232  # passes any IPv6 path unfragmented (DNS Flag Day 2020)
_SYSTEM = SystemClock()


class Resolver:
    """Asks the given name servers (addresses), or those of the system's configuration.

    Answers are kept for their TTL, an hour at most (five minutes where there was none); failures
    are not kept. `timeout` is in seconds, for a question with all its retries.
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
        self._kept: OrderedDict[tuple[str, str], tuple[float, Found | Absent]] = OrderedDict()

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
        answer = await self._ask(*question)
        self._kept.pop(question, None)
        if not isinstance(answer, Unresolved) and answer.ttl > 0:
            self._kept[question] = (self._clock.monotonic() + answer.ttl, answer)
            if len(self._kept) > _CACHED:
                self._kept.popitem(last=False)
        return answer

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
        try:
            library = self._library or self._prepare()
            answer = await library.resolve(absolute, wanted, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            response: QueryMessage = error.kwargs["responses"][absolute]
            ttl = response.resolve_chaining().minimum_ttl
            secure = bool(response.flags & dns.flags.AD)
            return Absent("nxdomain", min(ttl, _LONGEST_NEGATIVE_TTL), secure)
        except dns.exception.Timeout:
            return Unresolved(f"no answer within {self._timeout:g} s")
        except (dns.exception.DNSException, OSError) as error:
            return Unresolved(" ".join(str(error).split())[:500] or type(error).__name__)
        ttl = answer.chaining_result.minimum_ttl
        secure = bool(answer.response.flags & dns.flags.AD)
        if answer.rrset is None:
            return Absent("nodata", min(ttl, _LONGEST_NEGATIVE_TTL), secure)
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
