"""Times that callers write in words: read beside the event loop, which the library behind it would
stop for a sixth of a second at its first use."""

import asyncio
from functools import partial

import msgspec

from everpost.api.answers import timestamp
from everpost.api.services import Services
from everpost.intake import Draft, is_english, parse_when

__all__ = ["in_figures", "moment"]


async def moment(services: Services, text: str) -> int:
    """The moment that `text` names, in milliseconds since 1970. Raises Invalid."""
    read = partial(parse_when, text, now=services.clock.now(), days=services.limits.schedule_days)
    if not is_english(text):
        return read()
    return await asyncio.get_running_loop().run_in_executor(services.words, read)


async def in_figures(services: Services, draft: Draft) -> Draft:
    """The draft with a `scheduled_at` that intake reads at once. Raises Invalid."""
    if draft.scheduled_at is None or not is_english(draft.scheduled_at):
        return draft
    at = await moment(services, draft.scheduled_at)
    return msgspec.structs.replace(draft, scheduled_at=timestamp(at))
