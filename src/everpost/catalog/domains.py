"""Sending domains: added with their DKIM keys, verified by DNS, removed.

A domain proves that it is its owner's by the DKIM keys in its DNS; one that is not signed proves it
by a record of its own. An operator may waive that (`trust`).
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from everpost import ids
from everpost.catalog.checks import must_manage, must_operate
from everpost.catalog.views import DnsRecord, DomainView
from everpost.clock import Clock
from everpost.compose.dkim import Algorithm, dns_record, generate_key
from everpost.ids import Id, IdMaker
from everpost.model.address import parse_domain
from everpost.model.credential import Credential
from everpost.model.errors import Conflict, Invalid, NotFound
from everpost.net.resolver import Absent, Answer, Found, Unresolved
from everpost.security import Sealer
from everpost.store.directory import Directory
from everpost.store.interface import Catalog, DkimKeyRow, DomainRow

__all__ = ["ALGORITHMS", "Domains"]

ALGORITHMS: tuple[Algorithm, ...] = ("rsa-sha256", "ed25519-sha256")
_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,59}[a-z0-9])?")
_SUFFIX = {"rsa-sha256": "", "ed25519-sha256": "e"}
_SPACE = re.compile(r"\s+")


class Texts(Protocol):
    """What is asked of DNS (net.resolver.Resolver)."""

    async def txt(self, name: str, *, fresh: bool = False) -> Answer: ...


class Domains:
    """A project's domains.

    `make_key` makes a private key as PKCS#8 DER and its public half as in DNS; it is slow (RSA) and
    runs in a thread.
    """

    def __init__(
        self,
        store: Catalog,
        directory: Directory,
        *,
        sealer: Sealer,
        clock: Clock,
        ids: IdMaker,
        resolver: Texts,
        make_key: Callable[[Algorithm], tuple[bytes, str]] = generate_key,
    ) -> None:
        self._store = store
        self._directory = directory
        self._sealer = sealer
        self._clock = clock
        self._ids = ids
        self._resolver = resolver
        self._make_key = make_key
        self._found: dict[Id, DomainView] = {}
        """What the last lookup of each domain by this process found."""

    async def add(
        self,
        credential: Credential,
        name: str,
        *,
        signing: str = "sign",
        trust: bool = False,
        algorithms: Sequence[str] = ALGORITHMS,
        selector: str | None = None,
    ) -> DomainView:
        """A new domain with a DKIM key for each algorithm (selectors `ep1` for RSA, `ep1e` for
        Ed25519, or another base). `signing="unsigned"` makes no keys: its mail leaves unsigned.
        `trust` takes the domain as verified, on the word of the server's operator.

        Raises Invalid, Forbidden; Conflict when the name is taken, or when another project has
        proved that a domain above or below it is its own (S57).
        """
        must_manage(credential)
        if trust:
            must_operate(credential)
        name = parse_domain(name, field="name")
        selector = _check_choices(signing, algorithms, selector or "ep1")
        chosen = [algorithm for algorithm in ALGORITHMS if algorithm in algorithms]
        _refuse_taken(name, credential.project, await self._store.domains())
        now = self._clock.now()
        row = DomainRow(
            id=self._ids(),
            project=credential.project,
            name=name,
            status="pending",
            signing=signing,
            trusted=False,
            created_at=now,
        )
        made = []
        if signing == "sign":
            for algorithm in chosen:
                der, public = await asyncio.to_thread(self._make_key, algorithm)
                made.append(self._key_row(row, selector, algorithm, der=der, public=public))
        await self._store.put(row, actor=credential.actor, action="domain.add")
        for key in made:
            await self._store.put(key, actor=credential.actor, action="dkim_key.add")
        if trust:  # last, so that a domain never counts as ready without its keys
            _refuse_taken(name, credential.project, await self._store.domains(), known=row.id)
            row = msgspec.structs.replace(row, status="verified", trusted=True, verified_at=now)
            await self._store.put(row, actor=credential.actor, action="domain.trust")
        await self._directory.refresh()
        return DomainView(row, self._records(row, made))

    def _key_row(
        self, domain: DomainRow, selector: str, algorithm: str, *, der: bytes, public: str
    ) -> DkimKeyRow:
        id_ = self._ids()
        key_id, sealed = self._sealer.seal(domain.project, der, context=id_)
        return DkimKeyRow(
            id=id_,
            domain=domain.id,
            selector=selector + _SUFFIX[algorithm],
            algorithm=algorithm,
            key_id=key_id,
            sealed=sealed,
            public=public,
            active=True,
            created_at=domain.created_at,
        )

    def get(self, credential: Credential, id_: Id) -> DomainView:
        """Raises NotFound."""
        for row in self._directory.now.domains.values():
            if row.id == id_ and row.project == credential.project:
                return self._view(row)
        raise NotFound("Domain not found")

    def list(self, credential: Credential) -> Sequence[DomainView]:
        """All of the project, oldest first."""
        rows = self._directory.now.domains.values()
        mine = [row for row in rows if row.project == credential.project]
        return [self._view(row) for row in sorted(mine, key=lambda row: row.id)]

    def first_verified(self, credential: Credential) -> str | None:
        """The name of the project's oldest verified domain."""
        rows = self._directory.now.domains.values()
        mine = [r for r in rows if r.project == credential.project and r.status == "verified"]
        return min(mine, key=lambda row: row.id).name if mine else None

    async def verify(self, credential: Credential, id_: Id) -> DomainView:
        """Look the records up now and keep what was found: verified when every required one is
        right, failed when one is wrong, or gone that was there before, else pending. What DNS could
        not answer changes nothing, nor does a lookup take away an operator's trust. Raises
        NotFound; Conflict when another project has proved a domain above or below it (S57) since
        this one was added."""
        must_manage(credential)
        await self._directory.refresh()
        view = self.get(credential, id_)
        answers = await asyncio.gather(
            *(self._resolver.txt(record.name, fresh=True) for record in view.records)
        )
        records = tuple(
            msgspec.structs.replace(record, status=_judge(record, answer))
            for record, answer in zip(view.records, answers, strict=True)
        )
        rows = await self._store.domains()  # DNS may have taken seconds
        row = _still(view.row, rows)
        status = _status(row, records)
        if status != row.status:
            if status == "verified":
                _refuse_taken(row.name, row.project, rows, known=row.id)
            verified_at = self._clock.now() if status == "verified" else row.verified_at
            row = msgspec.structs.replace(row, status=status, verified_at=verified_at)
            await self._store.put(row, actor=credential.actor, action="domain.verify")
            await self._directory.refresh()
        self._found[row.id] = DomainView(row, records)
        return self._found[row.id]

    async def remove(self, credential: Credential, id_: Id) -> bool:
        """Remove a domain and its keys; False when there is none."""
        must_manage(credential)
        for row in await self._store.domains():
            if row.id == id_ and row.project == credential.project:
                gone = await self._store.drop(
                    "domain", id_, actor=credential.actor, action="domain.remove"
                )
                self._found.pop(id_, None)
                await self._directory.refresh()
                return gone
        return False

    def _view(self, row: DomainRow) -> DomainView:
        found = self._found.get(row.id)
        if (
            found is not None and found.row == row
        ):  # as far as the row tells, nobody has looked since
            return found
        return DomainView(row, self._records(row, self._directory.now.dkim_keys.get(row.id, ())))

    def _records(self, row: DomainRow, keys: Sequence[DkimKeyRow]) -> tuple[DnsRecord, ...]:
        status = "pending" if row.trusted else row.status
        records = []
        for key in keys:
            name, value = dns_record(key.selector, row.name, key.algorithm, key.public)
            records.append(DnsRecord(record="DKIM", name=name, value=value, status=status))
        if row.signing == "unsigned":
            name, value = f"_everpost.{row.name}", f"everpost-domain={ids.text(row.id)}"
            records.append(DnsRecord(record="Ownership", name=name, value=value, status=status))
        # A suggestion: receivers ask for some policy (RFC 7489 §6.3), which one is the owner's.
        records.append(
            DnsRecord(
                record="DMARC",
                name=f"_dmarc.{row.name}",
                value="v=DMARC1; p=none;",
                status="not_started",
            )
        )
        return tuple(records)


def _check_choices(signing: str, algorithms: Sequence[str], selector: str) -> str:
    if signing not in {"sign", "unsigned"}:
        raise Invalid(
            "Invalid `signing` field. It must be sign or unsigned.",
            field="signing",
        )
    if not algorithms or not set(algorithms) <= set(ALGORITHMS):
        raise Invalid(
            f"Invalid `algorithms` field. One or both of {', '.join(ALGORITHMS)}.",
            field="algorithms",
        )
    selector = selector.lower()
    if not _SELECTOR.fullmatch(selector):
        raise Invalid(
            "Invalid `selector` field. Letters, digits and hyphens, at most 61.", field="selector"
        )
    return selector


def _still(row: DomainRow, rows: Sequence[DomainRow]) -> DomainRow:
    """The row as it is now; writing an older one would bring a removed domain back."""
    for now in rows:
        if now.id == row.id:
            return now
    raise NotFound("Domain not found")


def _refuse_taken(
    name: str, project: int, rows: Sequence[DomainRow], *, known: Id | None = None
) -> None:
    """Raises Conflict for a name that is there (but for `known` itself), or above or below one of
    another project. Who has proved nothing blocks only the name itself: else anybody could keep a
    whole company out by adding one name of it."""
    for row in rows:
        if row.id == known:
            continue
        above_or_below = name.endswith("." + row.name) or row.name.endswith("." + name)
        proved = row.status == "verified" or row.trusted
        if row.name == name or (above_or_below and proved and row.project != project):
            raise Conflict(f"The domain {name} is registered already", field="name")


def _judge(record: DnsRecord, answer: Answer) -> str:
    """A record's status from what DNS answered."""
    if record.record == "DMARC":  # a suggestion: nothing waits for it, and any policy will do
        texts = answer.records if isinstance(answer, Found) else ()
        return "verified" if any(t.startswith("v=DMARC1") for t in texts) else "not_started"
    match answer:
        case Unresolved():
            return "unknown"
        case Absent():
            return "pending"
        case Found(records=texts):
            pass
    if record.record == "Ownership":
        return "verified" if record.value in texts else "pending"
    wanted = _tags(record.value)
    keys = [tags for tags in map(_tags, texts) if "p" in tags]
    if not keys:  # a wildcard's text, for example
        return "pending"
    return "verified" if all(_same_key(tags, wanted) for tags in keys) else "failed"


def _tags(text: str) -> dict[str, str]:
    """A tag list (RFC 6376 §3.2), spaces removed: none of what is compared may hold any."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): _SPACE.sub("", value) for name, equals, value in pairs if equals}


def _same_key(found: dict[str, str], wanted: dict[str, str]) -> bool:
    """RFC 6376 §3.6.1. Several keys at one selector must all be ours: a verifier takes any."""
    return (
        found["p"] == wanted["p"]
        and found.get("k", "rsa") == wanted.get("k", "rsa")
        and found.get("v", "DKIM1") == "DKIM1"
    )


def _status(row: DomainRow, records: Sequence[DnsRecord]) -> str:
    required = {record.status for record in records if record.record != "DMARC"}
    if row.trusted:
        return row.status
    if required == {"verified"}:
        return "verified"
    if "failed" in required:
        return "failed"
    if "unknown" in required or not required:
        return row.status
    return "pending" if row.verified_at is None else "failed"
