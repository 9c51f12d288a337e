"""From content to bytes, and signing them: pure functions.

Promises: bytes are a function of content, form and composer version alone, on every machine; every
line ends with CRLF and is at most 998 octets long, no CR, LF or NUL is bare; nothing that a caller
wrote becomes a field, a recipient or a part of its own; Bcc is never written; what cannot be
written raises CannotCompose, and `check` finds that out beforehand. DKIM signing is here too, since
it is a function of the same bytes (safe to call from several threads).

Does not live here: deciding what to send to whom, rendering templates, the envelope, dot-stuffing,
keeping keys, any I/O.
"""

from everpost.compose.dkim import (
    SIGNED_HEADERS,
    SigningKey,
    dns_record,
    generate_key,
    load_key,
    sign,
)
from everpost.compose.errors import CannotCompose, ComposeError, UnreadableKey
from everpost.compose.headers import is_reserved
from everpost.compose.message import COMPOSER, Composed, assemble, check, compose, form_for
from everpost.compose.size import estimate_size
from everpost.compose.types import FALLBACK_TYPE, guess_type

__all__ = [
    "COMPOSER",
    "FALLBACK_TYPE",
    "SIGNED_HEADERS",
    "CannotCompose",
    "ComposeError",
    "Composed",
    "SigningKey",
    "UnreadableKey",
    "assemble",
    "check",
    "compose",
    "dns_record",
    "estimate_size",
    "form_for",
    "generate_key",
    "guess_type",
    "is_reserved",
    "load_key",
    "sign",
]
