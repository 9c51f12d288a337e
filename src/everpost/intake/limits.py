"""How much one message may hold. Doors with a smaller limit of their own apply it before."""

import msgspec

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one message; characters are Unicode characters, bytes are octets."""

    recipients_per_field: int = 50
    """Addresses in each of to, cc, bcc and reply_to, before repeats are dropped."""
    message_bytes: int = 40 * 1024 * 1024
    """The most that the composed message can take (compose.estimate_size)."""
    subject_chars: int = 998
    headers: int = 100
    header_bytes: int = 64 * 1024
    """Names and values of all the caller's headers together, in UTF-8."""
    header_value_bytes: int = 8 * 1024
    tags: int = 50
    metadata: int = 50
    metadata_key_chars: int = 128
    metadata_value_chars: int = 1024
    attachments: int = 200
    filename_chars: int = 255
    part_bytes: int = 64 * 1024
    """Attachments of at least this size are stored once per project and day."""
    schedule_days: float = 30.0
    lifetime_floor_s: int = 10
    """The shortest `expires_in`: less would expire before a first attempt can end."""
