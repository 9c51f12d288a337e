"""F61: a relay answers EHLO, and refuses every MAIL. A health check that stops at EHLO finds it
well; ours goes as far as MAIL, so the relay is out of service before any mail has met it, and back
when it relents.

Invariants: I18, I19.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.support.far_end import FarEnd
from tests.support.hosting import hosted, url_of
from tests.support.house import House
from tests.support.stage import relays, serving
from tests.support.tiny_smtp import ScriptedServer
from tests.support.waiting import wait_until

NO, YES = b"451 4.3.0 Mail server temporarily rejected message\r\n", b"250 2.1.0 ok\r\n"


def _status(house: House, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = house.get("/relays/status").json["data"]
    return next(each for each in found if each["name"] == name)


def _wait(house: House, name: str, circuit: str) -> dict[str, Any]:
    wait_until(
        lambda: _status(house, name)["circuit"] == circuit,
        seconds=20,
        what=lambda: f"{circuit}: {_status(house, name)}\n{house.tail()}",
    )
    return _status(house, name)


@pytest.mark.long
def test_a_relay_that_refuses_every_mail_is_found_without_mail(tmp_path: Path) -> None:
    gray = ScriptedServer({"MAIL": NO})
    with (
        hosted(gray),
        FarEnd() as good,
        serving(tmp_path, {"EVERPOST_DELIVERY_PROBE_S": "1"}) as house,
        relays(house, gray=url_of(gray), good=good.url),
    ):
        status = _wait(house, "gray", "open")
        assert (status["phase"], status["speaker"]) == ("mail", "relay"), status
        assert status["probe"]["refusal"].startswith("451 4.3.0"), status
        assert status["until"] is not None
        assert not gray.mail

        refused = gray.log.count("RSET") + sum(line.startswith("MAIL") for line in gray.log)
        for id_ in [house.send() for _ in range(20)]:
            (recipient,) = house.wait_status(id_, "delivered")
            assert [a["relay"] for a in recipient["attempts"]] == ["good"]
        assert not any(line.startswith("RCPT") for line in gray.log)
        assert refused >= 1

        gray.script = {"MAIL": YES}
        _wait(house, "gray", "half_open")
        assert not gray.mail
        wait_until(
            lambda: bool(house.send() and gray.mail),
            seconds=20,
            what=lambda: f"mail to come back\n{house.tail()}",
        )
        _wait(house, "gray", "closed")
