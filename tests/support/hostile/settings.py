"""Values of settings that somebody could break mail, logs or other people's mail with. All of them
are refused, and the field is named."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.hostile.row import HostileSetting

__all__ = ["GOOD", "SETTINGS"]

GOOD: Mapping[str, Mapping[str, Any]] = {
    "/relays": {"url": "smtp://good.test"},
    "/pools": {"name": "good", "tiers": [["first"]]},
    "/routes": {"name": "good", "pool": "main"},
    "/routes/explain": {"from": "a@good.test", "to": "b@good.test"},
}
"""By path, what would pass: `first` is a relay, `main` a pool."""

_LINES = "a\r\nRCPT TO:<x@evil.test>"
_BIDI = "a\u202eb"
_LONG = "a" * 10_000


def _each(row: str, path: str, field: str, *values: Any) -> list[HostileSetting]:
    return [HostileSetting(row, path, field, value) for value in values]


SETTINGS: Sequence[HostileSetting] = (
    *_each("S7", "/relays", "helo", _LINES, "a b", "[127.0.0.1]\r\n", _LONG),
    *_each("S7", "/relays", "probe_sender", _LINES, "a@x.test>\r\nDATA", "<a@x.test", _LONG),
    *_each("S7", "/relays", "username", _LINES, "a\x00b", _LONG),
    *_each("S7", "/relays", "password", _LINES, "a\x01b", _LONG),
    *_each("S7", "/relays", "url", "smtp://a\r\nb.test", "smtp://a b.test", "smtp://" + _LONG),
    *_each("S5", "/relays", "signed_headers", ["from", "a: b\r\nc"], ["from", ""], []),
    *_each("S22", "/relays", "url", "http://169.254.169.254/", "file:///etc/passwd", "smtp://127.1"),
    *_each("S27", "/relays", "name", "a\x1b[2Jb", _BIDI, "a\nb", _LONG, " "),
    *_each("S27", "/relays", "site", "../a", "a b", _BIDI, _LONG),
    *_each("S29", "/relays", "weight", -1, 0, 1e9, True, "1", 10**30),
    *_each("S29", "/relays", "connections", -1, 0, 10**30, "many"),
    *_each("S29", "/relays", "messages_per_second", -1, 0, 10**30, 0.5),
    *_each("S29", "/relays", "messages_per_minute", -1, 0, 10**30, 0.5),
    *_each("S29", "/relays", "messages_per_day", -1, 0, 10**30, 0.5),
    *_each("S29", "/relays", "messages_per_connection", -1, 0, 10**30, 0.5),
    *_each("S29", "/relays", "probe", "yes", 1, []),
    *_each("S29", "/relays", "source", ["0x7f.1"], ["192.0.2.1", "192.0.2.2"], [], "::1"),
    *_each("S7", "/relays", "source", ["fe80::1%a\r\nb"], ["fe80::1%a b"], ["::1%" + _LONG]),
    *_each("S27", "/pools", "name", "a\x1b[2Jb", _BIDI, "a\x00b", _LONG, ""),
    *_each("S29", "/pools", "tiers", [], [[]], [["nobody"]], [["first"], ["first"]], [[1]], "a"),
    *_each("S29", "/pools", "spill_below", -0.1, 1.1, "0.5", 10**400),
    *_each("S29", "/pools", "floor", -1, 10**30, 0.5),
    *_each("S27", "/routes", "name", "a\x1b[2Jb", _BIDI, "a\x00b", _LONG, ""),
    *_each("S27", "/routes", "pool", "nobody", "", "../main", "main\x00"),
    *_each("S27", "/routes", "stream", "a\nb", _BIDI, "", _LONG),
    *_each("S13", "/routes", "sender_domain", "*", "*.", "*.*.x.test", "x.test\r\n", "a b.test"),
    *_each("S13", "/routes", "recipient_domain", "x..test", "*x.test", "x.*.test", "x.test." * 60),
    *_each("S11", "/routes", "tag", "", "=", "a=b=c", "a b", "a\n", "a=\u212a", _LONG),
    *_each("S29", "/routes", "position", 0, -1, 10**30, 1.5, "1"),
    *_each("S29", "/routes", "project", 0, -1, 10**30, "nobody", 1.5),
    *_each("S7", "/routes/explain", "to", _LINES, "", "a@", _LONG),
    *_each("S7", "/routes/explain", "from", _LINES, "", "a@", _LONG),
    *_each("S11", "/routes/explain", "tags", [{"name": "a b", "value": "c"}], [{"name": "a"}]),
    *_each("S30", "/routes/explain", "tags", [{"name": "a", "value": "b"}] * 51),
)  # fmt: skip
