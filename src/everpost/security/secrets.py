"""API keys: `ep_<public id>_<secret>`. Stored is the SHA-256 of the whole token, and its public id.

A fast hash is enough, since the secret has 256 random bits: there is nothing to guess. A token that
an operator chooses instead is only as good as its own randomness.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Callable

import msgspec

from everpost.model.errors import Invalid
from everpost.security.sealing import MasterKey

__all__ = [
    "MAXIMUM",
    "MINIMUM",
    "NewKey",
    "derived_secret",
    "describe",
    "equal",
    "new_api_key",
    "token_hash",
]

MINIMUM = 24
"""Characters that a chosen token must have."""

MAXIMUM = 512
"""Characters that a token may have; longer ones are not even hashed."""

# Without i, l, o, u: read aloud or typed, an id stays itself. 12 characters are 60 bits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 12
_OURS = re.compile(rf"ep_([{_ALPHABET}]{{{_ID_LENGTH}}})_[A-Za-z0-9_-]{{43}}")
_CHOSEN = re.compile(rf"[!-~]{{{MINIMUM},{MAXIMUM}}}")


class NewKey(msgspec.Struct, frozen=True):
    """A key at its making, the only time that its token is known."""

    token: str
    public_id: str
    hash: bytes

    def __repr__(self) -> str:
        return f"<NewKey {self.public_id}>"


def new_api_key(randomness: Callable[[int], bytes] = os.urandom) -> NewKey:
    """A key with 256 random bits of secret."""
    public_id = _public_id(randomness(_ID_LENGTH))
    secret = base64.urlsafe_b64encode(randomness(32)).rstrip(b"=").decode("ascii")
    token = f"ep_{public_id}_{secret}"
    return NewKey(token, public_id, token_hash(token))


def describe(token: str) -> tuple[str, bytes]:
    """(public id, hash) of a token that an operator chose: printable ASCII without spaces, at least
    24 characters. The public id is the token's own where it has our form, else derived from the
    hash. Raises Invalid."""
    hash_ = token_hash(token)
    ours = _OURS.fullmatch(token)
    if ours is not None:
        return ours[1], hash_
    if not _CHOSEN.fullmatch(token):
        raise Invalid(
            f"A chosen API key needs {MINIMUM} to {MAXIMUM} printable ASCII characters, no spaces",
            field="token",
        )
    return _public_id(hashlib.sha256(b"everpost public id\x00" + hash_).digest()), hash_


def token_hash(token: str) -> bytes:
    """SHA-256 of a token. Any string has one, also one that is no token at all."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def equal(a: bytes, b: bytes) -> bool:
    """Whether two values are the same, in a time that tells nothing about where they differ."""
    return hmac.compare_digest(a, b)


def derived_secret(master: MasterKey, public_id: str) -> str:
    """The secret that goes with a public id where the server must compute with it (SigV4,
    COMPAT §3): nothing is stored for it. It ends with the master key or with its key's row."""
    key = master.subkey(b"everpost vendor secrets")
    return base64.b64encode(hmac.digest(key, public_id.encode("ascii"), "sha256")).decode("ascii")


def _public_id(source: bytes) -> str:
    return "".join(_ALPHABET[byte & 31] for byte in source[:_ID_LENGTH])
