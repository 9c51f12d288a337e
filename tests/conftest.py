"""What holds for every test."""

from collections.abc import Iterator

import pytest

from everpost import telemetry


@pytest.fixture(autouse=True)
def _no_alarm_is_left() -> Iterator[None]:
    """Alarms are the process's: what one test leaves raised is none of the next one's."""
    yield
    for name in telemetry.raised():
        telemetry.alarm(name).clear()
