"""The line that a load test rewrites while it runs.

By hand, not by rich: what renders it runs between the requests, and five milliseconds of rendering
would be five milliseconds that the server is blamed for.
"""

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everpost.loadtest.measure import Measure
    from everpost.loadtest.run import Setup

__all__ = ["ProgressLine"]

_BAR = 16


class ProgressLine:
    """Rewrites one line on standard error; silent unless `on`."""

    def __init__(self, setup: "Setup", *, on: bool) -> None:
        self._on = on
        self._expected = 0 if setup.search else sum(step.messages for step in setup.steps)
        self._shown = False

    def show(self, measure: "Measure", doing: str) -> None:
        """The state of things now."""
        if not self._on:
            return
        width = shutil.get_terminal_size().columns - 1
        text = f"{self._bar(measure)}{doing}  {self._facts(measure)}"
        sys.stderr.write(f"\r{text[:width]:<{width}}")
        sys.stderr.flush()
        self._shown = True

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

    def _bar(self, measure: "Measure") -> str:
        if not self._expected:
            return ""
        full = round(min(measure.planned / self._expected, 1.0) * _BAR)
        return "█" * full + "░" * (_BAR - full) + "  "

    def _facts(self, measure: "Measure") -> str:
        # The last second is not over: its figures are those of a part.
        last = measure.seconds[-2] if len(measure.seconds) > 1 else None
        facts = [f"{last.sent if last else measure.sent}/s"]
        p99 = last.latency.at(0.99) if last else None
        if p99 is not None:
            facts.append(f"p99 {p99 * 1000:.1f} ms")
        facts.append(f"{measure.accepted} accepted")
        if measure.failed:
            facts.append(f"{measure.failed} failed")
        if measure.arrivals:
            facts.append(f"{measure.arrived} arrived")
        return "  ".join(facts)
