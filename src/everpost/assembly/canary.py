"""The canary: where a mailbox for it is set."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from everpost.assembly.node import Node
from everpost.assembly.parts import intake_of
from everpost.assembly.tasks import beside
from everpost.monitoring.canary import HEADER, Canary
from everpost.net.mailbox import Login, Mailbox, MailboxError, take

__all__ = ["open_canary"]


@contextlib.asynccontextmanager
async def open_canary(node: Node) -> AsyncIterator[None]:
    """Send canaries and look for them until the end of the block."""
    settings = node.settings.canary
    if not settings.address:
        yield
        return
    mailbox = Mailbox.from_url(settings.mailbox)

    async def look(tokens: Collection[str]) -> Collection[str]:
        login = Login(settings.username, _password(settings.password_file))
        return await take(mailbox, login, header=HEADER, wanted=tokens)

    canary = Canary(
        owner=node.ids(),
        store=node.store,
        directory=node.directory,
        intake=intake_of(node),
        look=look,
        token=lambda: secrets.token_hex(16),
        clock=node.clock,
        address=settings.address,
        every_s=settings.every_s,
        wait_s=settings.wait_s,
    )
    async with beside(canary.run()):
        yield


def _password(file: str) -> str:
    """The first line of the file, read anew each time: a changed one needs no restart."""
    if not file:
        return ""
    try:
        with Path(file).open(encoding="utf-8") as lines:
            return lines.readline().rstrip("\r\n")
    except OSError as error:
        raise MailboxError(f"canary.password_file: {error.strerror}") from None
