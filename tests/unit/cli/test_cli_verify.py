"""`everpost verify` on files of all sorts: what it says, how it ends, what it leaves untouched."""

import asyncio
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest
from click.testing import Result

from everpost.cli import verify as verify_command
from everpost.cli import verifying
from everpost.cli.checked_store import FileStore
from everpost.cli.verifying import verify_store
from everpost.ids import Id
from everpost.ledger import Checked, Finding, Findings, Repaired
from everpost.store.interface import Store, StoreError
from everpost.store.sqlite import SqliteStore
from tests.conformance.making import HandClock, make_id, message

Run = Callable[..., Result]


def make_store(data: Path, messages: int) -> list[Id]:
    data.mkdir()
    sent = [message("a@one.test", "b@two.test") for _ in range(messages)]

    async def make() -> None:
        store: Store = SqliteStore(data / "everpost.db", clock=HandClock())
        await store.open()
        for one in sent:
            await store.accept(1, [one])
        await store.close()

    asyncio.run(make())
    return [one.id for one in sent]


def change(data: Path, sql: str, *values: object) -> None:
    db = apsw.Connection(str(data / "everpost.db"))
    db.execute(sql, values)
    db.close()


def test_a_store_that_is_not_there_is_not_made(run: Run, data: Path) -> None:
    for words in ((), ("--repair",)):
        result = run("verify", "--data", data, *words)
        assert (result.exit_code, "there is no store at" in result.stderr) == (1, True)
    assert not data.exists()


def test_a_file_that_is_no_store(run: Run, data: Path) -> None:
    data.mkdir()
    (data / "everpost.db").write_bytes(b"not a database, and longer than a header" * 100)
    result = run("verify", "--data", data)
    assert (result.exit_code, "cannot be checked" in result.stderr) == (1, True)
    (data / "everpost.db").unlink()
    change(data, "CREATE TABLE other (x)")
    result = run("verify", "--data", data)
    assert (result.exit_code, "is no store of Everpost's" in result.stderr) == (1, True)


@pytest.mark.parametrize("words", [(), ("--repair",)])
def test_a_store_of_another_release_is_not_touched(
    run: Run, data: Path, words: tuple[str, ...]
) -> None:
    make_store(data, 1)
    change(data, "UPDATE alembic_version SET version_num = '0001'")
    before = (data / "everpost.db").read_bytes()
    result = run("verify", "--data", data, *words)
    assert (result.exit_code, "everpost db migrate" in result.stderr) == (1, True)
    assert (data / "everpost.db").read_bytes() == before


def test_an_empty_store(run: Run, data: Path) -> None:
    make_store(data, 0)
    result = run("verify", "--data", data)
    assert result.exit_code == 0
    assert "Nothing was accepted yet." in result.stdout
    assert "Nothing is wrong." in result.stdout


def test_a_store_with_and_without_faults(run: Run, data: Path) -> None:
    ids = make_store(data, 30)
    result = run("verify", "--data", data)
    assert result.exit_code == 0, result.stdout
    assert "Checked 30 messages, 60 recipients, 30 events" in result.stdout
    change(data, "DELETE FROM events WHERE message < ?", ids[25])
    change(data, "DELETE FROM contents WHERE id = ?", ids[29])
    result = run("verify", "--data", data)
    assert result.exit_code == 1
    assert "… and 6 more" in result.stdout
    found = json.loads(run("verify", "--data", data, "--json").stdout)
    assert found["findings"]["by_kind"] == {"content_missing": 1, "event_gap": 25}
    assert found["consistent"] is False
    assert found["repaired"] is None
    result = run("verify", "--data", data, "--repair")
    assert result.exit_code == 1
    assert "Repaired: 2 recipients held" in result.stdout
    found = json.loads(run("verify", "--data", data, "--repair", "--json").stdout)
    assert found["repaired"] == {
        "held": 0, "taken_back": 0, "queued": 0, "set_aside": 0, "kept_in": None, "tallies": 0,
        "busy": False,
    }  # fmt: skip


def test_what_was_set_aside_and_what_was_left_to_another_is_said(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(data, 1)
    change(
        data,
        "INSERT INTO events (message, seq, type, at, data) VALUES (?, 1, 'accepted', 1, '{}')",
        make_id(),
    )
    result = run("verify", "--data", data, "--repair")
    assert result.exit_code == 0
    assert f"What was set aside is in {data / 'set-aside'}" in result.stdout
    monkeypatch.setattr(verify_command, "_repair", lambda *_, **__: Repaired(busy=True))
    assert "Another repair is under way" in run("verify", "--data", data, "--repair").stdout


def test_many_processes_find_what_one_does(data: Path) -> None:
    ids = make_store(data, 50)
    change(data, "DELETE FROM events WHERE message = ?", ids[10])
    change(data, "DELETE FROM contents WHERE id = ?", ids[40])
    change(data, "UPDATE tallies SET n = n + 1 WHERE state = 'queued'")
    store, heard = FileStore(data / "everpost.db"), list[tuple[int, int]]()
    alone = verify_store(store, processes=1, each=lambda done, of: heard.append((done, of)))
    assert heard == [(1, 2), (2, 2)]
    heard.clear()
    together = verify_store(
        store, processes=2, each=lambda done, of: heard.append((done, of)), small=0
    )
    assert heard[-1] == (len(heard), len(heard))
    assert len(heard) > 10
    assert together.checked == alone.checked
    assert together.totals == alone.totals
    assert together.findings.counts == alone.findings.counts
    assert alone.findings.total == 3
    assert {f.text for f in together.findings.kept} == {f.text for f in alone.findings.kept}


def test_a_process_that_checks_is_killed(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(data, 20)
    monkeypatch.setattr(verifying, "_begin", partial(os._exit, 1))
    with pytest.raises(StoreError, match="was killed"):
        verify_store(FileStore(data / "everpost.db"), processes=2, each=lambda *_: None, small=0)


def test_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with verify_command._progress("checking", on=True) as each:
        each(1, 2)
        each(7, 0)
    with verify_command._progress("silent", on=False) as each:
        each(1, 2)
    said = capsys.readouterr()
    assert "checking" in said.err
    assert "silent" not in said.err


def test_totals_that_cannot_be_read(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(data, 1)
    findings = Findings()
    findings.add([Finding("store_damaged", "torn")])
    torn = verifying.Outcome(Checked(complete=False), findings, None, 0.1)
    monkeypatch.setattr(verifying, "verify_store", lambda *_, **__: torn)
    result = run("verify", "--data", data)
    assert result.exit_code == 1
    assert "Not all could be read" in result.stdout
    document = json.loads(run("verify", "--data", data, "--json").stdout)
    assert (document["consistent"], document["totals"]) == (False, [])
