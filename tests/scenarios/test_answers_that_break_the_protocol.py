"""F58: a relay's answers are malformed, endless, huge, or hold control bytes. They are parsed
strictly and within limits, the mail is deferred, memory stays bounded, and what the API and the log
show of them is short and printable.

Invariants: I5, I12, I16, I21.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.far_end import FarEnd
from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.stage import check_record, over, put_off, relays, serving, types
from tests.support.tiny_smtp import Endless, Misfortune, ScriptedServer

BROKEN: dict[str, tuple[str, dict[str, bytes | Misfortune]]] = {
    "no code": ("greet", {"BANNER": b"hello there\r\n"}),
    "another protocol": ("greet", {"BANNER": b"HTTP/1.1 400 Bad Request\r\n\r\n"}),
    "bare line feed": ("rcpt", {"RCPT": b'250 ok\n{"event": "forged"}\r\n'}),
    "codes that differ": ("mail", {"MAIL": b"250-one\r\n550 two\r\n"}),
    "a code that is none": ("rcpt", {"RCPT": b"950 5.1.1 gone\r\n"}),
    "a line without end": ("rcpt", {"RCPT": Endless(b"250 " + b"x" * 65_536)}),
    "a reply without end": ("mail", {"MAIL": Endless(b"250-and so on\r\n" * 4_096)}),
    "a greeting without end": ("greet", {"BANNER": Endless(b"220-and so on\r\n" * 4_096)}),
    "a megabyte": ("greet", {"EHLO": b"250-" + b"x" * 1_000_000 + b"\r\n250 ok\r\n"}),
    "a thousand lines": ("greet", {"EHLO": b"250-KEYWORD\r\n" * 1_000 + b"250 ok\r\n"}),
    "zero bytes": ("mail", {"MAIL": b"\x00" * 100_000 + b"\r\n"}),
}
"""What is said, and in which phase it is noticed."""

MOST_GROWTH = 24 * 1024
"""KiB that a process may grow by while it is told endless things: nothing near what is sent."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("house")) as house:
        yield house


def _shown(house: House, id_: str) -> list[str]:
    """Every text that the API shows of this message's attempts and events."""
    return list(_texts([house.recipients(id_), house.events(id_)]))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _check_log(house: House) -> None:
    """Each line is one event of ours, printable, of bounded length."""
    for line in house.log.read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["event"] != "forged"
        assert line.isprintable()
        assert len(line) < 4_000


def _memory(pid: int, field: str) -> int:
    """KiB, as /proc/PID/status tells."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {field}")


@pytest.mark.parametrize("answer", sorted(BROKEN))
def test_a_broken_answer_harms_more_than_its_session(house: House, answer: str) -> None:
    """The mail is deferred by what was noticed; other mail goes out by the same process, which has
    not grown."""
    phase, script = BROKEN[answer]
    far = ScriptedServer(script)
    (pid,) = house.children("dispatch")
    before = _memory(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here
    with hosted(far), relays(house, only=url_of(far)):
        id_ = house.send()
        outcome = put_off(house, id_, phase=phase)
        assert outcome["reason"].startswith("malformed reply: ")
        assert outcome["reply"] is None
        assert far.mail == []
        assert all(len(text) <= 400 and text.isprintable() for text in _shown(house, id_))
        over(house, id_)
    assert _memory(pid, "VmHWM") - before < MOST_GROWTH
    with FarEnd() as good, relays(house, good=good.url):
        house.wait_status(house.send(), "delivered")
    assert house.children("dispatch") == [pid]
    _check_log(house)


def test_control_bytes_of_an_answer_reach_a_screen(house: House) -> None:
    """A correct refusal of several lines, with bytes that would colour a terminal, forge a line or
    turn the text around; the bounce is as good as any."""
    said = (
        b"550-5.1.1 caf\xe9 \x1b[2J\x1b[31mred\r\n"
        b'550-5.1.1 {"event": "forged"}\r"\x00\x07\x7f\r\n'
        b"550-5.1.1 \xe2\x80\xae\xe2\x80\x8b \xe4\xbd\xa0\xe5\xa5\xbd\r\n"
        b"550 5.1.1 \tend\r\n"
    )
    far = ScriptedServer({"RCPT": said})
    with hosted(far), relays(house, only=url_of(far)):
        id_ = house.send()
        (recipient,) = house.wait_status(id_, "bounced")
        reply = recipient["attempts"][0]["outcome"]["reply"]
        assert (reply["code"], reply["enhanced"]) == (550, "5.1.1")
        first, second, third, last = reply["text"].split("\n")
        assert first == r"caf\xe9 \x1b[2J\x1b[31mred"
        assert second == r'{"event": "forged"}\x0d"\x00\x07\x7f'
        assert third == r"\u202e\u200b 你好"
        assert last.strip() == "end"
        assert types(house, id_) == ["accepted", "bounced"]
        check_record(house, id_)
        _check_log(house)


def test_a_long_refusal_is_kept_in_full(house: House) -> None:
    """A hundred lines of 500 characters are within the protocol's limits; a part is enough for the
    record, at its beginning."""
    said = b"550-5.1.1 begin\r\n" + b"550-5.1.1 " + b"y" * 500 + b"\r\n"
    said += (b"550-5.1.1 " + b"y" * 500 + b"\r\n") * 98 + b"550 5.1.1 end\r\n"
    far = ScriptedServer({"RCPT": said})
    with hosted(far), relays(house, only=url_of(far)):
        id_ = house.send()
        (recipient,) = house.wait_status(id_, "bounced")
        text = recipient["attempts"][0]["outcome"]["reply"]["text"]
        assert text.startswith("begin\nyyyy")
        assert len(text) == 2_000
        assert all(len(text) <= 2_000 for text in _shown(house, id_))
        check_record(house, id_)
        _check_log(house)
