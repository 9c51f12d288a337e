"""F9, F10: rows are lost, changed and flipped behind the back of a running house. The patrol raises
its alarm, `everpost verify` names each damage while mail goes on, `--repair` mends what is safe and
says so in the audit table, and what cannot be mended is still reported.

Invariants: I1, I2, I5, I20.
"""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from everpost.ids import parse
from tests.support.house import House
from tests.support.waiting import wait_until

SETTINGS = {"EVERPOST_VERIFY_RATE": "4000", "EVERPOST_VERIFY_EVERY_S": "0.5"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path / "d", settings=SETTINGS, processes=1) as house:
        yield house


def verify(house: House, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document."""
    done = house.cli("verify", "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def alarms(house: House) -> list[str]:
    found: list[str] = house.get("/status").json["alarms"]
    return found


def metric(house: House, name: str) -> dict[str, int]:
    """By its labels as they are written, the samples that are not 0."""
    found = re.search(rb"metrics +(http://\S+)", house.said)
    assert found is not None
    with urllib.request.urlopen(found[1].decode(), timeout=10) as answer:
        text = answer.read().decode()
    samples = re.findall(rf"^{name}(?:{{(.*?)}})? (\S+)$", text, re.MULTILINE)
    return {labels: int(float(value)) for labels, value in samples if float(value)}


def damage(house: House, *statements: tuple[str, str]) -> None:
    """Change rows of the message behind the house's back."""
    db = apsw.Connection(str(house.data / "everpost.db"))
    db.set_busy_timeout(10_000)
    for statement, id_ in statements:
        db.execute(statement, {"id": parse(id_), "nobody": b"\x01" * 16})
        assert db.changes() == 1
    db.close()


def test_rows_are_lost_changed_and_flipped(house: House) -> None:
    delivered = [house.send(to=["a@x.test", "b@x.test"]) for _ in range(5)]
    waiting = [house.send(scheduled_at="in 1 hour") for _ in range(2)]
    for id_ in delivered:
        house.wait_status(id_, "delivered")
    wait_until(
        lambda: metric(house, "everpost_ledger_last_pass_seconds") != {}, seconds=10, what="a pass"
    )
    code, before = verify(house)
    assert (code, before["consistent"], before["findings"]["total"]) == (0, True, 0)
    assert before["checked"]["recipients"] == 12
    assert alarms(house) == []
    shown = {
        **{name[7:-1]: n for name, n in metric(house, "everpost_recipients").items()},
        "accepted": metric(house, "everpost_recipients_accepted_total")[""],
    }
    assert shown == {"accepted": 12, "delivered": 10, "queued": 2}
    assert shown == {row["state"]: row["tally"] for row in before["totals"] if row["tally"]}
    assert shown == {row["state"]: row["recipients"] for row in before["totals"] if row["tally"]}

    # One thing that can be mended: the alarm comes, and ends with the next pass.
    damage(house, ("UPDATE tallies SET n = n + 5 WHERE state = 'delivered'", waiting[0]))
    wait_until(lambda: "ledger" in alarms(house), seconds=10, what="the alarm")
    assert metric(house, "everpost_ledger_findings") == {'kind="tally_off"': 1}
    code, done = verify(house, "--repair")
    assert (code, done["repaired"]["tallies"]) == (0, 1)
    wait_until(lambda: "ledger" not in alarms(house), seconds=10, what="the alarm to end")
    assert metric(house, "everpost_ledger_findings") == {}
    assert metric(house, "everpost_ledger_checked_total")

    # All sorts of things.
    damage(
        house,
        ("UPDATE contents SET sealed = zeroblob(9) WHERE id = :id", waiting[0]),
        ("UPDATE tallies SET n = n + 5 WHERE state = 'delivered'", waiting[0]),
        ("DELETE FROM events WHERE message = :id AND seq = 2", delivered[0]),
        ("DELETE FROM recipients WHERE message = :id AND n = 2", delivered[1]),
        (
            "INSERT INTO contents (id, project, key_id, sealed, checksum)"
            " SELECT :nobody, project, key_id, sealed, checksum FROM contents WHERE id = :id",
            delivered[2],
        ),
    )
    wait_until(lambda: "ledger" in alarms(house), seconds=10, what="the alarm")
    assert "ledger" in house.cli("status").stdout
    code, found = verify(house)
    assert code == 1
    assert found["findings"]["by_kind"] == {
        "content_damaged": 1, "event_gap": 1, "orphan_content": 1, "recipient_missing": 1,
        "tally_off": 2,  # the row that is gone was counted as accepted, too
    }  # fmt: skip
    named = {f["kind"]: f for f in found["findings"]["first"]}
    assert named["content_damaged"]["message"] == waiting[0]
    assert named["event_gap"]["message"] == delivered[0]
    assert (named["recipient_missing"]["message"], named["recipient_missing"]["recipient"]) == (
        delivered[1],
        2,
    )
    assert {kind for kind, finding in named.items() if finding["mends"]} == {
        "content_damaged", "orphan_content", "tally_off",
    }  # fmt: skip

    # Mail goes on, and what is safe is mended beneath it.
    later = house.send()
    code, mended = verify(house, "--repair")
    assert code == 1
    assert (mended["repaired"]["held"], mended["repaired"]["set_aside"]) == (1, 1)
    assert mended["findings"]["by_kind"] == {
        "content_damaged": 1, "event_gap": 1, "recipient_missing": 1,
    }  # fmt: skip
    assert not any(finding["mends"] for finding in mended["findings"]["first"])
    assert [r["status"] for r in house.recipients(waiting[0])] == ["held"]
    house.wait_status(later, "delivered")
    [kept] = (house.data / "set-aside").glob("*.jsonl")
    assert json.loads(kept.read_text())["table"] == "contents"
    db = apsw.Connection(str(house.data / "everpost.db"), flags=apsw.SQLITE_OPEN_READONLY)
    audited = db.execute("SELECT action FROM audit WHERE actor = 'verify'").fetchall()
    db.close()
    assert {action for (action,) in audited} == {"hold", "set_aside", "correct"}

    # Stopped, it says the same; to people, too.
    house.stop()
    code, stopped = verify(house)
    assert (code, stopped["findings"]) == (1, mended["findings"])
    text = house.cli("verify")
    assert text.returncode == 1
    assert "recipient_missing" in text.stdout
