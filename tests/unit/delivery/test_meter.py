"""What a relay did in the last minute."""

import pytest

from everpost.delivery.meter import Meter


def test_counts_of_the_last_minute_only() -> None:
    meter = Meter()
    meter.worked(0.1, now=100.0)
    meter.failed(now=105.0)
    meter.neither(now=110.0)
    assert meter.counts(119.0) == (3, 1, 1)
    assert meter.counts(165.0) == (1, 0, 0)
    assert meter.counts(300.0) == (0, 0, 0)
    assert meter.percentiles(300.0) == {}


def test_percentiles_are_right_to_a_quarter() -> None:
    meter = Meter()
    for n in range(1, 1001):
        meter.worked(n / 1000, now=100.0)
    found = meter.percentiles(100.0)
    assert list(found) == ["p50", "p95", "p99"]
    for name, exact in (("p50", 500), ("p95", 950), ("p99", 990)):
        assert exact <= found[name] <= exact * 1.25
    meter = Meter()
    meter.worked(10_000.0, now=100.0)
    assert meter.percentiles(100.0)["p50"] == pytest.approx(652_530, rel=0.01)  # the last step


def test_average_follows_and_fades_when_nothing_new_comes() -> None:
    meter = Meter()
    assert (meter.latency(100.0), meter.average, meter.worked_at) == (0.0, 0.0, None)
    meter.worked(1.0, now=100.0)
    assert (meter.latency(100.5), meter.worked_at) == (1.0, 100.0)
    for _ in range(50):
        meter.worked(2.0, now=101.0)
    assert meter.latency(101.0) == pytest.approx(2.0, rel=0.01)
    assert meter.latency(111.0) == pytest.approx(1.0, rel=0.01)
    assert meter.average == pytest.approx(2.0, rel=0.01)
    assert meter.latency(10_000.0) == 0.001
    meter.forget()
    assert (meter.latency(101.0), meter.average) == (0.0, 0.0)
