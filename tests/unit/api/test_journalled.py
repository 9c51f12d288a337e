"""Emails that wait in a journal, through the API: what their answers say, what is shown of them,
what cannot be done to them; and callers that nobody knows while no database answers."""

import asyncio
from typing import Any

import msgspec
import pytest

from everpost.journal import Lookup
from everpost.journal.book import Journal
from everpost.journal.entry import Entry, encode
from everpost.model.message import Assurance
from everpost.store.interface import StoreUnavailable
from everpost.store.journal_rows import JournalRow

from .conftest import NOW, Door

EMAIL = {
    "from": "a@example.com", "to": ["b@good.test", "c@good.test"], "subject": "s", "text": "t",
}  # fmt: skip


class Page:
    """A book of one entry."""

    def __init__(self, entry: Entry) -> None:
        self.kept = JournalRow(1, NOW, False, encode(entry))

    async def row(self, number: int) -> JournalRow | None:
        return self.kept


def _waiting(door: Door) -> str:
    """An email that only the journal has: the database never got it."""
    sent = door.ask("POST", "/emails", EMAIL)
    message = door.store.messages_.pop()
    entry = Entry("a", NOW, 1, message.project, (message,))
    page: Any = Page(entry)
    journal = Journal(page, node="a")
    journal.learn(page.kept)
    object.__setattr__(door.services, "journal", Lookup(journal))
    return str(sent.json["id"])


def test_it_is_shown_as_queued_with_its_durability(door: Door) -> None:
    id_ = _waiting(door)
    shown = door.ask("GET", f"/emails/{id_}")
    assert shown.status == 200
    assert shown.json["status"] == "queued"
    assert shown.json["durability"] == "journal"
    assert shown.json["text"] == "t"
    events = door.ask("GET", f"/emails/{id_}/events").json["data"]
    assert [each["type"] for each in events] == ["accepted"]
    recipients = door.ask("GET", f"/emails/{id_}/recipients").json["data"]
    assert [(each["address"], each["attempts"]) for each in recipients] == [
        ("b@good.test", []),
        ("c@good.test", []),
    ]


@pytest.mark.parametrize("verb", ["cancel", "hold", "release", "reschedule"])
def test_it_cannot_be_changed_yet(door: Door, verb: str) -> None:
    id_ = _waiting(door)
    if verb == "reschedule":
        answer = door.ask("PATCH", f"/emails/{id_}", {"scheduled_at": "in 1 hour"})
    else:
        answer = door.ask("POST", f"/emails/{id_}/{verb}")
    assert answer.status == 503
    assert answer.json["name"] == "service_unavailable"
    assert "journal" in answer.json["message"]
    assert int(answer.headers["retry-after"]) > 0


def test_another_tenant_does_not_see_it(door: Door) -> None:
    id_ = _waiting(door)
    other = door.ask("GET", f"/emails/{id_}", key="tenant")
    assert other.status == 404


def test_what_the_database_has_is_asked_of_it(door: Door) -> None:
    _waiting(door)
    sent = door.ask("POST", "/emails", EMAIL)
    shown = door.ask("GET", f"/emails/{sent.json['id']}")
    assert shown.json["durability"] == "committed"
    assert door.ask("POST", f"/emails/{sent.json['id']}/cancel").status == 200


@pytest.mark.parametrize("assurance", [Assurance.JOURNAL, Assurance.JOURNAL_PEER])
@pytest.mark.parametrize("path", ["/emails", "/emails/batch"])
def test_an_answer_says_that_only_a_journal_has_it(
    door: Door, assurance: Assurance, path: str
) -> None:
    plain = door.store.accept

    async def accept(*args: Any) -> Any:
        return msgspec.structs.replace(await plain(*args), assurance=assurance)

    door.store.accept = accept  # type: ignore[method-assign,assignment]
    sent = door.ask("POST", path, [EMAIL] if path.endswith("batch") else EMAIL)
    assert sent.status == 200
    assert sent.json["durability"] == assurance.value
    assert sent.headers["everpost-durability"] == assurance.value


def test_nothing_is_said_where_there_is_nothing_to_say(door: Door) -> None:
    sent = door.ask("POST", "/emails", EMAIL)
    assert list(sent.json) == ["id"]
    assert "everpost-durability" not in sent.headers


def test_more_is_demanded_than_this_server_gives(door: Door) -> None:
    refused = door.ask("POST", "/emails", EMAIL | {"durability": "replicated"})
    assert refused.status == 422
    assert "`durability`" in refused.json["message"]


def test_a_stream_that_demands(door: Door) -> None:
    changed = door.ask("PATCH", "/streams/broadcast", {"durability": "committed"})
    assert changed.json["durability"] == "committed"
    assert door.ask("PATCH", "/streams/broadcast", {"durability": "journal"}).status == 422
    taken = door.ask("PATCH", "/streams/broadcast", {"durability": None})
    assert taken.json["durability"] is None


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_an_unknown_key_while_no_database_answers(
    door: Door, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been made a moment ago: nobody can say that it is invalid. Known ones go on."""
    monkeypatch.setattr("everpost.access.credentials._PATIENCE_S", 0.01)

    async def revision() -> int:
        if how == "hangs":
            await asyncio.Event().wait()
        raise StoreUnavailable("no primary")

    plain = door.store.revision
    door.store.revision = revision  # type: ignore[method-assign]
    for _ in range(2):  # the second one finds that somebody has just looked
        refused = door.ask("GET", "/emails", key="ep_" + "x" * 56)
        assert refused.status == 503
        assert "retry-after" in refused.headers
    assert door.ask("POST", "/emails", EMAIL).status == 200
    door.store.revision = plain  # type: ignore[method-assign]
    door.services.clock.at += 1_000  # type: ignore[attr-defined]
    assert door.ask("GET", "/emails", key="ep_" + "x" * 56).status == 403
