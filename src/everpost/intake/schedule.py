"""When a message is due, and for how long: `scheduled_at` and `expires_in`.

ISO 8601 is read by the standard library, a plain `in 5 minutes` here, other English by dateparser,
which is only imported then (70 ms, and as long again for its first date). dateparser guesses where
it cannot read (`in 5` is a month, `at 9` and `at 25:00` count for nothing), so what it gets is
screened first. It counts days in UTC and knows no daylight saving for ET, CT, MT and PT, so zones
are read here, and it works on their clocks.
"""

import re
import threading
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from everpost.model.errors import Invalid

__all__ = ["is_english", "parse_duration", "parse_when"]

_CHARS = 100
_SLACK_MS = 60_000
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), _DAY_MS),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY_MS),
}
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_duration = re.compile(rf"([0-9]{{1,9}}) *({_UNIT})?", re.IGNORECASE).fullmatch
_in_units = re.compile(
    rf"in +([0-9]{{1,9}}|an?|half +an) +({_UNIT})(?: +from +now)?", re.IGNORECASE
).fullmatch
_iso = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ].*)?", re.IGNORECASE).fullmatch

_DAYS = (
    r"mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs(?:day)?)?|fri(?:day)?|sat(?:urday)?"
    r"|sun(?:day)?"
)
_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_NTH = r"[0-9]{1,2}(?:st|nd|rd|th)?"
_DATE = rf"\b(?:{_MONTHS} +{_NTH}|{_NTH} +(?:of +)?{_MONTHS})(?:,? +[0-9]{{4}})?\b"
_date = re.compile(_DATE, re.IGNORECASE).search
_weekday = re.compile(rf"(?<!next )\b(?:{_DAYS})\b", re.IGNORECASE).search
_anchor = re.compile(
    rf"\b(?:now|today|tonight|tomorrow|noon|midnight|{_DAYS}|[0-9]{{1,2}} *[ap]m|week|month)\b"
    rf"|\b[0-9]{{1,9}} *(?:{_UNIT})\b|[0-9]:[0-9]{{2}}|{_DATE}",
    re.IGNORECASE,
).search
_numbers_with_meaning = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}|[+-][0-9]{{2}}:?[0-9]{{2}}\b|\bUTC[+-][0-9]{{1,2}}\b|{_DATE}"
    r"|[0-9]{1,2}(?::[0-9]{2}){0,2} *[ap]\.?m\b|[0-9]{1,2}(?::[0-9]{2}){1,2}\b"
    rf"|[0-9]{{1,9}}(?:\.[0-9]+)? *(?:{_UNIT}|months?)\b",
    re.IGNORECASE,
).sub
_digit = re.compile("[0-9]").search
_clock_times = re.compile(
    r"(?<![0-9+-])([0-9]+)(?::([0-9]+)(?::([0-9]+))?)? *([ap]\.?m)?\b", re.IGNORECASE
).finditer
_next_day = re.compile(r"^(?:the +)?next +day\b", re.IGNORECASE).sub
_zone = re.compile(r" +\(?([A-Z]{2,4}|[A-Z][A-Za-z]+(?:/[A-Z][A-Za-z_]+){1,2})\)?$").search
_ZONES = {
    "ET": "America/New_York", "CT": "America/Chicago", "MT": "America/Denver",
    "PT": "America/Los_Angeles", "UTC": "UTC", "GMT": "UTC",
}  # fmt: skip
# The names of RFC 5322 §4.3.
_OFFSETS = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}


def parse_when(text: str, *, now: int, days: float = 30.0) -> int:
    """The moment that `text` names, in milliseconds since 1970.

    ISO 8601 (without an offset: UTC) or English (`in 1 min`, `tomorrow at 9am`, `Friday at 3pm ET`;
    without a zone: UTC), seen from `now` (milliseconds). Less than a minute past counts as `now`.
    Raises Invalid for what cannot be read, lies in the past or more than `days` ahead.
    """
    at = _read(text.strip(), now) if len(text) <= _CHARS else None
    if at is None:
        raise Invalid(
            "Invalid `scheduled_at` field. It needs an ISO 8601 date like `2026-12-01T09:00:00Z`, "
            "or English like `in 1 hour` or `tomorrow at 9am`.",
            field="scheduled_at",
        )
    if at < now - _SLACK_MS:
        raise Invalid(
            "Invalid `scheduled_at` field. It must be in the future.", field="scheduled_at"
        )
    if at > now + int(days * _DAY_MS):
        raise Invalid(
            f"Invalid `scheduled_at` field. It may be at most {days:g} days ahead.",
            field="scheduled_at",
        )
    return max(at, now)


def is_english(text: str) -> bool:
    """Whether `parse_when` may have to ask dateparser: up to 0.2 s the first time, about 1 ms
    later. An event loop has this done in a thread."""
    text = text.strip()
    return len(text) <= _CHARS and not (_iso(text) or _in_units(text))


def parse_duration(value: str | int, *, field: str) -> int:
    """Milliseconds of a number of seconds or a text like `10 min`. Raises Invalid."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
        return value * 1000
    if isinstance(value, str) and len(value) <= _CHARS:
        read = _duration(value.strip())
        if read is not None:
            return int(read[1]) * _UNITS[(read[2] or "s").lower()]
    raise Invalid(
        f"Invalid `{field}` field. It needs a number of seconds, or a text like `10 min`.",
        field=field,
    )


def _read(text: str, now: int) -> int | None:
    if _iso(text):
        try:
            at = datetime.fromisoformat(text.upper())
        except ValueError:
            return None
        return _milliseconds(at)
    if (short := _in_units(text)) is not None:
        amount, unit = short[1].lower(), _UNITS[short[2].lower()]
        if amount.startswith("half"):
            return now + unit // 2
        return now + unit * (1 if amount[0] == "a" else int(amount))
    return _english(text, now)


def _milliseconds(at: datetime) -> int:
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MS


def _english(text: str, now: int) -> int | None:
    if not (text.isascii() and text.isprintable() and _anchor(text)):
        return None
    if not _times_exist(text) or _digit(_numbers_with_meaning("", text)):
        return None
    zone: tzinfo | None = None
    if (named := _zone(text)) is not None and named[1] not in {"AM", "PM"}:
        zone = _zone_of(named[1])
        text = text[: named.start()]
        if zone is None or _zone(text):
            return None
    base = (_EPOCH + now * _MS).astimezone(zone or UTC)
    at = _dateparser_read(_next_day("tomorrow", text), base.replace(tzinfo=None), aware=not zone)
    if at is None:
        return None
    moment = _milliseconds(at.replace(tzinfo=zone) if zone else at)
    if moment - 7 * _DAY_MS >= now and _weekday(text) and not _date(text):
        moment -= 7 * _DAY_MS  # on a Friday morning, dateparser's `Friday at 3pm` is a week away
    return moment


def _times_exist(text: str) -> bool:
    """Whether each time of day in it is one: dateparser silently drops those that are not."""
    for hour, minute, second, half in (m.groups() for m in _clock_times(text)):
        if half is None and minute is None:
            continue  # a day of the month, a year, a count
        if len(hour) > 2 or int(hour) > (12 if half else 23) or (half and int(hour) == 0):
            return False
        if any(part is not None and (len(part) != 2 or part > "59") for part in (minute, second)):
            return False
    return True


def _zone_of(name: str) -> tzinfo | None:
    if name in _OFFSETS:
        return timezone(timedelta(hours=_OFFSETS[name]))
    if name not in _ZONES and "/" not in name:
        return None
    try:
        return ZoneInfo(_ZONES.get(name, name))
    except (KeyError, ValueError, OSError):  # no such zone; or the name is a directory
        return None


_one_at_a_time = threading.Lock()


@cache
def _dateparser() -> Any:
    import dateparser

    return dateparser.parse


def _dateparser_read(text: str, base: datetime, *, aware: bool) -> datetime | None:
    """What dateparser reads, in UTC when `aware`, else on the clock that `base` shows.

    The lock: nothing promises that its caches bear two threads.
    """
    settings = {
        "RELATIVE_BASE": base,
        "TIMEZONE": "UTC",
        "TO_TIMEZONE": "UTC",
        "RETURN_AS_TIMEZONE_AWARE": aware,
        "PREFER_DATES_FROM": "future",
        "PARSERS": ["relative-time", "absolute-time"],
    }
    try:
        with _one_at_a_time:
            at = _dateparser()(text, languages=["en"], settings=settings)
    except (ValueError, OverflowError):  # a date that does not exist, or beyond year 9999
        return None
    return at if isinstance(at, datetime) else None
