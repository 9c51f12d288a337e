"""What a server says of itself, and what its acknowledgements are worth then."""

import pytest

from everpost.model.message import Assurance
from everpost.store.postgres.durability import Facts, judge, named_standbys

GOOD = Facts(
    recovering=False,
    read_only=False,
    timeline=3,
    commit="on",
    names="ANY 1 (a, b)",
    fsync=True,
    pages=True,
    standbys=1,
)


def test_a_sound_primary_with_its_standby() -> None:
    judged = judge(GOOD, standbys=1, relaxed=False, oldest=3)
    assert judged.writable
    assert judged.durable
    assert judged.assurance is Assurance.REPLICATED


@pytest.mark.parametrize(
    ("names", "waits_for"),
    [
        ("", 0),
        ("  ", 0),
        ("a", 1),
        ("a, b", 1),
        ("*", 1),
        ("2 (a, b, c)", 2),
        ("FIRST 2 (a, b)", 2),
        ("any 3 (a, b, c)", 3),
        ('"quoted name"', 1),
    ],
)
def test_how_many_standbys_a_commit_waits_for(names: str, waits_for: int) -> None:
    assert named_standbys(names) == waits_for


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (GOOD._replace(fsync=False), "fsync"),
        (GOOD._replace(pages=False), "full_page_writes"),
        (GOOD._replace(commit="off"), "synchronous_commit is off"),
        (GOOD._replace(commit="local"), "synchronous_commit is local"),
        (GOOD._replace(commit="remote_write"), "synchronous_commit is remote_write"),
        (GOOD._replace(names=""), "synchronous_standby_names"),
    ],
)
def test_settings_that_lose_mail(facts: Facts, word: str) -> None:
    judged = judge(facts, standbys=1, relaxed=False)
    assert judged.writable
    assert not judged.durable
    assert len(judged.weak) == 1
    assert word in judged.weak[0]
    relaxed = judge(facts, standbys=1, relaxed=True)
    assert (relaxed.problems, relaxed.assurance) == ((), Assurance.RELAXED)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (GOOD._replace(recovering=True, timeline=0), "standby"),
        (GOOD._replace(read_only=True), "read-only"),
        (GOOD._replace(timeline=2), "timeline 2"),
    ],
)
@pytest.mark.parametrize("relaxed", [False, True])
def test_servers_that_are_not_written_to(facts: Facts, word: str, relaxed: bool) -> None:
    judged = judge(facts, standbys=1, relaxed=relaxed, oldest=3)
    assert not judged.writable
    assert word in judged.problems[0]
    assert judged.weak == ()


def test_a_standby_that_is_away_is_a_problem_of_the_moment() -> None:
    judged = judge(GOOD._replace(standbys=0), standbys=1, relaxed=False)
    assert judged.writable
    assert (len(judged.problems), judged.weak) == (1, ())
    unseen = judge(GOOD._replace(standbys=None), standbys=1, relaxed=False)
    assert unseen.durable


def test_a_single_server_is_committed_and_no_more() -> None:
    single = GOOD._replace(names="", standbys=0)
    judged = judge(single, standbys=0, relaxed=False)
    assert (judged.durable, judged.assurance) == (True, Assurance.COMMITTED)
    stricter = judge(GOOD._replace(commit="remote_apply"), standbys=0, relaxed=False)
    assert stricter.assurance is Assurance.REPLICATED
