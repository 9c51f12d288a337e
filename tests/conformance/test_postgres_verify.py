"""`everpost verify` on the database that many nodes share."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from everpost.cli.checked_store import SharedStore
from everpost.cli.root import root
from everpost.cli.verifying import verify_store
from everpost.ids import Id
from tests.conformance.engines import PostgresEngine
from tests.conformance.making import make_id, message


@pytest.fixture
def node(
    postgres_engine: PostgresEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PostgresEngine:
    """Settings of a node that uses this database."""
    monkeypatch.setenv("EVERPOST_POSTGRES_URL", postgres_engine.place)
    monkeypatch.setenv("EVERPOST_POSTGRES_STANDBYS", "0")
    monkeypatch.setenv("EVERPOST_NODE_DATA", str(tmp_path))
    return postgres_engine


def _verify(*words: str) -> Result:
    result = CliRunner().invoke(root, ["verify", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _fill(engine: PostgresEngine, n: int) -> list[Id]:
    sent = [message("a@one.test", "b@two.test") for _ in range(n)]

    async def fill() -> None:
        async with engine.opened() as store:
            await store.accept(1, sent)

    asyncio.run(fill())
    return [one.id for one in sent]


def test_nothing_is_wrong_with_the_nodes_store(node: PostgresEngine) -> None:
    _fill(node, 3)
    result = _verify()
    assert result.exit_code == 0, result.output
    assert "Nothing is wrong." in result.stdout
    assert "Checked 3 messages, 6 recipients" in result.stdout


def test_the_nodes_store_is_damaged_and_mended(node: PostgresEngine) -> None:
    ids = _fill(node, 3)
    node.execute(
        "UPDATE contents SET sealed = :sealed WHERE id = :id", {"sealed": b"0", "id": ids[1]}
    )
    node.execute("UPDATE tallies SET n = n + 1 WHERE state = 'queued'")
    node.execute(
        "INSERT INTO events (message, seq, type, at, data) VALUES (:id, 1, 'accepted', 1, '{}')",
        {"id": make_id()},
    )
    found = json.loads(_verify("--json").stdout)
    assert found["findings"]["by_kind"] == {
        "content_damaged": 1, "orphan_events": 1, "tally_off": 1,
    }  # fmt: skip
    mended = _verify("--repair", "--json")
    assert mended.exit_code == 1  # the content stays damaged
    told = json.loads(mended.stdout)
    assert told["findings"]["by_kind"] == {"content_damaged": 1}
    assert (told["repaired"]["held"], told["repaired"]["tallies"]) == (2, 1)
    (kept,) = Path(told["repaired"]["kept_in"]).read_text().splitlines()
    assert json.loads(kept)["table"] == "events"


def test_the_password_is_in_no_report(
    node: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERPOST_POSTGRES_URL", node.place.replace("everpost@", "everpost:geheim@"))
    told = _verify("--json").stdout
    assert node.database in json.loads(told)["store"]
    assert "geheim" not in told


def test_no_database_answers(node: PostgresEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERPOST_POSTGRES_URL", "host=127.0.0.1 port=1 dbname=x")
    for words in ((), ("--repair",)):
        result = _verify(*words)
        assert (result.exit_code, "cannot be checked" in result.stderr) == (1, True)


def test_many_processes_find_in_the_nodes_store_what_one_does(node: PostgresEngine) -> None:
    ids = _fill(node, 50)
    node.execute("DELETE FROM events WHERE message = :id", {"id": ids[10]})
    node.execute("DELETE FROM contents WHERE id = :id", {"id": ids[40]})
    store = SharedStore(url=node.place, password_file=None, deadline_s=10.0, standbys=0)
    heard: list[tuple[int, int]] = []
    alone = verify_store(store, processes=1, each=lambda *_: None)
    together = verify_store(store, processes=2, each=lambda *so_far: heard.append(so_far))
    assert len(heard) > 8
    assert together.checked == alone.checked
    assert together.totals == alone.totals
    assert together.findings.counts == alone.findings.counts
    assert alone.findings.total == 2
