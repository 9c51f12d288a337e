"""F9: bits flip in the database while the service is stopped: in a message's content, in addresses,
in a large attachment, in an index, and in the pages that hold it all together. What was changed is
held as damaged, with an alarm, and never sent; all other mail goes out; `everpost verify` says
which. Where the database itself cannot be read, callers get 503 and a name, nothing runs in
circles, and a restored file is all it takes.

Invariants: I1, I2, I10, I16.
"""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from everpost.ids import parse
from tests.support.house import Answer, House
from tests.support.journal import logged, wait_logged
from tests.support.waiting import wait_until

PAGE = 4096


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "d", processes=1)
    yield house
    house.stop()


class File:
    """The database of a stopped house."""

    def __init__(self, house: House) -> None:
        self.path = house.data / "everpost.db"
        assert not Path(f"{self.path}-wal").exists()  # all of it is in this one file

    def ask(self, sql: str, *values: Any) -> Any:
        db = apsw.Connection(str(self.path))
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    def all_is_due(self) -> None:
        self.ask("UPDATE recipients SET not_before = 0 WHERE state = 'queued'")

    def flip(self, near: bytes, at: int, *, bit: int = 0) -> None:
        """A bit of the byte `at` bytes behind where `near` first stands."""
        stored = bytearray(self.path.read_bytes())
        stored[stored.index(near) + at] ^= 1 << bit
        self.path.write_bytes(stored)

    def page(self, name: str) -> int:
        """Where the first page of a table or index begins."""
        rows = self.ask("SELECT rootpage FROM sqlite_schema WHERE name = ?", name)
        return (int(rows[0][0]) - 1) * PAGE

    def sealed(self, sql: str, *values: Any) -> bytes:
        """The beginning of one stored blob."""
        ((sealed,),) = self.ask(sql, *values)
        return bytes(sealed)[:40]


def later(house: House, **fields: Any) -> str:
    return house.send(scheduled_at="in 1 hour", **fields)


def verify(house: House) -> tuple[int, dict[str, Any]]:
    done = house.cli("verify", "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def alarms(house: House) -> list[str]:
    found: list[str] = house.get("/status").json["alarms"]
    return found


def test_what_was_changed_is_held_and_all_other_mail_goes_out(house: House) -> None:
    house.start()
    attachment = {
        "filename": "a.bin",
        "content": base64.b64encode(b"attached" * 50_000).decode(),
    }
    content = later(house)
    address = later(house, to=["flipped-one@receiver.test", "sound@receiver.test"])
    unreadable = later(house, to=["flipped-two@receiver.test"])
    part = later(house, attachments=[attachment])
    good = [later(house, to=[f"good{n}@receiver.test"]) for n in range(5)]
    house.stop()

    file = File(house)
    file.all_is_due()
    file.flip(file.sealed("SELECT sealed FROM contents WHERE id = ?", parse(content)), 30)
    file.flip(b"flipped-one@receiver.testreceiver.test", 3)  # the row that is sent by
    file.flip(b"flipped-two@receiver.testreceiver.test", 3, bit=7)
    file.flip(file.sealed("SELECT sealed FROM parts"), 30)
    index = file.page("messages_sandbox")
    stored = bytearray(file.path.read_bytes())
    stored[index + PAGE - 1] ^= 1  # the id in its oldest entry
    file.path.write_bytes(stored)

    house.start()
    for id_ in good:
        house.wait_status(id_, "delivered")
    for id_, why in (
        (content, "content checksum"),
        (unreadable, "recipient unreadable"),
        (part, "a stored part of day"),
    ):
        (recipient,) = house.wait_status(id_, "held")
        assert recipient["reason"] == "damaged"
        assert why in house.events(id_)[-1]["data"]["reason"]
        assert house.get(f"/emails/{id_}").status == 200
    assert house.get(f"/emails/{content}").json["text"] is None
    changed, sound = house.wait_status(address, "held", "delivered")
    assert (changed["status"], changed["reason"]) == ("held", "damaged")
    assert (sound["status"], sound["reason"]) == ("delivered", None)
    assert house.get("/emails?limit=50").status == 200
    assert {"content_corrupt", "row_corrupt"} <= set(alarms(house))

    code, report = verify(house)
    assert (code, report["consistent"]) == (1, False)
    kinds = report["findings"]["by_kind"]
    assert kinds["content_damaged"] == kinds["part_damaged"] == 1
    assert kinds["recipient_damaged"] == 2
    (said,) = [f["text"] for f in report["findings"]["first"] if f["kind"] == "store_damaged"]
    assert "messages_sandbox" in said

    # released, it is looked at again, and held again: never sent
    assert house.post(f"/emails/{content}/release", {}).status == 200
    wait_until(
        lambda: [e["type"] for e in house.events(content)][-2:] == ["released", "held"],
        seconds=10,
        what=lambda: str(house.events(content)),
    )


def refused(answer: Answer) -> bool:
    return (
        answer.status == 503
        and answer.json["name"] == "store_corrupt"
        and int(answer.headers["retry-after"]) >= 1
    )


@pytest.mark.long
def test_the_pages_of_a_table_are_torn(house: House) -> None:
    house.start()
    ids = [later(house) for _ in range(3)]
    house.stop()
    file = File(house)
    file.all_is_due()
    sound = house.data.parent / "sound.db"
    shutil.copy(file.path, sound)
    at = file.page("recipients")
    stored = bytearray(file.path.read_bytes())
    stored[at : at + 64] = b"\xa5" * 64
    file.path.write_bytes(stored)

    house.start()
    children = house.children()
    draft = {"from": "s@example.test", "to": "t@receiver.test", "subject": "x", "text": "y"}
    assert refused(house.post("/emails", draft))
    assert refused(house.get(f"/emails/{ids[0]}"))
    assert refused(house.get("/emails"))
    wait_until(lambda: house.get("/health/ready").status == 503, seconds=10, what="to be taken out")
    wait_logged(house, "alarm.raised", alarm="store_corrupt")
    wait_logged(house, "dispatch.claim_failed")
    code, report = verify(house)
    assert (code, report["findings"]["by_kind"].keys() >= {"store_damaged"}) == (1, True)
    assert house.children() == children
    assert len(logged(house, "store.queue_doubted")) <= len(children)  # not again and again
    house.stop()

    shutil.copy(sound, file.path)
    house.start()
    for id_ in ids:
        house.wait_status(id_, "delivered")
    assert house.get("/health/ready").status == 200
    assert alarms(house) == []


@pytest.mark.long
def test_it_is_no_database_any_more(house: House) -> None:
    house.start()
    id_ = house.send()
    house.wait_status(id_, "delivered")
    house.stop()
    file = File(house)
    file.flip(b"SQLite format 3", 0)
    house.start(wait=False)
    assert house.wait_end(30) == 1
    said = house.tail()
    assert "Everpost cannot start: the database is damaged" in said
    assert "restore a backup" in said
    assert "Traceback" not in said
    done = house.cli("verify")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    file.flip(b"RQLite format 3", 0)
    house.start()
    house.wait_status(id_, "delivered")
