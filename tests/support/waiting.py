"""Waiting for something outside this process that sends no signal: looks often, fails loudly."""

import select
import time
from collections.abc import Callable

__all__ = ["wait_until"]


def wait_until(done: Callable[[], bool], *, seconds: float, what: str | Callable[[], str]) -> None:
    """Return as soon as `done()`; raise AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {seconds} s for {what if isinstance(what, str) else what()}"
            )
        select.select([], [], [], 0.01)
