"""Which nodes count as gone."""

import pytest

from everpost.recovery.presence import is_gone
from everpost.store.cluster import NodeRow
from tests.conformance.making import START

NODE = NodeRow("two", "", "1", "", (), START, seen_at=START)


@pytest.mark.parametrize(
    ("node", "silent_ms", "stretch_ms", "gone"),
    [
        (NODE, 9_999, 60_000, False),
        (NODE, 10_000, 60_000, True),
        (NODE, 60_000, 9_999, False),
        (NODE, 60_000, 10_000, True),
        (NODE, -5_000, 60_000, False),
        (None, 0, 9_999, False),
        (None, 0, 10_000, True),
    ],
    ids=["heard", "silent", "we-just-came", "long-enough", "ahead", "no-row-yet", "no-row"],
)
def test_a_node_is_gone_after_silence_in_which_it_could_speak(
    node: NodeRow | None, silent_ms: int, stretch_ms: int, gone: bool
) -> None:
    now = START + silent_ms
    assert is_gone(node, now=now, stretch_ms=stretch_ms, gone_ms=10_000) is gone
