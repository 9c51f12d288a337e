"""`scheduled_at`: a time that was read wrongly sends mail at the wrong time."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.intake.schedule import is_english, parse_duration, parse_when
from everpost.model.errors import Invalid

from .conftest import DAY_MS, NOW

FRIDAY = NOW + 4 * DAY_MS
JULY = int(datetime(2026, 7, 23, 12, tzinfo=UTC).timestamp() * 1000)


def _at(text: str, now: int = NOW) -> str:
    moment = datetime.fromtimestamp(parse_when(text, now=now) / 1000, UTC)
    return moment.isoformat(timespec="seconds").removesuffix("+00:00")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-01T10:00:00Z", "2026-12-01T10:00:00"),
        ("2026-12-01T10:00:00+08:00", "2026-12-01T02:00:00"),
        ("2026-12-01T10:00:00.123456-05:00", "2026-12-01T15:00:00"),
        ("2026-12-01 10:00:00.5+00", "2026-12-01T10:00:00"),
        ("2026-12-01T10:00", "2026-12-01T10:00:00"),
        ("2026-12-01", "2026-12-01T00:00:00"),
        (" 2026-12-01T10:00:00z ", "2026-12-01T10:00:00"),
        ("2026-11-23T11:59:30Z", "2026-11-23T12:00:00"),
        ("in 1 min", "2026-11-23T12:01:00"),
        ("In 1 Minute from now", "2026-11-23T12:01:00"),
        ("in 90 s", "2026-11-23T12:01:30"),
        ("in an hour", "2026-11-23T13:00:00"),
        ("in half an hour", "2026-11-23T12:30:00"),
        ("in 3 days", "2026-11-26T12:00:00"),
        ("in 2 weeks", "2026-12-07T12:00:00"),
        ("in 2 hours and 30 minutes", "2026-11-23T14:30:00"),
        ("in 1.5 hours", "2026-11-23T13:30:00"),
        ("in 1 month", "2026-12-23T12:00:00"),
        ("now", "2026-11-23T12:00:00"),
        ("2 days", "2026-11-25T12:00:00"),
        ("today at 5pm", "2026-11-23T17:00:00"),
        ("tomorrow", "2026-11-24T12:00:00"),
        ("tomorrow at 9am", "2026-11-24T09:00:00"),
        ("tomorrow at 10am", "2026-11-24T10:00:00"),
        ("tomorrow at 9:30 AM", "2026-11-24T09:30:00"),
        ("tomorrow at 14:05", "2026-11-24T14:05:00"),
        ("tomorrow at noon", "2026-11-24T12:00:00"),
        ("the day after tomorrow", "2026-11-25T12:00:00"),
        ("next day at 9am PST", "2026-11-24T17:00:00"),
        ("tomorrow at 9am +08:00", "2026-11-24T01:00:00"),
        ("tomorrow at 9am Asia/Shanghai", "2026-11-24T01:00:00"),
        ("Friday at 3pm", "2026-11-27T15:00:00"),
        ("Friday at 3pm ET", "2026-11-27T20:00:00"),
        ("next monday 10:00", "2026-11-30T10:00:00"),
        ("monday at 9am", "2026-11-30T09:00:00"),
        ("next week", "2026-11-30T12:00:00"),
        ("9am", "2026-11-24T09:00:00"),
        ("december 1", "2026-12-01T00:00:00"),
        ("Dec 1, 2026 5pm", "2026-12-01T17:00:00"),
        ("1st of December at 17:30", "2026-12-01T17:30:00"),
        ("Fri, 27 Nov 2026 10:00:00 +0800", "2026-11-27T02:00:00"),
        ("Fri, 11 Dec 2026 10:00:00 GMT", "2026-12-11T10:00:00"),
    ],
)
def test_a_time_is_read_as_its_writer_meant_it(text: str, moment: str) -> None:
    assert _at(text) == moment


def test_eastern_time_is_an_hour_earlier_in_summer() -> None:
    assert _at("Friday at 3pm ET", JULY) == "2026-07-24T19:00:00"
    assert _at("Friday at 3pm EST", JULY) == "2026-07-24T20:00:00"


def test_on_a_friday_friday_is_today_while_it_can_be() -> None:
    assert _at("Friday at 3pm", FRIDAY) == "2026-11-27T15:00:00"
    assert _at("Friday at 9am", FRIDAY) == "2026-12-04T09:00:00"
    assert _at("next friday at 3pm", FRIDAY) == "2026-12-04T15:00:00"


def test_tomorrow_is_the_next_day_of_the_zone_that_was_named() -> None:
    late = NOW - 10 * 3_600_000  # 02:00 UTC: in New York it is still Sunday
    assert _at("tomorrow at 9am ET", late) == "2026-11-23T14:00:00"
    assert _at("tomorrow at 9am", late) == "2026-11-24T09:00:00"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a", "5", "12", "in 5", "may", "december", "nonsense", "asdf at 9am", "'; drop",
        "tomorrow at 9", "friday at 5", "tomorrow 9", "tomorrow at 9 30", "tomorrow at 25:00",
        "tomorrow at 24:00", "tomorrow at 13pm", "tomorrow at 0am", "tomorrow at 9:75",
        "tomorrow at 9:5", "tomorrow at 9am Foo/Bar", "tomorrow at 9am America/Argentina",
        "tomorrow at 9am ET CT", "tomorrow at 9am XYZ", "tomorrow at 9am;drop", "friday friday",
        "february 30 at 5pm", "2026-13-01", "2026-12-01T25:00:00Z", "2026-02-30", "1800000000",
        "01/12/2026", "in 99999999999999 days", "in 999999999999999999999999 years",
        "\u660e\u5929", "tomorrow at 9am \u202e", "tomorrow\x00",
        "2026-12-01T10:00:00Z" + " " * 100,
        "in " * 40, "9" * 100, "1:" * 50, "a/" * 50,
    ],
)  # fmt: skip
def test_what_could_only_be_guessed_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="Invalid `scheduled_at` field") as refusal:
        parse_when(text, now=NOW)
    assert refusal.value.field == "scheduled_at"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2 days ago", "future"),
        ("in -1 hours", "future"),
        ("today at 5am", "future"),
        ("2026-11-23T11:58:59Z", "future"),
        ("0001-01-01T00:00:00+23:00", "future"),
        ("in 31 days", "30 days ahead"),
        ("in 999999999 weeks", "30 days ahead"),
        ("9999-12-31T23:59:59-23:00", "30 days ahead"),
        ("2026-12-23T12:00:01Z", "30 days ahead"),
    ],
)
def test_the_past_and_the_far_future_are_refused(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        parse_when(text, now=NOW)


def test_thirty_days_are_allowed_to_the_millisecond() -> None:
    assert parse_when("in 30 days", now=NOW) == NOW + 30 * DAY_MS
    assert parse_when("in 3 days", now=NOW, days=3) == NOW + 3 * DAY_MS
    with pytest.raises(Invalid, match=r"at most 1\.5 days"):
        parse_when("in 3 days", now=NOW, days=1.5)


_words = st.sampled_from(
    ["in", "at", "on", "next", "the", "tomorrow", "today", "friday", "mon", "dec", "1", "3", "9",
     "25", "2026", "am", "pm", "9am", "10:00", "99:99", "hours", "days", "week", "month", "ago",
     "now", "noon", "ET", "UTC", "PST", "+08:00", "-", "/", ",", "Europe/Paris", "z"]
)  # fmt: skip


@given(
    text=st.lists(_words, max_size=7).map(" ".join)
    | st.text("0123456789-:TZ+. apm", max_size=30)
    | st.text(max_size=30),
    now=st.integers(0, 4_000_000_000_000),
)
@settings(max_examples=300, deadline=None)
def test_no_text_escapes_the_window_or_raises_anything_else(text: str, now: int) -> None:
    try:
        at = parse_when(text, now=now)
    except Invalid:
        return
    assert now <= at <= now + 30 * DAY_MS


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("2026-12-01T09:00:00Z", False),
        (" 2026-12-01 ", False),
        ("2026-99-99", False),
        ("in 5 minutes", False),
        ("IN 1 MIN", False),
        ("tomorrow at 9am", True),
        ("nonsense", True),
        ("in 1 month", True),
        ("tomorrow " * 100, False),
    ],
)
def test_what_would_stop_an_event_loop_is_known_beforehand(text: str, english: bool) -> None:
    assert is_english(text) is english


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [(0, 0), (90, 90_000), ("90", 90_000), ("10 min", 600_000), ("2h", 7_200_000),
     (" 3 Days ", 3 * DAY_MS), ("1 week", 7 * DAY_MS)],
)  # fmt: skip
def test_durations(value: str | int, milliseconds: int) -> None:
    assert parse_duration(value, field="expires_in") == milliseconds


@pytest.mark.parametrize("value", ["", "min", "1.5 h", "-1", -1, 10**9, True, "1 year", "1 h 2 m"])
def test_a_duration_that_is_none_is_refused(value: str | int) -> None:
    with pytest.raises(Invalid, match="Invalid `expires_in` field"):
        parse_duration(value, field="expires_in")
