"""What callers may see of the catalog: no view holds a secret."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from everpost import ids
from everpost.model.relay import RelayKind, TlsPolicy
from everpost.store.interface import ApiKeyRow, DomainRow, RelayRow

__all__ = ["DnsRecord", "DomainView", "RelayView", "api_key_json"]


class DnsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A DNS record that a domain's owner is to publish, in Resend's words (COMPAT §5.2).

    `record` says what for (DKIM, DMARC, Ownership); `name` is fully qualified, without the dot at
    the end; `status`: not_started (never looked for), pending (not there yet), verified, failed
    (there, but not this value), unknown (DNS did not answer).
    """

    record: str
    name: str
    value: str
    type: str = "TXT"
    ttl: str = "Auto"
    status: str = "pending"
    priority: int | None = None

    def as_json(self) -> dict[str, Any]:
        built: dict[str, Any] = msgspec.to_builtins(self)
        if self.priority is None:
            del built["priority"]
        return built


class DomainView(msgspec.Struct, frozen=True):
    """A domain and its DNS records."""

    row: DomainRow
    records: tuple[DnsRecord, ...]

    def as_json(self) -> dict[str, Any]:
        row = self.row
        return {
            "id": ids.text(row.id),
            "name": row.name,
            "status": row.status,
            "created_at": _iso(row.created_at),
            "verified_at": None if row.verified_at is None else _iso(row.verified_at),
            "signing": row.signing,
            "trusted": row.trusted,
            "records": [record.as_json() for record in self.records],
        }


class RelayView(msgspec.Struct, frozen=True):
    """A relay without its password."""

    row: RelayRow

    def as_json(self) -> dict[str, Any]:
        row, settings = self.row, self.row.settings
        began = settings.get("warmup_from")
        return {
            "id": ids.text(row.id),
            "name": row.name,
            "kind": settings.get("kind", RelayKind.SMART_HOST.value),
            "host": row.host,
            "port": row.port,
            "state": row.state,
            "created_at": _iso(row.created_at),
            "implicit_tls": settings.get("implicit_tls", False),
            "tls": settings.get("tls", TlsPolicy.OPPORTUNISTIC.value),
            "username": settings.get("username"),
            "has_password": row.password is not None,
            "auth": settings.get("auth"),
            "helo": settings.get("helo"),
            "connections": settings.get("connections"),
            "weight": settings.get("weight", 1),
            "site": settings.get("site"),
            "eight_bit": settings.get("eight_bit", False),
            "source": settings.get("source"),
            "destination_connections": settings.get("destination_connections"),
            "allow_private": settings.get("allow_private"),
            "signed_headers": settings.get("signed_headers"),
            "messages_per_connection": settings.get("messages_per_connection"),
            "messages_per_second": settings.get("messages_per_second"),
            "messages_per_minute": settings.get("messages_per_minute"),
            "messages_per_day": settings.get("messages_per_day"),
            "warmup": settings.get("warmup"),
            "warmup_from": None if began is None else _iso(began),
            "probe": settings.get("probe"),
            "probe_sender": settings.get("probe_sender"),
        }


def api_key_json(row: ApiKeyRow) -> dict[str, Any]:
    """A key without token and hash."""
    return {
        "id": ids.text(row.id),
        "name": row.name,
        "public_id": row.public_id,
        "permission": row.permission,
        "domain_id": None if row.domain is None else ids.text(row.domain),
        "sandbox": row.sandbox,
        "created_at": _iso(row.created_at),
        "expires_at": None if row.expires_at is None else _iso(row.expires_at),
    }


def _iso(at: int) -> str:
    """`2026-11-23T05:44:00.123+00:00` from milliseconds since 1970."""
    moment = datetime.fromtimestamp(at // 1000, UTC).replace(microsecond=at % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds")
