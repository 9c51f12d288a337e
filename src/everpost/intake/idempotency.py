"""Idempotency keys (COMPAT §5.4): what a key may be, and what makes two requests the same.

The claim itself is atomic in the store, in the transaction that writes the messages.
"""

import hashlib
import re

from everpost.model.errors import Invalid

__all__ = ["check_key", "fingerprint"]

_KEY = re.compile(r"[ -~]{1,256}").fullmatch


def check_key(key: str) -> None:
    """Raise Invalid unless `key` is 1 to 256 printable ASCII characters (S51)."""
    if not _KEY(key):
        raise Invalid(
            "The idempotency key must be between 1 and 256 printable ASCII characters.",
            name="invalid_idempotency_key",
        )


def fingerprint(endpoint: str, canonical: bytes) -> bytes:
    """SHA-256 over the endpoint's name and the request in a canonical form."""
    digest = hashlib.sha256(endpoint.encode())
    digest.update(b"\0")
    digest.update(canonical)
    return digest.digest()
