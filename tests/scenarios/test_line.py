"""The line end to end: what becomes of mail when relays and destinations misbehave."""

import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until


def _types(house: House, id_: str) -> list[str]:
    return [e["type"] for e in house.events(id_)]


def test_fifty_posts_of_one_key_make_more_than_one_message(tmp_path: Path) -> None:
    with FarEnd() as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        body = {"from": "a@example.test", "to": "b@receiver.test", "subject": "x", "text": "y"}
        key = str(uuid.uuid4())
        start = threading.Barrier(50)

        def post(_: int) -> tuple[int, str]:
            start.wait(20)
            answer = house.call("POST", "/emails", body, headers={"Idempotency-Key": key})
            return answer.status, answer.json.get("id") or answer.json["name"]

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(post, range(50)))
        ids = {text for status, text in answers if status == 200}
        assert len(ids) == 1
        assert {text for status, text in answers if status != 200} <= {
            "concurrent_idempotent_requests"
        }
        house.wait_status(ids.pop(), "delivered")
        assert len(far.complete) == 1


def test_an_idempotency_key_is_forgotten_in_a_crash(tmp_path: Path) -> None:
    body = {"from": "a@example.test", "to": "b@receiver.test", "subject": "x", "text": "y"}
    house = House(tmp_path / "d")
    house.start()
    first = house.call("POST", "/emails", body, headers={"Idempotency-Key": "order-1"})
    house.kill()
    house.start()
    again = house.call("POST", "/emails", body, headers={"Idempotency-Key": "order-1"})
    other = house.call(
        "POST", "/emails", {**body, "subject": "z"}, headers={"Idempotency-Key": "order-1"}
    )
    assert first.json["id"] == again.json["id"]
    assert (other.status, other.json["name"]) == (409, "invalid_idempotent_request")
    house.stop()


def test_a_temporary_refusal_is_given_up_or_a_final_one_retried(tmp_path: Path) -> None:
    refuse = {"later": "451 4.3.0 try later", "never": "550 5.1.1 no such user"}
    with FarEnd(refuse=refuse) as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        id_ = house.send(to=["good@r.test", "later@r.test", "never@r.test"])
        found = {
            r["address"]: r for r in house.wait_status(id_, "delivered", "deferred", "bounced")
        }
        assert found["good@r.test"]["status"] == "delivered"
        assert found["later@r.test"]["status"] == "deferred"
        assert found["never@r.test"]["status"] == "bounced"
        attempt = found["never@r.test"]["attempts"][0]
        assert attempt["outcome"]["reply"]["code"] == 550
        assert attempt["outcome"]["reply"]["enhanced"] == "5.1.1"
        assert attempt["relay"] is not None
        assert house.get(f"/emails/{id_}").json["last_event"] == "delivery_delayed"
        assert [m.recipients for m in far.taken] == [["good@r.test"]]


def test_a_relays_own_refusal_bounces_recipients(tmp_path: Path) -> None:
    """The relay refuses everyone for its own reasons (F57): nobody bounces; when it relents, all
    is delivered."""
    refuse = {"b": "550 5.7.1 relaying denied: authentication required"}
    with FarEnd(refuse=refuse) as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        id_ = house.send(to="b@r.test")
        recipient = house.wait_status(id_, "deferred")[0]
        assert recipient["attempts"][0]["outcome"]["speaker"] == "relay"
        assert "bounced" not in _types(house, id_)


def test_one_slow_destination_holds_up_the_others(tmp_path: Path) -> None:
    """Forty messages hang in a destination that never answers the dot; another one's mail goes
    through at once."""
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none", connections=8)
        house.domain(signing="unsigned")
        far.close("dot")
        stuck = [house.send(to=f"u{n}@slow.test") for n in range(40)]
        far.wait_reached("dot")
        wait_until(lambda: len(far.complete) >= 6, seconds=20, what="the slow ones to hang")
        hanging = len(far.complete)
        assert hanging < 8  # room is left
        quick = house.send(to="u@quick.test")
        wait_until(
            lambda: any(m.recipients == ["u@quick.test"] for m in far.complete),
            seconds=20,
            what="the quick destination's mail to be handed over",
        )
        far.open("dot")
        house.wait_status(quick, "delivered")
        for id_ in stuck:
            house.wait_status(id_, "delivered")


@pytest.mark.long
def test_mail_leaves_after_its_lifetime(tmp_path: Path) -> None:
    refuse = {"b": "451 4.3.0 try later"}
    with FarEnd(refuse=refuse) as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        id_ = house.send(to="b@r.test", expires_in=10)
        house.wait_status(id_, "deferred", "expired")
        house.wait_status(id_, "expired", seconds=40)
        assert _types(house, id_) == ["accepted", "deferred", "expired"]
        assert house.get(f"/emails/{id_}").json["last_event"] == "failed"


@pytest.mark.long
def test_an_unreadable_dkim_key_lets_mail_out_unsigned(tmp_path: Path) -> None:
    """F84: the key in the store is damaged; mail waits and an alarm stands."""
    with FarEnd() as far:
        house = House(tmp_path / "d")
        house.start()
        house.relay(far.url, tls="none")
        house.domain()
        house.stop()
        with sqlite3.connect(house.data / "everpost.db") as db:
            db.execute("UPDATE dkim_keys SET sealed = zeroblob(64)")
        db.close()
        house.start()
        id_ = house.send()
        house.wait_status(id_, "deferred")
        wait_until(
            lambda: "dkim_key_unreadable" in house.get("/status").json["alarms"],
            seconds=20,
            what="the alarm",
        )
        assert far.complete == []
        house.stop()


def test_cancelled_mail_is_sent(tmp_path: Path) -> None:
    with FarEnd() as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        id_ = house.send(to="late@r.test", scheduled_at="in 3 seconds")
        assert house.post(f"/emails/{id_}/cancel", {}).status == 200
        after = house.send(to="marker@r.test", scheduled_at="in 4 seconds")
        house.wait_status(after, "delivered")
        assert [m.recipients for m in far.complete] == [["marker@r.test"]]
        assert house.get(f"/emails/{id_}").json["last_event"] == "canceled"
        assert house.post(f"/emails/{id_}/cancel", {}).status == 422


@pytest.mark.long
def test_mail_accepted_without_a_relay_is_lost(tmp_path: Path) -> None:
    with FarEnd() as far, House(tmp_path / "d") as house:
        house.domain(signing="unsigned")
        id_ = house.send()
        house.wait_status(id_, "deferred")
        wait_until(
            lambda: "no_relay" in house.get("/status").json["alarms"], seconds=20, what="the alarm"
        )
        house.relay(far.url, tls="none")
        house.wait_status(id_, "delivered", seconds=40)


def test_the_first_captured_mail_is_sent_once_a_relay_is_there(tmp_path: Path) -> None:
    """What the sandbox caught stays in the sandbox."""
    with FarEnd() as far, House(tmp_path / "d") as house:
        caught = house.send()
        house.wait_status(caught, "delivered")
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        sent = house.send(to="real@r.test")
        house.wait_status(sent, "delivered")
        assert [m.recipients for m in far.complete] == [["real@r.test"]]
        assert house.recipients(caught)[0]["via"] == "sandbox"


def test_an_accept_waits_for_the_poll(tmp_path: Path) -> None:
    """Dispatch is woken at once: with polling every minute, mail still leaves in seconds."""
    settings = {"EVERPOST_DISPATCH_POLL_S": "60"}
    with FarEnd() as far, House(tmp_path / "d", settings=settings) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        id_ = house.send()
        house.wait_status(id_, "delivered", seconds=20)
        assert len(far.complete) == 1


def test_captured_mail_carries_a_usable_signature(tmp_path: Path) -> None:
    """The sandbox lets anyone name any sender: what it shows must not be fit to be sent."""
    with FarEnd() as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain()
        made = house.post("/api-keys", {"name": "playground", "sandbox": True})
        assert made.status == 200, made
        house.key = made.json["token"]
        id_ = house.send()
        house.wait_status(id_, "delivered")
        shown = house.get(f"/sandbox/{id_}").json
        assert "DKIM-Signature" not in shown["raw"]
        assert "Subject: A test" in shown["raw"]
        assert far.complete == []


def test_one_recipient_that_needs_utf8_bounces_the_others(tmp_path: Path) -> None:
    """The relay has no SMTPUTF8: only the address that needs it bounces (RFC 6531 §3.2)."""
    with FarEnd() as far, House(tmp_path / "d") as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        id_ = house.send(to="bob@r.test", bcc="jürgen@r.test")
        found = {r["address"]: r for r in house.wait_status(id_, "delivered", "bounced")}
        assert found["bob@r.test"]["status"] == "delivered"
        assert found["jürgen@r.test"]["status"] == "bounced"
        assert found["jürgen@r.test"]["attempts"][0]["outcome"]["reply"]["enhanced"] == "5.6.7"


@pytest.mark.long
def test_mail_that_waits_for_a_free_connection_leaves_after_its_lifetime(tmp_path: Path) -> None:
    with FarEnd(closed=("dot",)) as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none", connections=1)
        house.domain(signing="unsigned")
        first = house.send(to="first@r.test")
        far.wait_reached("dot")
        code = house.send(to="code@r.test", expires_in=10)
        end = datetime.fromisoformat(house.recipients(code)[0]["expires_at"])
        wait_until(
            lambda: datetime.now(UTC) > end, seconds=20, what="the end of the code's lifetime"
        )
        far.open("dot")
        house.wait_status(first, "delivered")
        house.wait_status(code, "expired")
        assert [m.recipients for m in far.complete] == [["first@r.test"]]


def test_mail_goes_through_a_relay_that_was_removed_before_it_was_accepted(tmp_path: Path) -> None:
    with FarEnd() as old, FarEnd() as new, House(tmp_path / "d") as house:
        house.relay(old.url, tls="none", name="old")
        house.domain(signing="unsigned")
        for _ in range(5):
            house.wait_status(house.send(), "delivered")
            kept = {r["name"]: r["id"] for r in house.get("/relays").json["data"]}
            gone, url, name = ("old", new.url, "new") if "old" in kept else ("new", old.url, "old")
            before = len(old.complete) if gone == "old" else len(new.complete)
            assert house.call("DELETE", f"/relays/{kept[gone]}").status == 200
            house.relay(url, tls="none", name=name)
            house.wait_status(house.send(), "delivered")
            assert before == (len(old.complete) if gone == "old" else len(new.complete))
