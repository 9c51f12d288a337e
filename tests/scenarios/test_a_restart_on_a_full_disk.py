"""F4: The disk is full to its last byte, the server is killed, and started again on the full disk.
It either serves what it can, or says in one sentence why it cannot start. Nothing of it loops. When
there is room again, what was acknowledged is delivered, and what was refused is not there.

Invariants: I1, I4, I9, I16.
"""

import errno
import os
from pathlib import Path

import pytest

from tests.support.clients import copies, drain, email
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.journal import logged
from tests.support.power import Host
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

_FREE = {"EVERPOST_LIMITS_FREE_BYTES": "0"}


def _fill(path: Path) -> None:
    """Somebody else takes all that is left."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
        os.fsync(file.fileno())


def _post_until_refused(house: House, taken: list[str]) -> None:
    """Each is a message of its own; what was taken is added."""

    def full() -> bool:
        name = f"u{len(taken)}"
        answer = house.post("/emails", email(name, text=os.urandom(20_000).hex()))
        assert answer.status in (200, 503), answer
        if answer.status == 200:
            taken.append(str(answer.json["id"]))
            return False
        assert int(answer.headers["retry-after"]) >= 1
        return True

    wait_until(full, seconds=30, what="a refusal")


@pytest.mark.long
def test_a_restart_on_a_full_disk(tmp_path: Path) -> None:
    with (
        FarEnd(closed=("dot",)) as far,
        Host(tmp_path, mib=48) as host,
        host.house(processes=1, settings=_FREE) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        taken = [house.send(to=[f"u{n}@receiver.test"]) for n in range(3)]
        far.wait_reached("dot")
        filler = host.data.parent / "filler"
        _fill(filler)
        _post_until_refused(house, taken)
        house.kill()
        _fill(filler)
        far.open("dot")
        # It can: the log has room where it was written before, and the dead leave some.
        house.start()
        assert house.get(f"/emails/{taken[0]}").status == 200
        assert house.post("/emails", email("refused")).status in (200, 503)
        assert not logged(house, "child.ended")
        filler.unlink()
        assert drain(house)["delivered"] >= len(taken)
        came = copies(far)
        assert set(came) <= {*(f"u{n}" for n in range(len(taken))), "refused"}
        for n, id_ in enumerate(taken):
            doubts = sum(event["type"] == "in_doubt" for event in house.events(id_))
            assert 1 <= came[f"u{n}"] <= 1 + doubts
        assert house.findings() == []


def test_there_is_no_room_for_the_dot_log(tmp_path: Path) -> None:
    """Whoever delivers waits for it, under an alarm, and is not started again and again. (The store
    asks for room first, and can do without.)"""
    full = (
        *("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"),
        *("-e", "trace=fallocate", "-e", "inject=fallocate:error=ENOSPC:when=1..2"),
    )
    with FarEnd() as far, House(tmp_path / "d", processes=1, prefix=full) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        house.wait_status(house.send(), "delivered")
        assert len(logged(house, "alarm.raised", alarm="dots_unwritable")) == 1
        assert len(logged(house, "alarm.cleared", alarm="dots_unwritable")) == 1
        assert not logged(house, "child.ended")


@pytest.mark.long
def test_a_flush_finds_no_room(tmp_path: Path) -> None:
    """A file system may take a page and find only later that it has no block for it."""
    with FarEnd() as far, House(tmp_path / "d", processes=1) as house:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        (pid,) = house.children("api")
        with injecting(pid, "fdatasync:error=ENOSPC"):
            answer = house.post("/emails", email("refused"))
            assert answer.status == 503, answer
            assert int(answer.headers["retry-after"]) >= 1
        wait_until(
            lambda: house.post("/emails", email("after")).status == 200, seconds=20, what="room"
        )
        house.kill()
        house.start()
        drain(house)
        assert copies(far) == {"after": 1}
