"""Each command: what it asks of the API, and what it shows."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support.tiny_api import TinyApi

Run = Callable[..., Result]
ID = "019ab3c2-0000-7000-8000-000000000001"
RELAY = {
    "object": "relay", "id": ID, "name": "main", "host": "mx.test", "port": 25, "tls": "verify",
    "state": "enabled", "username": "u", "has_password": True, "password": "hunter2",
}  # fmt: skip
DOMAIN = {
    "object": "domain", "id": ID, "name": "good.test", "status": "pending", "signing": "sign",
    "records": [{"record": "DKIM", "name": "ep1._domainkey.good.test", "type": "TXT",
                 "ttl": "Auto", "status": "pending", "value": "v=DKIM1; p=" + "A" * 400}],
}  # fmt: skip


def rows(*data: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(data), "has_more": False}


def recipient(status: str, *outcomes: dict[str, Any]) -> dict[str, Any]:
    attempts = [
        {
            "attempt": n + 1,
            "started_at": "2026-11-23T05:44:00.000Z",
            "relay": "main",
            "tls": {"version": "TLSv1.3"},
            "outcome": outcome,
        }
        for n, outcome in enumerate(outcomes)
    ]
    return {"n": 0, "address": "b@x.test", "kind": "to", "status": status, "attempts": attempts}


# --- send -----------------------------------------------------------------------------------------


def test_send_asks_for_just_what_was_said(run: Run, api: TinyApi, data: Path) -> None:
    (data / "a.bin").write_bytes(b"\x00\xff")
    api.on("POST /emails", {"id": ID})
    result = run(
        "send", "--data", data, "--from", "Me <a@x.test>", "--to", "b@x.test", "--to", "c@x.test",
        "--subject", "Hi", "--text-file", "-", "--html", "<p>", "--attach", data / "a.bin",
        "--header", "X-A: 1: 2", "--tag", "kind=x", "--scheduled-at", "in 1 min",
        "--stream", "broadcast", "--idempotency-key", "k1", stdin="Grüße\n",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, f"{ID}\n")
    asked = api.asked[0]
    assert asked.headers["idempotency-key"] == "k1"
    assert asked.body == {
        "from": "Me <a@x.test>",
        "to": ["b@x.test", "c@x.test"],
        "subject": "Hi",
        "text": "Grüße\n",
        "html": "<p>",
        "attachments": [{"filename": "a.bin", "content": base64.b64encode(b"\x00\xff").decode()}],
        "headers": {"X-A": "1: 2"},
        "tags": [{"name": "kind", "value": "x"}],
        "scheduled_at": "in 1 min",
        "stream": "broadcast",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--text", "a", "--header", "nothing"),
        ("--text", "a", "--tag", "=x"),
        ("--text", "a", "--text-file", "-"),
    ],
)
def test_send_refuses_what_it_cannot_mean(run: Run, data: Path, wrong: tuple[str, ...]) -> None:
    given = ("--from", "a@x", "--to", "b@x", "--subject", "s", "--data", data)
    assert run("send", *given, *wrong, stdin="x").exit_code == 2


def test_send_and_wait_follows_to_the_end(run: Run, api: TinyApi, data: Path) -> None:
    reply = {"code": 250, "enhanced": "2.0.0", "text": "Ok\nqueued"}
    api.on("POST /emails", {"id": ID})
    for status in ("queued", "sending"):
        api.on(f"GET /emails/{ID}/recipients", rows(recipient(status)))
    done = recipient("delivered", {"type": "delivered", "reply": reply})
    api.on(f"GET /emails/{ID}/recipients", rows(done))
    given = ("--from", "a@x", "--to", "b@x", "--subject", "s", "--text", "t", "--data", data)
    result = run("send", *given, "--wait", "--poll-s", "0.001")
    assert result.exit_code == 0
    assert "250 2.0.0 Ok / queued" in result.stdout


@pytest.mark.parametrize("status", ["bounced", "failed", "expired", "suppressed", "cancelled"])
def test_send_and_wait_is_exit_code_1_when_mail_did_not_arrive(
    run: Run, api: TinyApi, data: Path, status: str
) -> None:
    api.on("POST /emails", {"id": ID})
    api.on(f"GET /emails/{ID}/recipients", rows(recipient("delivered"), recipient(status)))
    given = ("--from", "a@x", "--to", "b@x", "--subject", "s", "--text", "t", "--data", data)
    result = run("send", *given, "--wait", "--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert shown["id"] == ID
    assert [row["status"] for row in shown["recipients"]] == ["delivered", status]


def test_send_and_wait_does_not_wait_for_ever(run: Run, api: TinyApi, data: Path) -> None:
    api.on("POST /emails", {"id": ID})
    api.on(f"GET /emails/{ID}/recipients", rows(recipient("deferred")))
    given = ("--from", "a@x", "--to", "b@x", "--subject", "s", "--text", "t", "--data", data)
    result = run("send", *given, "--wait", "--wait-s", "0.01", "--poll-s", "0.001")
    assert (result.exit_code, "deferred" in result.stdout) == (1, True)


# --- status ---------------------------------------------------------------------------------------


def test_status_shows_queue_relays_and_alarms(run: Run, api: TinyApi, data: Path) -> None:
    api.on(
        "GET /status",
        {"object": "status", "accepted": 12, "states": {"queued": 3, "delivered": 9}, "due": 2,
         "oldest_due_seconds": 130.0, "alarms": ["store_full"], "durability": "committed",
         "ready": True,
         "dispatchers": [{"pid": 4711, "started_at": "2026-11-23T05:44:00.000Z"}]},
    )  # fmt: skip
    api.on("GET /relays", rows(RELAY))
    shown = run("status", "--data", data).stdout
    for word in ("committed", "store_full", "2 min", "delivered", "main", "mx.test"):
        assert word in shown
    assert "pid 4711    2026-11-23 05:44:00Z" in shown
    value = json.loads(run("status", "--data", data, "--json").stdout)
    assert (value["accepted"], value["relays"][0]["name"]) == (12, "main")


def test_status_of_a_message_shows_each_attempt_and_no_raw_control(
    run: Run, api: TinyApi, data: Path
) -> None:
    hostile = {"code": 550, "enhanced": "5.1.1", "text": "\x1b]0;pwn\x07\r\nfake log line \u202e"}
    api.on(
        f"GET /emails/{ID}",
        {"id": ID, "from": "a@x.test", "subject": "x\x1b[2Jy\nz", "status": "bounced",
         "created_at": "2026-11-23T05:44:00.000Z", "scheduled_at": None},
    )  # fmt: skip
    deferred = {"type": "deferred", "reason": "connection refused", "reply": None}
    bounced = {"type": "bounced", "reply": hostile}
    api.on(f"GET /emails/{ID}/recipients", rows(recipient("bounced", deferred, bounced)))
    shown = run("status", ID, "--data", data).stdout
    assert "x\\x1b[2Jy\\x0az" in shown
    assert "550 5.1.1 \\x1b]0;pwn\\x07\\x0d / fake log line \\u202e" in shown
    assert "connection refused" in shown
    assert "TLSv1.3" in shown
    assert not any(c in shown for c in "\x1b\x07\r\u202e")
    raw = run("status", ID, "--data", data, "--json").stdout
    assert not any(c in raw for c in "\x1b\x07\u202e")
    assert json.loads(raw)["subject"] == "x\x1b[2Jy\nz"


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_shown_when_it_is_made_and_never_again(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /domains", rows(DOMAIN))
    api.on("POST /api-keys", {"id": ID, "token": "ep_secret"})
    made = run(
        "keys", "create", "ci", "--permission", "sending_access", "--domain", "good.test",
        "--sandbox", "--data", data,
    )  # fmt: skip
    assert made.stdout == "ep_secret\n"  # alone, so that KEY=$(everpost keys create …) works
    assert "not shown again" in made.stderr
    assert api.asked[-1].body == {
        "name": "ci", "permission": "sending_access", "domain_id": ID, "sandbox": True
    }  # fmt: skip
    leaky = {"id": ID, "name": "ci", "permission": "full_access", "token": "ep_secret", "hash": "h"}
    api.on("GET /api-keys", rows(leaky))
    for extra in ((), ("--json",)):
        listed = run("keys", "list", "--data", data, *extra)
        assert ID in listed.output
        assert "ep_secret" not in listed.output


def test_keys_are_revoked_by_name_unless_two_bear_it(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /api-keys", rows({"id": ID, "name": "ci"}))
    api.on("GET /api-keys", rows({"id": ID, "name": "ci"}, {"id": "other", "name": "ci"}))
    api.on(f"DELETE /api-keys/{ID}", {"object": "api_key", "id": ID, "deleted": True})
    assert run("keys", "revoke", "ci", "--data", data).exit_code == 0
    assert api.asked[-1].method == "DELETE"
    twice = run("keys", "revoke", "ci", "--data", data)
    assert (twice.exit_code, api.asked[-1].method) == (1, "GET")
    assert "several keys are called ci" in twice.stderr
    assert "there is no key nobody" in run("keys", "revoke", "nobody", "--data", data).stderr


# --- relays ---------------------------------------------------------------------------------------


def test_a_relays_password_goes_in_and_never_comes_out(run: Run, api: TinyApi, data: Path) -> None:
    api.on("POST /relays", RELAY)
    api.on("GET /relays", rows(RELAY))
    api.on(f"GET /relays/{ID}", RELAY)
    api.on("GET /status", {"states": {}, "ready": True})
    outputs = [
        run(
            "relays", "add", "smtp://u@mx.test:587", "--password-file", "-", "--tls", "verify",
            "--signed-header", "From", "--eight-bit", "--data", data, stdin="hunter2\n",
        ).output
    ]  # fmt: skip
    assert api.asked[-1].body == {
        "url": "smtp://u@mx.test:587", "password": "hunter2", "tls": "verify",
        "signed_headers": ["From"], "eight_bit": True,
    }  # fmt: skip
    prompted = run("relays", "add", "mx", "--password-prompt", "--data", data, stdin="hunter2\n")
    assert api.asked[-1].body == {"url": "mx", "password": "hunter2"}
    outputs.append(prompted.output)
    for command in (("relays", "list"), ("relays", "show", "main"), ("status",)):
        for extra in ((), ("--json",)):
            outputs.append(run(*command, *extra, "--data", data).output)
    assert all("main" in output for output in outputs)
    assert not any("hunter2" in output for output in outputs)


@pytest.mark.parametrize(
    ("verb", "state"), [("enable", "enabled"), ("disable", "disabled"), ("drain", "draining")]
)
def test_relays_change_state_by_name(
    run: Run, api: TinyApi, data: Path, verb: str, state: str
) -> None:
    api.on("GET /relays", rows(RELAY))
    api.on(f"PATCH /relays/{ID}", RELAY)
    assert run("relays", verb, "main", "--data", data).exit_code == 0
    assert api.asked[-1].body == {"state": state}


def test_relays_remove(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /relays", rows(RELAY))
    api.on(f"DELETE /relays/{ID}", {"deleted": True})
    assert run("relays", "remove", ID, "--data", data).stdout == "Removed relay main.\n"


# --- domains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ((), {"algorithms": ["rsa-sha256", "ed25519-sha256"]}),
        (
            ("--algorithm", "rsa", "--selector", "s"),
            {"algorithms": ["rsa-sha256"], "selector": "s"},
        ),
        (("--trust", "--unsigned"), {"trust": True, "signing": "unsigned"}),
    ],
)  # fmt: skip
def test_domains_add_prints_records_whole(
    run: Run, api: TinyApi, data: Path, options: tuple[str, ...], body: dict[str, Any]
) -> None:
    api.on("POST /domains", DOMAIN)
    result = run("domains", "add", "good.test", *options, "--data", data)
    assert api.asked[-1].body == {"name": "good.test", **body}
    assert "v=DKIM1; p=" + "A" * 400 in result.stdout
    assert "\n\nWhen they are published: everpost domains verify good.test\n" in result.stdout


@pytest.mark.parametrize(("status", "code"), [("verified", 0), ("pending", 1), ("failed", 1)])
def test_domains_verify_tells_scripts_whether_it_held(
    run: Run, api: TinyApi, data: Path, status: str, code: int
) -> None:
    api.on("GET /domains", rows(DOMAIN))
    api.on(f"POST /domains/{ID}/verify", {**DOMAIN, "status": status})
    assert run("domains", "verify", "good.test", "--data", data).exit_code == code
    assert run("domains", "verify", ID, "--data", data, "--json").exit_code == code


@pytest.mark.parametrize("spelled", ["Bücher.TEST", "BÜCHER.test", "XN--bcher-kva.test", "b", ID])
def test_a_domain_is_found_however_its_name_is_spelled(
    run: Run, api: TinyApi, data: Path, spelled: str
) -> None:
    row = {**DOMAIN, "name": "xn--bcher-kva.test"}
    api.on("GET /domains", rows(row))
    api.on(f"GET /domains/{ID}", row)
    api.on(f"POST /domains/{ID}/verify", {**row, "status": "verified"})
    api.on(f"DELETE /domains/{ID}", {"deleted": True})
    api.on("POST /api-keys", {"id": ID, "token": "ep_secret"})
    found = 1 if spelled == "b" else 0
    for words in (("show",), ("verify",), ("remove",)):
        assert run("domains", *words, spelled, "--data", data).exit_code == found
    made = run("keys", "create", "k", "--domain", spelled, "--data", data)
    assert made.exit_code == found
    assert run("domains", "show", ID.upper(), "--data", data).exit_code == 0


def test_domains_list_show_remove(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /domains", rows(DOMAIN))
    api.on(f"GET /domains/{ID}", DOMAIN)
    api.on(f"DELETE /domains/{ID}", {"deleted": True})
    assert "good.test" in run("domains", "list", "--data", data).stdout
    assert "ep1._domainkey" in run("domains", "show", "good.test", "--data", data).stdout
    assert run("domains", "remove", "good.test", "--data", data).stdout == "Removed good.test.\n"


# --- sandbox --------------------------------------------------------------------------------------

RAW = (
    "From: a@x.test\r\nSubject: =?utf-8?q?h=C3=A4=1Bllo?=\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    "Gr=C3=BC=C3=9Fe =1B[2J\r\n.dots\r\n--b\r\n"
    'Content-Type: image/png\r\nContent-Disposition: attachment; filename="p\u202e.png"\r\n'
    "Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n"
)


def test_sandbox_list_asks_for_no_more_than_wanted(run: Run, api: TinyApi, data: Path) -> None:
    item = {"id": ID, "from": "a@x.test", "to": ["b@x.test", "c@x.test"], "subject": "s"}
    api.on("GET /sandbox", {**rows(item), "has_more": True})
    shown = run("sandbox", "list", "--limit", "1", "--data", data).stdout
    assert "b@x.test, c@x.test" in shown
    assert [asked.query for asked in api.asked] == [{"limit": "1"}]


def test_sandbox_show_is_readable_and_harmless(run: Run, api: TinyApi, data: Path) -> None:
    api.on(f"GET /sandbox/{ID}", {"id": ID, "raw": RAW})
    shown = run("sandbox", "show", ID, "--data", data).stdout
    assert "Subject: hä" in shown
    assert "Grüße \\x1b[2J\n.dots\n" in shown
    assert "image/png" in shown
    assert not any(c in shown for c in "\x1b\u202e")


def test_sandbox_show_raw_is_the_bytes(run: Run, api: TinyApi, data: Path) -> None:
    api.on(f"GET /sandbox/{ID}", {"id": ID, "raw": RAW})
    assert run("sandbox", "show", ID, "--raw", "--data", data).stdout_bytes == RAW.encode()


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "no headers",
        "Content-Type: text/plain; charset=nonsense\r\n\r\nx",
        "Content-Type: text/plain; charset=idna\r\n\r\n.." + "x" * 99,
        "Subject: =?x?y?z\r\nContent-Type: multipart/mixed\r\n\r\nx",
        "Content-Type: message/rfc822\r\n\r\nSubject: i\r\n",
    ],
)
def test_sandbox_show_of_odd_mail_is_no_traceback(
    run: Run, api: TinyApi, data: Path, raw: str
) -> None:
    api.on(f"GET /sandbox/{ID}", {"id": ID, "raw": raw})
    assert run("sandbox", "show", ID, "--data", data).exit_code == 0
