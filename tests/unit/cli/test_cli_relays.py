"""`relays`, `pools`, `routes`, `streams`, `projects`, `apply`: what they ask, what they show."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.tiny_api import TinyApi

Run = Callable[..., Result]
ID = "019ab3c2-0000-7000-8000-000000000001"
RELAY = {"object": "relay", "id": ID, "name": "main", "state": "enabled", "password": "hunter2"}
NOW = "2026-11-25T03:00:00.000Z"
LIMITS = {"connections": 20, "messages_per_second": None, "messages_per_minute": 100,
          "messages_per_day": None}  # fmt: skip
UNKNOWN: dict[str, Any] = {
    "id": ID, "name": "main", "state": "enabled", "circuit": None, "why": None, "phase": None,
    "speaker": None, "since": None, "until": None, "ejections": None, "processes": 0,
    "tried": None, "worked": None, "faults": None, "success_rate": None, "share": None,
    "latency_ms": None, "in_flight": None, "connections": None, "limits": LIMITS, "probe": None,
    "next_probe": None, "canary": None, "cooldowns": [],
}  # fmt: skip
SICK: dict[str, Any] = {
    **UNKNOWN, "name": "sick", "circuit": "open", "why": "refused the \x1b[2Jlogin",
    "phase": "auth", "speaker": "relay", "since": NOW, "until": NOW, "ejections": 2,
    "processes": 2, "tried": 8, "worked": 6, "faults": 2, "success_rate": 0.75, "share": 0.5,
    "latency_ms": {"p50": 10.0, "p95": 20.4, "p99": None}, "in_flight": 0, "connections": 1,
    "probe": {"at": NOW, "ok": False, "refusal": "535 no", "phase": "auth", "took_ms": 1.0},
    "next_probe": NOW, "canary": {"at": NOW, "ok": True, "why": None, "took_ms": 900.0},
    "cooldowns": [{"site": "x.test", "until": NOW, "why": "4.7.0 rate", "blocked": False}],
}  # fmt: skip


def rows(*data: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(data), "has_more": False}


# --- relays -----------------------------------------------------------------------------------


def test_relays_set_asks_for_more_than_was_said(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /relays", rows(RELAY))
    api.on(f"PATCH /relays/{ID}", RELAY)
    result = run(
        "relays", "set", "main", "--weight", 3, "--no-probe", "--password-file", "-",
        "--messages-per-day", 500, "--warmup", "50, 100", "--source", "192.0.2.1",
        "--default", "helo", "--default", "messages-per-second", "--address", "smtp://b.test",
        "--data", data, stdin="pw\n",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "Changed relay main.\n")
    assert api.asked[-1].body == {
        "weight": 3, "probe": False, "password": "pw", "messages_per_day": 500,
        "warmup": [50, 100], "source": ["192.0.2.1"], "helo": None, "messages_per_second": None,
        "url": "smtp://b.test",
    }  # fmt: skip
    shown = run("relays", "set", "main", "--eight-bit", "--json", "--data", data).output
    assert "hunter2" not in shown
    assert api.asked[-1].body == {"eight_bit": True}


@pytest.mark.parametrize(
    "words", [("relays", "set", "main"), ("relays", "set", "main", "--warmup", "many"),
              ("pools", "set", "p"), ("pools", "add", "p"), ("routes", "set", "r"),
              ("streams", "set", "s"), ("streams", "set", "s", "--pool", "p", "--no-pool"),
              ("projects", "set", "1"),
              ("projects", "set", "1", "--durability", "committed", "--no-durability"),
              ("relays", "set", "main", "--weight", "3", "--default", "weight"),
              ("routes", "set", "r", "--tag", "t", "--any", "tag")],
)  # fmt: skip
def test_a_command_that_says_nothing_or_two_things_asks_something(
    run: Run, api: TinyApi, data: Path, words: tuple[str, ...]
) -> None:
    assert run(*words, "--data", data).exit_code == 2
    assert not api.asked


def test_status_makes_zeros_of_what_is_not_known(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /relays/status", rows(UNKNOWN, SICK))
    head, unknown, sick = run("relays", "status", "--data", data).stdout.splitlines()
    assert head.split()[:5] == ["relay", "state", "circuit", "success", "p99"]
    assert unknown.split() == ["main", "enabled", "unknown", "-", "-", "-", "-", "-/20", "-"]
    for word in ("open", "75.0 %", "50.0 %", "1/20", "2026-11-25 03:00:00Z", "\\x1b[2Jlogin"):
        assert word in sick
    assert "\x1b" not in sick


def test_status_that_is_watched_as_json_is_no_line_a_look(
    run: Run, api: TinyApi, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.on("GET /relays/status", rows(UNKNOWN, SICK))
    looks = iter(range(2))

    def interrupted(_: float) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("everpost.cli.relays.time.sleep", interrupted)
        watched = run("relays", "status", "--watch", "--json", "--data", data)
    lines = [json.loads(line) for line in watched.stdout.splitlines() if line]
    assert [[row["name"] for row in line] for line in lines] == [["main", "sick"]] * 3


def test_status_of_one_relay_leaves_something_out(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /relays/status", rows(UNKNOWN, SICK))
    api.on("GET /relays", rows(RELAY))
    shown = run("relays", "status", "sick", "--data", data).stdout
    for word in (
        "auth of relay", "8 tried, 6 worked, 2 faults", "p50 10 ms, p95 20 ms, p99 -",
        "messages_per_minute 100", "535 no", "well, 2026", "x.test", "4.7.0 rate",
    ):  # fmt: skip
        assert word in shown
    assert "0 tried" not in run("relays", "status", "main", "--data", data).stdout
    assert json.loads(run("relays", "status", "sick", "--json", "--data", data).stdout) == [SICK]
    nobody = run("relays", "status", "nobody", "--data", data)
    assert (nobody.exit_code, "there is no relay nobody" in nobody.stderr) == (1, True)
    api.on(f"GET /relays/{ID}", {**RELAY, "status": SICK})
    shown = run("relays", "show", "main", "--data", data).stdout
    assert "hunter2" not in shown
    assert "75.0 %" in shown


def _attempt(kind: str, **outcome: Any) -> dict[str, Any]:
    reply = {"code": 550, "enhanced": "5.1.1", "text": "No\nsuch user"}
    return {
        "attempt": 1, "relay": "main", "host": "mx.test", "peer": "192.0.2.1:25",
        "tls": {"version": "TLSv1.3", "cipher": "X", "verified": None},
        "timings": {"connect": 1.25, "dot": 3.0},
        "outcome": {"type": kind, "phase": "rcpt", "reply": reply, **outcome},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code"), [("delivered", 0), ("bounced", 1), ("deferred", 1)]
)  # fmt: skip
def test_a_test_that_failed_is_a_success_or_hides_the_answer(
    run: Run, api: TinyApi, data: Path, status: str, code: int
) -> None:
    api.on("GET /relays", rows(RELAY))
    api.on(f"POST /relays/{ID}/test", {"id": "m"})
    waiting = {"address": "a@x.test", "status": "queued", "attempts": []}
    done = {"address": "a@x.test", "status": status, "attempts": [_attempt(status)]}
    api.on("GET /emails/m/recipients", rows(waiting))
    api.on("GET /emails/m/recipients", rows(done))
    words = ("relays", "test", "main", "--to", "a@x.test", "--poll-s", 0.001, "--data", data)
    result = run(*words, "--from", "b@x.test")
    assert result.exit_code == code
    for word in (
        "550 5.1.1 No / such user",
        "TLSv1.3",
        "connect 1.2 ms",
        "mx.test",
        "rcpt",
        status,
    ):
        assert word in result.stdout
    assert api.asked[1].body == {"to": "a@x.test", "from": "b@x.test"}
    told = run(*words, "--json")
    assert (told.exit_code, json.loads(told.stdout)["status"]) == (code, status)


def test_a_test_waits_for_ever(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /relays", rows(RELAY))
    api.on(f"POST /relays/{ID}/test", {"id": "m"})
    api.on("GET /emails/m/recipients", rows({"address": "a@x.test", "status": "queued"}))
    words = ("relays", "test", "main", "--to", "a@x.test", "--wait-s", 0.01, "--poll-s", 0.001)
    result = run(*words, "--data", data)
    assert (result.exit_code, "No attempt yet" in result.stdout) == (1, True)


# --- pools and routes -------------------------------------------------------------------------

POOL = {"object": "pool", "id": ID, "name": "p", "tiers": [["a", "b"], ["c"]], "spill_below": 0.5,
        "floor": 1, "created_at": NOW}  # fmt: skip
ROUTE = {"object": "route", "id": ID, "name": "r", "position": 2, "pool": "p", "project": None,
         "stream": "broadcast", "sender_domain": None, "recipient_domain": None,
         "tag": "kind=x", "created_at": NOW}  # fmt: skip


def test_pools_are_asked_for_otherwise_than_said(run: Run, api: TinyApi, data: Path) -> None:
    api.on("POST /pools", POOL)
    api.on("GET /pools", rows(POOL))
    api.on(f"GET /pools/{ID}", POOL)
    api.on(f"PATCH /pools/{ID}", POOL)
    api.on(f"DELETE /pools/{ID}", {"object": "pool", "id": ID, "deleted": True})
    made = run("pools", "add", "p", "--tier", "a, b", "--tier", "c", "--floor", 0, "--data", data)
    assert (made.stdout, api.asked[-1].body) == (
        f"Made pool p ({ID}).\n", {"name": "p", "tiers": [["a", "b"], ["c"]], "floor": 0},
    )  # fmt: skip
    for words in (("list",), ("show", "p")):
        assert "a, b > c" in run("pools", *words, "--data", data).stdout
    run("pools", "set", "p", "--name", "q", "--spill-below", 0.2, "--data", data)
    assert api.asked[-1].body == {"name": "q", "spill_below": 0.2}
    assert run("pools", "remove", "p", "--data", data).stdout == "Removed pool p.\n"


def test_routes_are_asked_for_otherwise_than_said(run: Run, api: TinyApi, data: Path) -> None:
    for route in ("POST /routes", f"GET /routes/{ID}", f"PATCH /routes/{ID}"):
        api.on(route, ROUTE)
    api.on("GET /routes", rows(ROUTE))
    api.on(f"DELETE /routes/{ID}", {"object": "route", "id": ID, "deleted": True})
    made = run(
        "routes", "add", "r", "--pool", "p", "--position", 2, "--project", "7", "--tag", "kind=x",
        "--recipient-domain", "*.x.test", "--data", data,
    )  # fmt: skip
    assert made.stdout == "Made route r, at position 2.\n"
    assert api.asked[-1].body == {
        "name": "r", "pool": "p", "position": 2, "project": 7, "tag": "kind=x",
        "recipient_domain": "*.x.test",
    }  # fmt: skip
    assert "stream broadcast, tag kind=x" in run("routes", "list", "--data", data).stdout
    assert "broadcast" in run("routes", "show", "r", "--data", data).stdout
    run("routes", "set", "r", "--any", "tag", "--any", "sender-domain", "--data", data)
    assert api.asked[-1].body == {"tag": None, "sender_domain": None}
    run("routes", "move", ID, "--to", 1, "--data", data)
    assert api.asked[-1].body == {"position": 1}
    assert run("routes", "remove", "r", "--data", data).stdout == "Removed route r.\n"
    missing = run("routes", "show", "nothing", "--data", data)
    assert (missing.exit_code, "there is no route nothing" in missing.stderr) == (1, True)


def test_explain_says_why_not(run: Run, api: TinyApi, data: Path) -> None:
    answer = {"pool": "p", "because": "route", "route": "r", "tiers": [["a", "b"], ["c"]]}
    api.on("POST /routes/explain", answer)
    api.on("POST /routes/explain", {**answer, "because": "default", "route": None, "tiers": []})
    words = ("routes", "explain", "--from", "a@x.test", "--to", "b@x.test", "--data", data)
    shown = run(*words, "--tag", "kind=x", "--stream", "broadcast").stdout
    assert api.asked[-1].body == {
        "from": "a@x.test", "to": "b@x.test", "stream": "broadcast",
        "tags": [{"name": "kind", "value": "x"}],
    }  # fmt: skip
    assert "route r" in shown
    assert "a, b > c" in shown
    assert "no route fits" in run(*words).stdout


def test_streams_and_projects_are_asked_for_otherwise_than_said(
    run: Run, api: TinyApi, data: Path
) -> None:
    stream = {
        "name": "broadcast", "priority": "broadcast", "weight": 1, "pool": None,
        "retry_first": 60, "retry_cap": 7200, "lifetime": 432_000, "in_doubt": "resend",
    }  # fmt: skip
    project = {"id": 2, "name": "bob", "weight": 1, "sandbox": False, "created_at": NOW}
    api.on("GET /streams", rows(stream))
    api.on("PATCH /streams/broadcast", stream)
    api.on("GET /projects", rows(project))
    api.on("PATCH /projects/2", project)
    assert "5 d" in run("streams", "list", "--data", data).stdout
    run("streams", "set", "broadcast", "--weight", 2, "--no-pool", "--lifetime", 60, "--data", data)
    assert api.asked[-1].body == {"weight": 2, "pool": None, "lifetime": 60}
    assert "bob" in run("projects", "list", "--data", data).stdout
    for wanted in ("bob", "2"):
        assert run("projects", "set", wanted, "--weight", 3, "--data", data).exit_code == 0
        assert api.asked[-1].body == {"weight": 3}
    run("projects", "set", "2", "--durability", "committed", "--data", data)
    assert api.asked[-1].body == {"durability": "committed"}
    run("streams", "set", "broadcast", "--no-durability", "--data", data)
    assert api.asked[-1].body == {"durability": None}
    assert run("projects", "set", "carl", "--weight", 3, "--data", data).exit_code == 1


# --- apply ------------------------------------------------------------------------------------

FILE = """
[[relays]]
name = "a"
url = "smtp://me@a.test"
password_file = "secrets/a"

[[relays]]
name = "b"
url = "mx"
warmup = [50, 100]
warmup_from = 2026-11-25

[[pools]]
name = "p"
tiers = [["a"], ["b"]]
"""


def test_apply_sends_another_document_or_shows_no_difference(
    run: Run, api: TinyApi, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a").write_text("hunter2\nmore\n")
    (tmp_path / "everything.toml").write_text(FILE)
    found = [
        {"kind": "relay", "name": "a", "change": "changed", "fields": [
            {"field": "weight", "was": None, "now": 2},
            {"field": "password", "was": "set", "now": "changed"}]},
        {"kind": "pool", "name": "p", "change": "added", "fields": [
            {"field": "tiers", "was": None, "now": [["a", "c"], ["b"]]}]},
        {"kind": "route", "name": "r", "change": "removed", "fields": []},
    ]  # fmt: skip
    api.on("POST /apply", {"data": found, "applied": False})
    api.on("POST /apply", {"data": [], "applied": True})
    words = ("apply", "-f", tmp_path / "everything.toml", "--data", data)
    tried = run(*words, "--dry-run", "--prune")
    assert tried.stdout == (
        "~ relay a\n    weight: (default) -> 2\n    password: set -> changed\n"
        "+ pool p\n    tiers: a, c > b\n- route r\n"
        "1 added, 1 changed, 1 removed: nothing was changed yet.\n"
    )
    assert api.asked[-1].body == {
        "relays": [
            {"name": "a", "url": "smtp://me@a.test", "password": "hunter2"},
            {"name": "b", "url": "mx", "warmup": [50, 100], "warmup_from": "2026-11-25"},
        ],
        "pools": [{"name": "p", "tiers": [["a"], ["b"]]}],
        "dry_run": True, "prune": True,
    }  # fmt: skip
    assert run(*words).stdout == "Nothing is different.\n"
    assert api.asked[-1].body["dry_run"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[relays]]\nname='a'\nurl='smtp://h.test'\npassword='hunter2'", "relays[0]"),
        ("[[relays]]\nname='a'\nurl='smtp://me:hunter2@h.test'", "relays[0]"),
        ("[[relays]]\nname='a'\nurl='me:hunter2@h.test'", "relays[0]"),
        ("[[relays]]\nurl='mx'\npassword_file='nowhere'", "relays[0].password_file"),
        ("[[relays]]\nurl='mx'\npassword_file='empty'", "relays[0]"),
        ("[[relays]]\nurl='mx'\npassword_env='NOT_SET_ANYWHERE'", "NOT_SET_ANYWHERE is not set"),
        ("[[relays]]\nurl='mx'\npassword_env='A'\npassword_file='B'", "exclude"),
        ("prune = true", "prune"),
        ("dry_run = false", "dry_run"),
        ("[[relays]", "everything.toml"),
        ("\xff", "everything.toml"),
    ],
)
def test_a_file_with_a_secret_or_a_fault_is_sent(
    run: Run, api: TinyApi, tmp_path: Path, text: str, said: str
) -> None:
    data = tmp_path / "data"
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "everything.toml").write_bytes(text.encode("latin-1"))
    result = run("apply", "-f", tmp_path / "everything.toml", "--data", data)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert "hunter2" not in result.output
    assert not api.asked


def test_a_password_from_the_environment_is_left_out(
    run: Run, api: TinyApi, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_PASSWORD", "hunter2")
    path = tmp_path / "f.toml"
    path.write_text("[[relays]]\nname='a'\nurl='smtp://me@h.test'\npassword_env='RELAY_PASSWORD'")
    api.on("POST /apply", {"data": [], "applied": True})
    assert run("apply", "-f", path, "--data", data, "--json").exit_code == 0
    assert api.asked[-1].body["relays"][0]["password"] == "hunter2"
    assert "password_env" not in api.asked[-1].body["relays"][0]
