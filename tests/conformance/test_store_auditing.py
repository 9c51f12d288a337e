"""Whatever is damaged behind the store's back is named for what it is, and mended where that is
safe (I1-I6, I20)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from everpost.ids import Id
from everpost.ledger import Findings, Repaired, check_store, repair, walk
from everpost.ledger.findings import KINDS
from everpost.model.outcome import InDoubt
from everpost.model.states import HeldReason, InDoubtPolicy, State
from everpost.store.auditing import Totals
from everpost.store.interface import WorkerRow
from tests.conformance.engines import Engine
from tests.conformance.making import START, claims, make_id, message
from tests.conformance.stage import DELIVERED, OWNER, Stage, on_a_stage, settled


def test_a_store_that_nothing_is_wrong_with(engine: Engine) -> None:
    async def scene(stage: Stage) -> None:
        assert (await stage.found()).kept == []
        checked = await walk(stage.store, Findings())
        assert (checked.messages, checked.recipients, checked.contents) == (6, 10, 6)
        assert checked.events == 6 + 2 + 1 + 2 + 1
        assert checked.attempts == 5
        totals = await stage.store.audit_totals()
        assert totals.rows == {
            (1, "delivered"): 2, (1, "held"): 1, (1, "queued"): 5, (1, "cancelled"): 1,
            (1, "claimed"): 1,
        }  # fmt: skip
        assert {k: n for k, n in totals.tallies.items() if n} == {
            **totals.rows, (1, "accepted"): 10,
        }  # fmt: skip

    on_a_stage(engine, scene)


DAMAGES: dict[str, tuple[str, set[str]]] = {
    # what is done: the findings that it must give, and no others
    "content gone": ("DELETE FROM contents WHERE id = :delivered", {"content_missing"}),
    "content flipped": (
        "UPDATE contents SET sealed = :no_bytes WHERE id = :queued",
        {"content_damaged"},
    ),
    "content names another": (
        "UPDATE messages SET content = :nobody WHERE id = :queued",
        {"content_missing"},
    ),
    "message gone": ("DELETE FROM messages WHERE id = :queued", {"message_missing"}),
    "message twice": (
        "INSERT INTO messages (id, project, stream, content, message_id, sender, subject, lists,"
        " tags, metadata, in_doubt, scheduled_at, expires_at, dialect, durability, sandbox, size,"
        " return_token)"
        " SELECT id, 2, stream, content, message_id, sender, subject, lists, tags, metadata,"
        " in_doubt, scheduled_at, expires_at, dialect, durability, sandbox, size, return_token"
        " FROM messages WHERE id = :queued",
        {"message_twice"},
    ),
    "recipient gone": (
        "DELETE FROM recipients WHERE message = :delivered AND n = 2",
        {"recipient_missing", "tally_off"},
    ),
    "recipient made up": (
        "UPDATE recipients SET n = 7 WHERE message = :queued AND n = 3",
        {"recipient_missing", "recipient_extra", "recipient_damaged"},
    ),
    "all of its recipients gone": (
        "DELETE FROM recipients WHERE message = :queued",
        {"recipient_missing", "tally_off"},
    ),
    "address flipped": (
        "UPDATE recipients SET address = 'b@one.test' WHERE message = :queued AND n = 1",
        {"recipient_damaged"},
    ),
    "destination flipped": (
        "UPDATE recipients SET destination = 'two' WHERE message = :queued AND n = 1",
        {"recipient_damaged"},
    ),
    "state changed": (
        "UPDATE recipients SET state = 'bounced' WHERE message = :delivered AND n = 1",
        {"state_differs", "tally_off"},
    ),
    "queued anew after its end": (
        "UPDATE recipients SET state = 'queued', settled_at = NULL"
        " WHERE message = :delivered AND n = 1",
        {"state_differs", "tally_off"},
    ),
    "state unknown": (
        "UPDATE recipients SET state = 'lost' WHERE message = :queued AND n = 1",
        {"state_unknown", "tally_off"},
    ),
    "two ends": (
        "INSERT INTO events (message, seq, recipient, type, at, data)"
        " VALUES (:delivered, 4, 1, 'bounced', 1, '{\"attempt\":2}')",
        {"two_ends", "attempts_differ"},
    ),
    "tried after its end": (
        "INSERT INTO events (message, seq, recipient, type, at, data)"
        " VALUES (:cancelled, 3, 1, 'deferred', 1, '{}')",
        {"event_order"},
    ),
    "event gone": ("DELETE FROM events WHERE message = :tried AND seq = 2", {"event_gap"}),
    "last event gone": (
        "DELETE FROM events WHERE message = :doubtful AND seq = 2",
        {"state_differs", "attempts_differ"},
    ),
    "all events gone": ("DELETE FROM events WHERE message = :queued", {"event_gap"}),
    "event number changed": (
        "UPDATE events SET seq = 9 WHERE message = :delivered AND seq = 3",
        {"event_gap"},
    ),
    "event of another type": (
        "UPDATE events SET type = 'delivere' WHERE message = :delivered AND seq = 2",
        {"event_unknown"},
    ),
    "event of nobody": (
        "UPDATE events SET recipient = NULL WHERE message = :delivered AND seq = 2",
        {"event_unknown"},
    ),
    "event that begins it all anew": (
        "UPDATE events SET type = 'accepted', recipient = NULL"
        " WHERE message = :delivered AND seq = 2",
        {"event_order"},
    ),
    "event flipped": (
        "UPDATE events SET data = '{' WHERE message = :delivered AND seq = 2",
        {"event_unreadable"},
    ),
    "accepted, of nobody": (
        "UPDATE events SET data = '{}' WHERE message = :delivered AND seq = 1",
        {"event_unreadable"},
    ),
    "attempt gone": ("DELETE FROM attempts WHERE message = :tried AND n = 1", {"attempts_differ"}),
    "attempt number changed": (
        "UPDATE attempts SET attempt = 2 WHERE message = :tried AND n = 1",
        {"attempts_differ"},
    ),
    "attempts miscounted": (
        "UPDATE recipients SET attempts = 5 WHERE message = :tried AND n = 1",
        {"attempts_differ"},
    ),
    "owner forgotten": ("DELETE FROM workers", {"claim_unowned"}),
    "owner lost": (
        "UPDATE recipients SET owner = NULL WHERE message = :claimed",
        {"claim_incomplete"},
    ),
    "deadline lost": (
        "UPDATE recipients SET deadline = NULL WHERE message = :claimed",
        {"claim_incomplete"},
    ),
    "owner of what is not claimed": (
        "UPDATE recipients SET owner = :nobody WHERE message = :queued AND n = 1",
        {"owner_left"},
    ),
    "end without time": (
        "UPDATE recipients SET settled_at = NULL WHERE message = :cancelled",
        {"end_undated"},
    ),
    "time of an end that is none": (
        "UPDATE recipients SET settled_at = 1 WHERE message = :queued AND n = 2",
        {"end_undated"},
    ),
    "never due": (
        "UPDATE recipients SET due = 2 WHERE message = :queued AND n = 1",
        {"due_impossible"},
    ),
    "orphan content": (
        "INSERT INTO contents (id, project, key_id, sealed, checksum)"
        " SELECT :nobody, project, key_id, sealed, checksum FROM contents WHERE id = :queued",
        {"orphan_content"},
    ),
    "orphan events": (
        "INSERT INTO events (message, seq, recipient, type, at, data)"
        " VALUES (:nobody, 1, NULL, 'accepted', 1, '{}')",
        {"orphan_events"},
    ),
    "orphan attempt": (
        "INSERT INTO attempts SELECT :nobody, n, attempt, transaction_id, 1, 2, outcome, detail,"
        " record, form, body_hash FROM attempts WHERE message = :tried AND n = 1",
        {"orphan_attempts"},
    ),
    "part flipped": (
        "UPDATE parts SET sealed = :no_bytes WHERE n = (SELECT max(n) FROM parts)",
        {"part_damaged"},
    ),
    "tally off": ("UPDATE tallies SET n = n + 1 WHERE state = 'delivered'", {"tally_off"}),
    "accepted off": ("UPDATE tallies SET n = n - 1 WHERE state = 'accepted'", {"tally_off"}),
    "tally gone": ("DELETE FROM tallies WHERE state = 'queued'", {"tally_off"}),
}

MENDED = {
    "content flipped": {"content_damaged"},  # held now, and damaged all the same
    "content names another": {"content_missing"},
    "message gone": {"message_missing"},
    "recipient gone": {"recipient_missing"},
    "all of its recipients gone": {"recipient_missing"},
    "state changed": {"state_differs"},
    "queued anew after its end": {"state_differs"},
    "state unknown": {"state_unknown"},
    "owner forgotten": set(),
    "owner lost": set(),
    "deadline lost": set(),
    "never due": set(),
    "orphan content": set(),
    "orphan events": set(),
    "orphan attempt": set(),
    "tally off": set(),
    "accepted off": set(),
    "tally gone": set(),
}
"""What is left of it after a repair; of all others, all is."""


@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_each_damage_is_named_and_what_is_safe_is_mended(
    engine: Engine, name: str, tmp_path: Path
) -> None:
    sql, expected = DAMAGES[name]

    async def scene(stage: Stage) -> None:
        stage.damage(sql)
        found = await stage.found()
        assert set(found.counts) == expected, found.kept
        done = await repair(
            stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path / "set-aside"
        )
        left = await stage.found()
        assert set(left.counts) == MENDED.get(name, expected), left.kept
        assert not any(finding.mends for finding in left.kept)
        audited = await stage.store.audit(limit=50)
        repairs = [row for row in audited if row["actor"] == "verify"]
        assert bool(repairs) is any(finding.mends for finding in found.kept)
        again = await repair(
            stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path / "again"
        )
        assert again == Repaired(), done

    on_a_stage(engine, scene)


def test_every_kind_of_finding_is_shown_to_be_found() -> None:
    shown = {kind for _, kinds in DAMAGES.values() for kind in kinds}
    elsewhere = {"store_damaged"}
    assert shown | elsewhere == set(KINDS)


def test_what_is_set_aside_is_in_the_file_to_the_byte(engine: Engine, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.damage("DELETE FROM messages WHERE id = :delivered")
        stage.damage("DELETE FROM recipients WHERE message = :delivered")
        assert set((await stage.found()).counts) == {
            "orphan_content", "orphan_events", "orphan_attempts", "tally_off",
        }  # fmt: skip
        rows = await stage.store.orphans([stage.ids["delivered"], stage.ids["queued"]])
        assert [row["table"] for row in rows] == ["contents", *["events"] * 3, *["attempts"] * 2]
        done = await repair(stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path)
        assert done.set_aside == 6
        assert done.kept_in is not None
        kept = _lines(done.kept_in)
        assert [row["table"] for row in kept] == [row["table"] for row in rows]
        assert [row["type"] for row in kept[1:4]] == ["accepted", "delivered", "delivered"]
        assert (await stage.found()).kept == []

    on_a_stage(engine, scene)


def _lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_damaged_mail_is_held_and_never_sent(engine: Engine, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.damage("UPDATE contents SET sealed = :no_bytes WHERE id = :queued")
        done = await repair(stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path)
        assert done.held == 3
        row = await stage.store.message(1, stage.ids["queued"])
        assert row is not None
        assert {(r.state, r.reason) for r in row.recipients} == {
            (State.HELD, HeldReason.DAMAGED.value)
        }
        engine.clock.pass_(60_000)
        taken = await stage.store.claim(OWNER, limit=9, lease_ms=1_000)
        assert stage.ids["queued"] not in {claimed.message for claimed in taken}

    on_a_stage(engine, scene)


def test_a_claim_that_nobody_owns_is_in_doubt_and_its_policy_decides(
    engine: Engine, tmp_path: Path
) -> None:
    async def scene(stage: Stage) -> None:
        stage.damage("DELETE FROM workers")
        done = await repair(stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path)
        assert done.taken_back == 1
        events = await stage.store.events(1, stage.ids["claimed"])
        assert [e.type for e in events] == ["accepted", "in_doubt"]
        row = await stage.store.message(1, stage.ids["claimed"])
        assert row is not None
        assert row.recipients[0].state is State.QUEUED

    on_a_stage(engine, scene)


def test_a_claim_whose_message_is_gone_is_held(engine: Engine, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.damage("DELETE FROM messages WHERE id = :claimed")
        stage.damage("DELETE FROM workers")
        done = await repair(stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path)
        assert done.taken_back == 1
        assert set((await stage.found()).counts) == {"message_missing"}

    on_a_stage(engine, scene)


def test_counting_takes_longer_than_the_lease_and_another_repair_comes_between(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference that both add would be a new one."""

    async def scene(stage: Stage) -> None:
        stage.damage("UPDATE tallies SET n = n + 1 WHERE state = 'delivered'")
        count = stage.store.audit_totals

        async def slowly() -> Totals:
            monkeypatch.undo()
            counted = await count()
            engine.clock.pass_(60_001)
            other = await repair(
                stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path / "other"
            )
            assert other.tallies == 1
            return counted

        monkeypatch.setattr(stage.store, "audit_totals", slowly)
        done = await repair(stage.store, owner=make_id(), clock=engine.clock, folder=tmp_path)
        assert (done.tallies, done.busy) == (0, True)
        assert (await stage.found()).kept == []

    on_a_stage(engine, scene)


def test_a_claim_that_was_taken_meanwhile_is_left_alone(engine: Engine) -> None:
    async def scene(stage: Stage) -> None:
        stage.damage("DELETE FROM workers")
        [(claim, policy)] = await stage.store.unowned([(stage.ids["claimed"], 1)])
        assert policy is InDoubtPolicy.RESEND
        told = settled(claim, InDoubt(reason="x"), InDoubtPolicy.RESEND)
        await stage.store.register(
            WorkerRow(OWNER, "dispatch", 1, "boot", "dots-1.log", START, START)
        )
        assert await stage.store.take_back([told], actor="test") == 0

    on_a_stage(engine, scene)


def test_two_repairs_at_once_do_not_correct_a_tally_twice(engine: Engine, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.damage("UPDATE tallies SET n = n + 3 WHERE state = 'queued'")
        async with engine.opened() as other:
            await asyncio.gather(
                *(
                    repair(store, owner=make_id(), clock=engine.clock, folder=tmp_path / name)
                    for store, name in ((stage.store, "a"), (other, "b"))
                )
            )
        assert (await stage.found()).kept == []

    on_a_stage(engine, scene)


def test_mail_that_flows_while_the_books_are_checked_makes_no_finding(engine: Engine) -> None:
    async def scene(stage: Stage) -> None:
        findings = Findings()

        async def flow() -> None:
            for _ in range(40):
                await stage.store.accept(1, [message("a@one.test", "b@two.test")])
                taken = claims(await stage.store.claim(OWNER, limit=9, lease_ms=60_000))
                told = [settled(claim, DELIVERED, InDoubtPolicy.RESEND) for claim in taken]
                await stage.store.settle(OWNER, told)

        flowing = asyncio.create_task(flow())
        rounds = 0
        while not flowing.done():
            await walk(stage.store, findings, limit=3)
            await check_store(stage.store, findings, engine=False)
            rounds += 1
        await flowing
        assert rounds > 1
        assert findings.kept == []

    on_a_stage(engine, scene)


def test_pages_meet_and_do_not_overlap_whatever_their_size(engine: Engine) -> None:
    async def scene(stage: Stage) -> None:
        ids = sorted(stage.ids.values())
        for limit in (1, 2, 3, 100):
            seen: list[Id] = []
            at: Id | None = b""
            while at is not None:
                page = await stage.store.audit_page(at, limit=limit)
                seen += [row.id for row in page.messages]
                at = page.upto
            assert sorted(seen) == ids
            assert len(seen) == len(set(seen))
        bounds = await stage.store.audit_bounds(3)
        assert 1 <= len(bounds) <= 2
        halves = []
        for after, upto in ((b"", bounds[0]), (bounds[0], None)):
            checked = await walk(stage.store, Findings(), after=after, upto=upto, limit=1)
            halves.append(checked.messages)
        assert sum(halves) == 6

    on_a_stage(engine, scene)


def test_the_parts_come_in_pages(engine: Engine) -> None:
    async def scene(stage: Stage) -> None:
        page = await stage.store.audit_parts(0, limit=4)
        assert len(page.parts) == 4
        assert page.next is not None
        rest = await stage.store.audit_parts(page.next, limit=4)
        assert len(rest.parts) == 2
        assert rest.next is None

    on_a_stage(engine, scene)
