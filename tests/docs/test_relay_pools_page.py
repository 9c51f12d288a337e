"""docs/operate/relay-pools.md says what the commands and the server do."""

import re
import shlex
from pathlib import Path

import click
import pytest

from everpost.catalog.pool_form import MOST_POOLS, MOST_ROUTES
from everpost.catalog.relay_form import MOST_RELAYS
from everpost.cli.root import root
from everpost.config.settings import DeliverySettings
from everpost.delivery import allowance, breaker, course, pool, shaping
from everpost.model.pool import Pool
from everpost.model.relay import Relay
from tests.support.house import House

PAGE = (Path(__file__).parents[2] / "docs/operate/relay-pools.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    everpost (.+)$", PAGE, re.MULTILINE)


def _find(words: list[str]) -> click.Command:
    """The command that the first words name; they are taken away."""
    found: click.Command = root
    while isinstance(found, click.Group):
        context = click.Context(found)
        name = words.pop(0)
        child = found.get_command(context, name)
        assert child is not None, name
        found = child
    return found


def test_the_page_shows_no_commands() -> None:
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("line", COMMANDS)
def test_the_page_shows_a_command_that_is_none(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("pw")
    if "|" in line:  # alternatives, without all of their words
        group, rest = line.split(" ", 1)
        for alternative in rest.split("|"):
            _find([group, alternative.split()[0]])
        return
    words = shlex.split(line, comments=True)
    command = _find(words)
    with command.make_context(command.name, words):
        pass  # leaving it closes the files that it opened


def test_the_file_on_the_page_is_refused_or_applied_twice(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "everything.toml").write_text(block, encoding="utf-8")
    (tmp_path / "main.secret").write_text("hunter2canary\n", encoding="utf-8")
    with House(tmp_path / "d", processes=1) as house:
        words = ("apply", "-f", str(tmp_path / "everything.toml"))
        tried = house.cli(*words, "--dry-run")
        assert tried.returncode == 0, tried
        assert "6 added, 2 changed: nothing was changed yet." in tried.stdout
        assert house.get("/relays").json["data"] == []
        done = house.cli(*words)
        assert "6 added, 2 changed." in done.stdout, done
        assert house.cli(*words, "--prune").stdout == "Nothing is different.\n"
        shown = house.cli("relays", "status")
        assert shown.stdout.count("unknown") == 3, shown
        way = house.cli("routes", "explain", "--from", "a@x.test", "--to", "b@x.test")
        assert "main, second > direct" in way.stdout
        assert "its stream's own pool" in way.stdout
        assert "hunter2canary" not in tried.stdout + done.stdout + house.tail()


def test_the_page_names_another_number() -> None:
    words = " ".join(PAGE.split())
    minute, hour = 60_000, 3_600_000
    for said in (
        f"login, 421) | {breaker.HARD_IN_A_ROW};",
        f"two parties or more | {breaker.SOFT_IN_A_ROW}; {breaker.PROVED_IN_A_ROW} if another",
        f"at least {breaker.WINDOW_MINIMUM} transactions, of three parties, within "
        f"{breaker.WINDOW:.0f} s | {breaker.WINDOW_RATE} |",
        f"median | {pool.OUTLIER_TIMES:.0f} times, and {pool.OUTLIER_SECONDS:.0f} s more;",
        f"`delivery.eject_s` | {breaker.OPEN_FOR:.0f} s, doubled by each opening, "
        f"{2**breaker.DOUBLINGS} times at most; one opening is forgotten after "
        f"{breaker.FORGIVEN_AFTER:.0f} s of health",
        f"every {DeliverySettings().probe_s:.0f} s (`delivery.probe_s`)",
        f"fault or {breaker.TRIALS} of the second",
        f"from {breaker.FIRST_SHARE:.0%} to 100 % of its weight over".replace("%", " %", 1)
        + f" {breaker.SLOW_START:.0f} s",
        f"until {pool.RETURN_MARGIN - 1:.0%} more".replace("%", " %"),
        f"part for {allowance.TERM_MS // 1000} s, renews it every {allowance.SLICE_S:.0f} s",
        f"start at {shaping.START}; a site that throttles gets nothing for "
        f"{shaping.PAUSE_MS // minute} minute, doubled up to "
        f"{shaping.LONGEST_PAUSE_MS // minute};",
        f"for {shaping.STOP_MS // minute} minutes, doubled up to "
        f"{shaping.LONGEST_STOP_MS // hour} hours",
        f"at most {MOST_RELAYS:,} relays, {MOST_POOLS:,} pools and {MOST_ROUTES:,} routes",
    ):
        assert said in words, said
    assert (breaker.WINDOW_PARTIES, pool.OUTLIER_OTHERS, breaker.LONG) == (3, 2, 1.0)
    assert (course.CONNECTS_PER_CARRY, course.REFUSALS_PER_CARRY) == (3, 3)
    assert DeliverySettings().eject_s == breaker.OPEN_FOR


def test_the_page_names_another_default() -> None:
    relay = Relay(id=bytes(16), name="r", host="h.test")
    plain = Pool(name="p", tiers=())
    for name, value in (
        ("weight", relay.weight), ("connections", relay.connections),
        ("messages_per_connection", relay.messages_per_connection),
        ("destination_connections", relay.destination_connections),
        ("spill_below", plain.spill_below), ("floor", plain.floor),
    ):  # fmt: skip
        assert re.search(rf"^\| `{name}`[^|]*\| {value}\b", PAGE, re.MULTILINE), name
