"""Stages from two readings of the server's metrics."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost import telemetry
from everpost.loadtest.stages import STAGES, Reading, bottleneck, compare, longest_wait, quantile


def _reading(**stages: tuple[int, float]) -> Reading:
    """Histograms with (count, seconds each), all in one bucket."""
    lines = []
    for stage in STAGES:
        count, each = stages.get(stage.name.replace(" ", "_"), (0, 0.0))
        labels = "".join(f'{k}="{v}",' for k, v in stage.labels)
        lines.append(f"# TYPE {stage.metric} histogram")
        for bound in (0.01, 0.1, 1.0, 10.0):
            within = count if each <= bound else 0
            lines.append(f'{stage.metric}_bucket{{{labels}le="{bound}"}} {within}')
        lines.append(f'{stage.metric}_bucket{{{labels}le="+Inf"}} {count}')
        lines.append(f"{stage.metric}_sum{{{labels}}} {count * each}")
        lines.append(f"{stage.metric}_count{{{labels}}} {count}")
    lines += ["# TYPE everpost_due gauge", "everpost_due 12.0"]
    return Reading("\n".join(lines) + "\n")


def test_the_bottleneck_is_where_mail_waits_and_not_what_it_waits_for() -> None:
    before = _reading(session=(10, 0.005), commit=(10, 5.0))
    after = _reading(session=(110, 0.5), slot_wait=(100, 3.0), commit=(110, 5.0 / 11), auth=(9, 1))
    times = compare(before, after)
    found, wait = bottleneck(times), longest_wait(times)
    assert found is not None
    assert wait is not None
    assert (wait.stage.name, wait.mean) == ("slot wait", 3.0)
    assert found.stage.name == "auth"
    assert found.per_message == 1.0


def test_work_done_before_the_test_is_counted() -> None:
    times = compare(_reading(commit=(100, 0.5)), _reading(commit=(100, 0.5), sign=(4, 0.02)))
    commit = next(time for time in times if time.stage.name == "commit")
    assert (commit.count, commit.total, commit.mean, commit.p99) == (0, 0.0, None, None)
    found = bottleneck(times)
    assert found is not None
    assert found.stage.name == "sign"


def test_a_session_shared_by_a_hundred_messages_counts_for_each_in_full() -> None:
    after = _reading(session=(100, 0.05), connect=(2, 1.0))
    times = {t.stage.name: t for t in compare(_reading(), after)}
    assert times["connect"].mean == 1.0
    assert times["connect"].per_message == pytest.approx(0.02)
    found = bottleneck(list(times.values()))
    assert found is not None
    assert found.stage.name == "session"


def test_a_server_that_did_nothing_has_a_bottleneck() -> None:
    times = compare(_reading(), _reading())
    assert (bottleneck(times), longest_wait(times)) == (None, None)


def test_metrics_that_do_not_exist_are_read() -> None:
    """The names are those that the server's rooms declare."""
    import importlib

    for module in (
        "api.application", "api.sending", "intake.accept", "store.sqlite.writer", "dispatch.loop",
        "dispatch.rendering", "dispatch.settling", "delivery.carrier",
    ):  # fmt: skip
        importlib.import_module(f"everpost.{module}")
    for stage in STAGES:
        metric = telemetry.METRICS[stage.metric]
        assert metric.kind == "histogram"
        assert {label for label, _ in stage.labels} <= set(metric.labels)


def test_values_are_found_by_name() -> None:
    reading = _reading()
    assert (reading.value("everpost_due"), reading.value("nothing")) == (12.0, None)


@pytest.mark.parametrize("text", ["<html>", "a b c d\n", "x{\n"])
def test_a_page_that_is_no_metrics_is_believed(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Reading(text)


@given(st.lists(st.floats(0.0001, 50), min_size=1, max_size=100), st.floats(0.01, 1))
def test_an_estimated_quantile_leaves_its_bucket(values: list[float], share: float) -> None:
    bounds = [*telemetry.STAGE_BUCKETS, math.inf]
    counts = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    exact = sorted(values)[max(math.ceil(share * len(values)), 1) - 1]
    upper = min(bound for bound in bounds if exact <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    found = quantile(counts, share)
    assert found is not None
    assert lower - 1e-9 <= found <= upper + 1e-9


def test_quantiles_of_nothing_and_of_what_is_beyond_all_buckets() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({1.0: 0.0, math.inf: 5.0}, 0.5) == 1.0
