"""What a door hands to intake: the caller's own words, decoded but not yet judged."""

from collections.abc import Mapping

import msgspec

__all__ = ["Draft", "DraftAttachment"]


class DraftAttachment(msgspec.Struct, frozen=True, gc=False):
    """`content` is already decoded from base64 or an array. `content_id` set means inline."""

    filename: str | None
    content: bytes
    content_type: str | None = None
    content_id: str | None = None


class Draft(msgspec.Struct, frozen=True, gc=False):
    """One message as a caller asked for it. Address fields hold `a@b` or `Name <a@b>`.

    `scheduled_at`: ISO 8601 with offset or natural language. `expires_in`: seconds, or a string
    like `10 min`; after that many seconds from its due time the message is not sent any more.
    `text` None asks for a text part derived from `html`; an empty one asks for none.
    """

    sender: str
    to: tuple[str, ...]
    subject: str
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    reply_to: tuple[str, ...] = ()
    text: str | None = None
    html: str | None = None
    attachments: tuple[DraftAttachment, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    scheduled_at: str | None = None
    stream: str | None = None
    expires_in: str | int | None = None
    in_doubt: str | None = None
    durability: str | None = None
    dialect: str = "native"
