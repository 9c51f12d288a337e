"""`relays test`: one message through the one relay that was named, though it is disabled and
another would have taken it; what the mail server said is shown whole, and the exit code tells.

Invariants: I12.
"""

from pathlib import Path

from tests.support.far_end import FarEnd
from tests.support.house import House


def test_a_test_goes_another_way_or_hides_the_answer(tmp_path: Path) -> None:
    refuse = {"nobody": "550 5.1.1 no such user here", "later": "451 4.2.1 mailbox busy"}
    with FarEnd(refuse=refuse) as far, FarEnd() as other, House(tmp_path / "d") as house:
        house.relay(far.url, name="tested", tls="none", probe=False, state="disabled")
        house.relay(other.url, name="other", tls="none", probe=False)
        house.domain(signing="unsigned")

        good = house.cli("relays", "test", "tested", "--to", "you@receiver.test")
        assert good.returncode == 0, good
        for word in ("delivered", "250 2.0.0 taken", "tested", "dot", "tls"):
            assert word in good.stdout
        (message,) = far.taken
        assert (message.sender.partition("@")[2], message.recipients) == (
            "example.test", ["you@receiver.test"],
        )  # fmt: skip
        assert b"postmaster@example.test" in message.data

        words = ("relays", "test", "tested", "--from", "me@example.test", "--to")
        bad = house.cli(*words, "nobody@receiver.test")
        assert (bad.returncode, "550 5.1.1 no such user here" in bad.stdout) == (1, True), bad
        waits = house.cli(*words, "later@receiver.test")
        assert (waits.returncode, "451 4.2.1 mailbox busy" in waits.stdout) == (1, True), waits
        stranger = house.cli(
            "relays", "test", "tested", "--from", "a@other.test", "--to", "b@c.test"
        )
        assert (stranger.returncode, "other.test" in stranger.stderr) == (1, True), stranger

        house.send(to="all@receiver.test")
        other.wait_taken(1)
        assert (len(far.taken), len(other.taken)) == (1, 1)
