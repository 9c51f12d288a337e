"""Who a message is from and to: reading addresses, and whether the sender may use the domain."""

import msgspec

from everpost.intake.draft import Draft
from everpost.intake.limits import Limits
from everpost.model.address import destination, parse_mailbox, shown
from everpost.model.credential import Credential
from everpost.model.errors import Forbidden, Invalid, Missing
from everpost.model.message import Address, NewRecipient, RecipientKind
from everpost.store.directory import Snapshot

__all__ = ["Parties", "Permits", "gather", "mailboxes", "texts"]


class Parties(msgspec.Struct, frozen=True, gc=False):
    """Each address once: where it first appears, in the order to, cc, bcc."""

    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    recipients: tuple[NewRecipient, ...]


def gather(draft: Draft, limits: Limits) -> Parties:
    """Read and check the recipients. Raises Missing without `to`, Invalid naming a field."""
    if not draft.to:
        raise Missing("Missing `to` field.", field="to")
    # The domain is lower-case already. A local part's case is the receiver's to judge
    # (RFC 5321 §2.4), so it travels as written; but few receivers tell by it, and copies annoy.
    seen: set[str] = set()
    recipients: list[NewRecipient] = []

    def read(values: tuple[str, ...], field: str, kind: RecipientKind) -> tuple[Address, ...]:
        kept = []
        for address in mailboxes(values, limits, field=field):
            if (key := address.address.lower()) not in seen:
                seen.add(key)
                kept.append(address)
                recipients.append(NewRecipient(address.address, destination(address.address), kind))
        return tuple(kept)

    return Parties(
        to=read(draft.to, "to", RecipientKind.TO),
        cc=read(draft.cc, "cc", RecipientKind.CC) if draft.cc else (),
        bcc=read(draft.bcc, "bcc", RecipientKind.BCC) if draft.bcc else (),
        recipients=tuple(recipients),
    )


def mailboxes(values: tuple[str, ...], limits: Limits, *, field: str) -> tuple[Address, ...]:
    """Parsed mailboxes of one field. Raises Invalid."""
    if len(values) > limits.recipients_per_field:
        raise Invalid(
            f"Invalid `{field}` field. There may be at most {limits.recipients_per_field} "
            "addresses.",
            field=field,
        )
    return tuple([parse_mailbox(value, field=field) for value in values])


def texts(addresses: tuple[Address, ...]) -> tuple[str, ...]:
    """As users see them."""
    return tuple([shown(address) for address in addresses])


class Permits:
    """What one snapshot of the catalog says about sending, worked out once."""

    __slots__ = ("_configured", "_snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        owners = {domain.project for domain in snapshot.domains.values()}
        self._configured: frozenset[int] | None = None if snapshot.relays else frozenset(owners)

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def sandbox(self, credential: Credential) -> bool:
        """Whether mail is captured, not sent: by key, by project, or because neither a relay (of
        whatever state) nor a domain of the project was set up yet."""
        if credential.sandbox:
            return True
        project = self._snapshot.projects.get(credential.project)
        if project is not None and project.sandbox:
            return True
        return self._configured is not None and credential.project not in self._configured

    def check_sender(self, credential: Credential, domain: str) -> None:
        """Raise Forbidden unless this caller may send from exactly this domain (S14).

        A domain of another project gives the same answer as one that nobody has.
        """
        row = self._snapshot.domains.get(domain)
        if row is None or row.project != credential.project:
            raise Forbidden(
                f"The {domain} domain is not verified. Please, add and verify your domain: "
                f"`everpost domains add {domain}`.",
                field="from",
            )
        if row.status != "verified" and not row.trusted:
            raise Forbidden(
                f"The {domain} domain is not verified. Please, publish the DNS records that "
                "`everpost domains` shows for it, and verify it.",
                field="from",
            )
        if credential.domain is not None and credential.domain != row.id:
            raise Forbidden(f"This API key may not send from the {domain} domain.", field="from")
