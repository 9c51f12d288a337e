"""The one way in for every door: a caller's draft becomes a durable message, or a refusal.

Promises: what is refused names its field and has left nothing behind; what is accepted is durable
when `Intake.accept` returns; a repeated idempotency key gives the first answer and no second mail.
Every check is linear in the size of what it reads.

Must not live here: HTTP, SMTP or a vendor's field names (doors), bytes of mail (compose), SQL.
"""

from everpost.intake.accept import Intake, Prepared, Receipt, SealerLike, for_relay
from everpost.intake.draft import Draft, DraftAttachment
from everpost.intake.idempotency import check_key, fingerprint
from everpost.intake.limits import Limits
from everpost.intake.plaintext import plain_text
from everpost.intake.schedule import is_english, parse_when

__all__ = [
    "Draft",
    "DraftAttachment",
    "Intake",
    "Limits",
    "Prepared",
    "Receipt",
    "SealerLike",
    "check_key",
    "fingerprint",
    "for_relay",
    "is_english",
    "parse_when",
    "plain_text",
]
