"""Mutant: an email is acknowledged when the writer has it, not when it is durable."""

import asyncio
from typing import Any

from everpost.store.interface import Accepted
from everpost.store.sqlite.accepting import Accept
from everpost.store.sqlite.work import Work
from everpost.store.sqlite.writer import Writer
from tests.chaos.mutants.mutating import mutate


def _do(self: Writer, work: Work[Any]) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = _original(self, work)
    if isinstance(work, Accept):
        future.set_result(Accepted())
    return future


_original = mutate(Writer, "do", _do)
