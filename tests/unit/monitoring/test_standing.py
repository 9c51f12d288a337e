"""What is told of a store that several nodes share."""

from collections.abc import Iterator

import pytest

from everpost import telemetry
from everpost.monitoring.standing import StandingView
from everpost.store.cluster import StoreState

NAMES = ("store_not_durable", "store_one_copy_short")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    for name in NAMES:
        telemetry.alarm(name).clear()


def _raised() -> tuple[bool, bool]:
    return (telemetry.alarm(NAMES[0]).raised, telemetry.alarm(NAMES[1]).raised)


def test_a_standby_less_than_there_were_is_one_copy_short_until_it_is_back() -> None:
    view = StandingView()
    for standbys, short in ((1, False), (2, False), (1, True), (2, False)):
        view.show(StoreState(standbys=standbys))
        assert _raised() == (False, short)


def test_too_few_standbys_are_more_than_one_copy_short() -> None:
    view = StandingView()
    view.show(StoreState(standbys=1))
    view.show(StoreState(durable=False, standbys=0, problems=("0 are connected",)))
    assert _raised() == (True, False)


def test_a_database_that_is_away_says_nothing_of_its_copies() -> None:
    view = StandingView()
    view.show(StoreState(standbys=2))
    view.show(StoreState(reachable=False, writable=False, durable=False))
    assert _raised() == (False, False)
