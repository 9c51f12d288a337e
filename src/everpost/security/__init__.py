"""What keeps secrets secret: sealing at rest, and API keys that are stored only as hashes.

Promises: what is sealed cannot be read or moved to another row without the master key; nothing here
logs or shows a secret. It knows no store: wrapped keys come in as arguments and go out as bytes.
What a credential may do is access' matter, what is sealed when is the callers'.
"""

from everpost.security.sealing import (
    ENVIRONMENT,
    MasterKey,
    MasterKeyError,
    NoDataKey,
    Sealer,
    SealingError,
    UnknownKey,
    Unsealable,
)
from everpost.security.secrets import (
    NewKey,
    derived_secret,
    describe,
    equal,
    new_api_key,
    token_hash,
)

__all__ = [
    "ENVIRONMENT",
    "MasterKey",
    "MasterKeyError",
    "NewKey",
    "NoDataKey",
    "Sealer",
    "SealingError",
    "UnknownKey",
    "Unsealable",
    "derived_secret",
    "describe",
    "equal",
    "new_api_key",
    "token_hash",
]
