"""The mail server of the chaos suite misbehaves as it is told, and its journal says what came."""

import smtplib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.operations import body_hash, text_of
from tests.chaos.sink import BEHAVIOURS, REFUSED, Sink

_GOOD = "x@receiver.test"


def _deliver(sink: Sink, *recipients: str) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP("127.0.0.1", sink.port, timeout=10) as session:
        mail = f"Message-ID: <1@test>\r\nSubject: c0-0.0\r\n\r\n{text_of('c0-0.0')}"
        return session.sendmail("a@example.test", recipients or [_GOOD], mail)


def test_one_refused_among_many_is_in_no_line_of_the_journal(tmp_path: Path) -> None:
    with Sink(tmp_path) as sink:
        assert list(_deliver(sink, _GOOD, f"{REFUSED}y@receiver.test")) == [
            f"{REFUSED}y@receiver.test"
        ]
    (taken,) = sink.taken()
    assert taken.recipients == (_GOOD,)
    assert taken.body == body_hash("c0-0.0")
    assert (taken.message_id, taken.answer) == ("1@test", "250")


@pytest.mark.parametrize(
    ("behaviour", "error", "kept"),
    [
        ("swallow", smtplib.SMTPServerDisconnected, 1),
        ("refuse_421", smtplib.SMTPConnectError, 0),
        ("refuse_451", smtplib.SMTPSenderRefused, 0),
        ("reset_in_data", smtplib.SMTPServerDisconnected, 0),
        ("down", ConnectionRefusedError, 0),
    ],
)
def test_it_misbehaves_until_it_is_told_to_be_good(
    tmp_path: Path, behaviour: str, error: type[Exception], kept: int
) -> None:
    assert behaviour in BEHAVIOURS
    with Sink(tmp_path) as sink:
        sink.behave(behaviour)
        with pytest.raises(error):
            _deliver(sink)
        sink.behave("ok")
        assert _deliver(sink) == {}
    assert [each.answer for each in sink.taken()] == [""] * kept + ["250"]


def test_a_session_that_was_open_is_cut_off_when_it_goes_down(tmp_path: Path) -> None:
    with Sink(tmp_path) as sink, smtplib.SMTP("127.0.0.1", sink.port, timeout=10) as session:
        session.ehlo()
        sink.behave("down")
        ask: Callable[[], object] = session.noop
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
            ask()
        session.close()
