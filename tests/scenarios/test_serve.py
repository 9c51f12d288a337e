"""`everpost serve` as a user meets it: first start, second start, end, crash, container."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until


def test_the_printed_curl_line_does_not_work(tmp_path: Path) -> None:
    """What is printed at the first start is pasted into a shell and must answer with an id."""
    with House(tmp_path / "d", key=None) as house:
        said = house.said.decode()
        line = said[said.index("curl") : said.index("and look at it")]
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, check=True, timeout=30
        )
        id_ = json.loads(done.stdout)["id"]
        key = re.search(r"API key +(\S+)", said)
        assert key is not None
        house.key = key[1]
        house.wait_status(id_, "delivered")
        listed = house.cli("sandbox", "list", "--json")
        assert id_ in listed.stdout
        shown = house.cli("sandbox", "show", id_)
        assert "It works." in shown.stdout
        assert house.recipients(id_)[0]["via"] == "sandbox"


def test_the_key_is_shown_or_kept_in_clear_a_second_time(tmp_path: Path) -> None:
    with House(tmp_path / "d", key=None) as house:
        found = re.search(rb"API key +(\S+)", house.said)
        assert found is not None
        key = found[1]
        house.stop()
        house.start()
        assert key not in house.said
        house.key = key.decode()
        assert house.get("/emails").status == 200
    for path in (tmp_path / "d").rglob("*"):
        if path.is_file():
            assert key not in path.read_bytes(), path


def test_a_second_start_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with House(tmp_path / "d") as house:
        other = House(tmp_path / "d")
        other.start(wait=False)
        assert other.wait_end(30) == 4
        assert b"already runs" in other.log.read_bytes()
        assert house.get("/health/ready").status == 200


@pytest.mark.long
def test_weaker_durability_starts_unasked_or_unseen(tmp_path: Path) -> None:
    with House(tmp_path / "d", settings={"EVERPOST_STORE_DURABILITY": "relaxed"}) as house:
        answer = house.post(
            "/emails", {"from": "a@b.test", "to": "c@d.test", "subject": "x", "text": "y"}
        )
        assert answer.json["durability"] == "relaxed"
        assert house.get("/status").json["durability"] == "relaxed"
    with House(tmp_path / "d2") as house:
        answer = house.post(
            "/emails", {"from": "a@b.test", "to": "c@d.test", "subject": "x", "text": "y"}
        )
        assert "durability" not in answer.json


def test_mail_in_hand_at_sigterm_is_finished_or_handed_back(tmp_path: Path) -> None:
    """One message waits for the answer to its dot, many more are in hand: the first ends, the
    others are sent after the restart, each once."""
    with FarEnd(closed=("dot",)) as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none", connections=1)
        house.domain(signing="unsigned")
        ids = [house.send(to=f"u{n}@receiver.test") for n in range(30)]
        far.wait_reached("dot")
        ending = subprocess.Popen(["kill", "-TERM", str(house.pid)])
        ending.wait()
        wait_until(
            lambda: b"role.draining" in house.log.read_bytes(), seconds=10, what="the draining"
        )
        far.open("dot")
        assert house.stop() == 0
        house.start()
        for id_ in ids:
            house.wait_status(id_, "delivered")
            types = [e["type"] for e in house.events(id_)]
            assert types == ["accepted", "delivered"]
        assert len(far.complete) == 30


def test_children_outlive_their_supervisor(tmp_path: Path) -> None:
    house = House(tmp_path / "d")
    house.start()
    house.kill()  # asserts that the children die
    house.start()
    assert house.get("/health/live").status == 200
    assert house.stop() == 0


def test_idle_processes_grow_beyond_the_budget(tmp_path: Path) -> None:
    """RULINGS: at most 250 MB in all while idle (proportional set size)."""
    with House(tmp_path / "d") as house:
        total = 0
        for pid in [house.pid, *house.children()]:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        assert total < 250 * 1024


def test_the_operator_socket_and_secrets_are_private(tmp_path: Path) -> None:
    with House(tmp_path / "d") as house:
        assert (house.data.stat().st_mode & 0o777) == 0o700
        for name in ("master.key", "run/admin.sock"):
            assert ((house.data / name).stat().st_mode & 0o077) == 0, name
        for pid in house.children():
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert house.key.encode() not in environment


def test_the_command_line_prints_what_programs_cannot_read(tmp_path: Path) -> None:
    with House(tmp_path / "d") as house:
        for words in ("status", "keys list", "relays list", "domains list", "sandbox list"):
            done = house.cli(*shlex.split(words), "--json")
            assert done.returncode == 0, done.stderr
            json.loads(done.stdout)
