"""Who may send from what, and when mail is captured in the sandbox (S14)."""

import msgspec
import pytest

from everpost.model.errors import Forbidden
from everpost.store.interface import ProjectRow

from .conftest import MINE, TRUSTED, Desk, draft


@pytest.mark.parametrize(
    "sender",
    [
        "ceo@tenant-b.test",
        "ceo@unknown.test",
        "ceo@pending.test",
        "ceo@mail.example.com",
        "ceo@example.co",
        "ceo@example.com.evil.test",
        "ceo@xexample.com",
        '"news@example.com" <ceo@tenant-b.test>',
    ],
)
def test_mail_in_a_name_that_is_not_ours_is_forbidden(desk: Desk, sender: str) -> None:
    with pytest.raises(Forbidden) as refusal:
        desk.prepare(draft(sender=sender))
    assert refusal.value.name == "validation_error"
    assert "is not verified" in refusal.value.message


def test_the_answer_does_not_tell_which_domains_other_tenants_have(desk: Desk) -> None:
    with pytest.raises(Forbidden) as theirs:
        desk.prepare(draft(sender="a@tenant-b.test"))
    with pytest.raises(Forbidden) as nobodys:
        desk.prepare(draft(sender="a@unknown.test"))
    assert theirs.value.message.replace("tenant-b", "unknown") == nobodys.value.message


@pytest.mark.parametrize("sender", ["a@example.com", "A <a@EXAMPLE.com>", "a@trusted.test"])
def test_a_verified_or_trusted_domain_may_send(desk: Desk, sender: str) -> None:
    assert not desk.prepare(draft(sender=sender)).sandbox


def test_a_key_of_one_domain_may_not_send_from_another(desk: Desk) -> None:
    desk.prepare(draft(), domain=MINE)
    with pytest.raises(Forbidden, match=r"may not send from the example\.com domain"):
        desk.prepare(draft(), domain=TRUSTED)


def test_a_domain_that_was_removed_stops_at_once(desk: Desk) -> None:
    desk.prepare(draft())
    desk.catalog(domains={})
    with pytest.raises(Forbidden):
        desk.prepare(draft())


def test_a_new_machine_captures_mail_of_any_sender(desk: Desk) -> None:
    desk.catalog(domains={}, relays=())
    assert desk.prepare(draft(sender="anyone@anywhere.test")).sandbox


def test_a_relay_or_a_domain_ends_the_first_sandbox(desk: Desk) -> None:
    domains, relays = desk.directory.now.domains, desk.directory.now.relays
    desk.catalog(relays=())
    assert not desk.prepare(draft()).sandbox
    desk.catalog(domains={}, relays=relays)
    with pytest.raises(Forbidden):
        desk.prepare(draft())
    theirs = {name: row for name, row in domains.items() if row.project == 2}
    desk.catalog(domains=theirs, relays=())
    assert desk.prepare(draft()).sandbox, "another tenant's domain is no set-up of ours"


def test_a_disabled_relay_does_not_turn_sending_into_capturing(desk: Desk) -> None:
    (relay,) = desk.directory.now.relays
    desk.catalog(domains={}, relays=(msgspec.structs.replace(relay, state="disabled"),))
    with pytest.raises(Forbidden):
        desk.prepare(draft())


def test_a_key_or_a_project_in_sandbox_mode_captures_for_ever(desk: Desk) -> None:
    assert desk.prepare(draft(), sandbox=True).sandbox
    assert not desk.prepare(draft()).sandbox
    project = ProjectRow(id=1, name="one", sandbox=True, created_at=0)
    desk.catalog(projects={1: project})
    assert desk.prepare(draft(sender="anyone@anywhere.test")).sandbox
