"""Which pool carries what: routes, streams and pools that come and go."""

from typing import Any

import msgspec

from everpost.dispatch.assigning import Assignment
from everpost.model.pool import DEFAULT_POOL, Route
from everpost.model.states import InDoubtPolicy
from everpost.store.directory import Snapshot
from everpost.store.interface import Claimed, PoolRow, ProjectRow, StreamRow
from tests.support.in_hand import claimed

FAST, SLOW = "fast", "slow"


def _pool(name: str) -> PoolRow:
    return PoolRow(id=name.encode(), name=name, settings={"tiers": []}, created_at=0)


def _route(pool: str, **fits: Any) -> Route:
    return Route(name="a", pool=pool, **fits)


def _stream(name: str = "transactional", **fields: Any) -> StreamRow:
    row = StreamRow(
        project=1, name=name, priority="transactional", in_doubt=InDoubtPolicy.RESEND,
        lifetime_ms=1, retry_first_ms=1, retry_cap_ms=1,
    )  # fmt: skip
    return msgspec.structs.replace(row, **fields)


def _assignment(*routes: Route, stream: StreamRow | None = None) -> Assignment:
    row = stream or _stream()
    return Assignment(
        Snapshot(
            streams={(1, row.name): row},
            projects={1: ProjectRow(id=1, name="p", sandbox=False, created_at=0, weight=4)},
            pools=(_pool(FAST), _pool(SLOW)),
        ),
        routes,
    )


def _pools(assignment: Assignment, what: Claimed) -> dict[str, list[str]]:
    return {
        pool: [claim.destination for claim in part.claims]
        for pool, part in assignment.by_pool(what)
    }


def test_one_message_goes_whole_through_the_pool_of_its_first_recipient() -> None:
    assignment = _assignment(
        _route(FAST, recipient_domain="a.test"), _route(SLOW, recipient_domain="*.b.test")
    )
    what = claimed(1, "a.test", "x.b.test", "c.test", "a.test")
    for _ in range(2):  # the second time from memory
        assert _pools(assignment, what) == {
            "fast": ["a.test", "a.test"], "slow": ["x.b.test"], DEFAULT_POOL: ["c.test"]
        }  # fmt: skip


def test_the_second_route_that_fits_decides() -> None:
    assignment = _assignment(_route(FAST, stream="transactional"), _route(SLOW, project=1))
    assert _pools(assignment, claimed(1, "a.test")) == {"fast": ["a.test"]}
    assert _pools(assignment, claimed(1, "a.test", stream="news")) == {"slow": ["a.test"]}


def test_a_stream_that_names_a_pool_of_its_own_goes_elsewhere() -> None:
    assignment = _assignment(stream=_stream(pool="slow"))
    assert _pools(assignment, claimed(1, "a.test")) == {"slow": ["a.test"]}
    routed = _assignment(_route(FAST, project=1), stream=_stream(pool="slow"))
    assert _pools(routed, claimed(1, "a.test")) == {"fast": ["a.test"]}


def test_mail_of_a_stream_whose_pool_is_gone_goes_nowhere() -> None:
    assignment = _assignment(stream=_stream(pool="gone"))
    assert _pools(assignment, claimed(1, "a.test")) == {DEFAULT_POOL: ["a.test"]}


def test_tags_and_senders_are_not_looked_at() -> None:
    assignment = _assignment(
        _route(FAST, tag=("campaign", "spring")), _route(SLOW, sender_domain="other.test")
    )
    spring = claimed(1, "a.test", tags='[["campaign","spring"]]')
    assert _pools(assignment, spring) == {"fast": ["a.test"]}
    autumn = claimed(1, "a.test", tags='[["campaign","autumn"]]')
    assert _pools(assignment, autumn) == {DEFAULT_POOL: ["a.test"]}
    other = claimed(1, "a.test", sender="Somebody <x@Other.test>")
    assert _pools(assignment, other) == {"slow": ["a.test"]}
    bare = claimed(1, "a.test", sender="x@other.test")
    assert _pools(assignment, bare) == {"slow": ["a.test"]}


def test_tags_are_read_though_no_route_asks_for_them() -> None:
    assignment = _assignment(_route(FAST, project=1))
    assert _pools(assignment, claimed(1, "a.test", tags="no JSON")) == {"fast": ["a.test"]}


def test_weights_of_what_nobody_knows_any_more() -> None:
    assignment = _assignment(stream=_stream(weight=3))
    assert assignment.weights(claimed(1, "a.test")) == (4, 3)
    assert assignment.weights(claimed(1, "a.test", project=9, stream="x")) == (1, 1)
    assert not assignment.is_broadcast(9, "x")
    assert _assignment(stream=_stream("news", priority="broadcast")).is_broadcast(1, "news")
