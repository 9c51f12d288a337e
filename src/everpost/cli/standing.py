"""How relays do, for people. What is not known is a dash, never a zero."""

from collections.abc import Iterable, Mapping
from typing import Any

from everpost.cli.show import Printer, moment

__all__ = ["details", "standing_table"]

_UNKNOWN = "-"


def standing_table(out: Printer, rows: Iterable[Mapping[str, Any]]) -> None:
    """One line a relay."""
    out.table(
        ["relay", "state", "circuit", "success", "p99", "share", "in flight", "open", "next probe",
         "why"],
        (
            [
                row.get("name"),
                row.get("state"),
                row.get("circuit") or "unknown",
                _percent(row.get("success_rate")),
                _milliseconds(row, "p99"),
                _percent(row.get("share")),
                _known(row.get("in_flight")),
                _connections(row),
                moment(row.get("next_probe")) or _UNKNOWN,
                row.get("why"),
            ]
            for row in rows
        ),
        empty="There are no relays.",
    )  # fmt: skip


def details(out: Printer, row: Mapping[str, Any]) -> None:
    """All that is known of one relay."""
    probe, canary = _part(row, "probe"), _part(row, "canary")
    limits = {name: value for name, value in _part(row, "limits").items() if value is not None}
    out.fields(
        {
            "relay": row.get("name"),
            "state": row.get("state"),
            "circuit": row.get("circuit") or "unknown",
            "why": row.get("why"),
            "found at": " of ".join(str(row[n]) for n in ("phase", "speaker") if row.get(n)),
            "since": moment(row.get("since")),
            "until": moment(row.get("until")),
            "ejections": row.get("ejections"),
            "last minute": _minute(row),
            "success": _percent(row.get("success_rate")),
            "latency": ", ".join(
                f"{name} {_milliseconds(row, name)}" for name in ("p50", "p95", "p99")
            ),
            "share": _percent(row.get("share")),
            "in flight": _known(row.get("in_flight")),
            "connections": _connections(row),
            "limits": ", ".join(f"{name} {value}" for name, value in limits.items()),
            "last probe": _looked(probe, probe.get("refusal")),
            "next probe": moment(row.get("next_probe")) or _UNKNOWN,
            "canary": _looked(canary, canary.get("why")),
        }
    )
    cooldowns = [each for each in row.get("cooldowns") or [] if isinstance(each, Mapping)]
    if cooldowns:
        out.line()
        out.table(
            ["cools", "until", "why"],
            ([each.get("site"), moment(each.get("until")), each.get("why")] for each in cooldowns),
        )


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = row.get(name)
    return found if isinstance(found, Mapping) else {}


def _minute(row: Mapping[str, Any]) -> str:
    if row.get("tried") is None:
        return _UNKNOWN
    return f"{row['tried']} tried, {row.get('worked')} worked, {row.get('faults')} faults"


def _looked(look: Mapping[str, Any], why: object) -> str:
    if not look:
        return _UNKNOWN
    result = "well" if look.get("ok") else str(why or "failed")
    return f"{result}, {moment(look.get('at'))}"


def _known(value: object) -> object:
    return _UNKNOWN if value is None else value


def _percent(value: object) -> str:
    return f"{value * 100:.1f} %" if isinstance(value, int | float) else _UNKNOWN


def _milliseconds(row: Mapping[str, Any], name: str) -> str:
    value = _part(row, "latency_ms").get(name)
    return f"{value:.0f} ms" if isinstance(value, int | float) else _UNKNOWN


def _connections(row: Mapping[str, Any]) -> str:
    limit = _part(row, "limits").get("connections")
    return f"{_known(row.get('connections'))}/{_known(limit)}"
