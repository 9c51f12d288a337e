"""From a token to a credential, by the SHA-256 of the token in the directory's snapshot."""

import asyncio

from everpost import telemetry
from everpost.clock import Clock
from everpost.model.credential import FULL_ACCESS, Credential
from everpost.model.errors import Unauthorized, Unavailable
from everpost.security.secrets import MAXIMUM, equal, token_hash
from everpost.store.directory import Directory
from everpost.store.interface import ApiKeyRow, StoreUnavailable

__all__ = ["OPERATOR", "Access"]

OPERATOR = Credential(project=1, permission=FULL_ACCESS, actor="operator", operator=True)
"""Whoever can open the local admin socket."""

_REFUSED = telemetry.counter("everpost_unauthorized_total", "Requests without a valid API key")

# Stands in for a key that is not there, so that all refusals do the same work (S44).
_NOBODY = ApiKeyRow(
    id=bytes(16), project=0, public_id="", name="", permission="", hash=bytes(32),
    created_at=0, revoked_at=0,
)  # fmt: skip

_LOOK_AGAIN_SECONDS = 0.2
_PATIENCE_S = 1.0
"""A database that is away must not hold up who asks with a key that nobody knows."""


class Access:
    """Recognises callers by their API keys."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._looked_at = float("-inf")
        self._blind = False
        """The last look could not be had."""

    def authenticate(self, token: str | None) -> Credential:
        """The caller with this token, as far as this process knows now.

        Raises Unauthorized: `missing_api_key` for none, `invalid_api_key` for one that is unknown,
        revoked or expired.
        """
        if not token:
            _REFUSED.add(1)
            raise Unauthorized("Missing API key", name="missing_api_key")
        if len(token) > MAXIMUM:
            _REFUSED.add(1)
            raise Unauthorized("API key is invalid")
        snapshot = self._directory.now
        hash_ = token_hash(token)
        row = snapshot.keys.get(hash_, _NOBODY)
        ends = row.expires_at
        same = equal(row.hash, hash_)
        over = (row.revoked_at is not None) | (ends is not None and ends <= self._clock.now())
        if not same or over:
            _REFUSED.add(1)
            raise Unauthorized("API key is invalid")
        project = snapshot.projects.get(row.project)
        return Credential(
            project=row.project,
            permission=row.permission,
            actor=f"key:{row.public_id}",
            key=row.id,
            domain=row.domain,
            sandbox=row.sandbox or (project is not None and project.sandbox),
        )

    async def recognise(self, token: str | None) -> Credential:
        """Like `authenticate`; a key that is refused is looked for once more after reading the
        catalog again, since another process may have made it a moment ago. Strangers who guess
        cause at most a few such reads a second. Raises Unavailable where that cannot be read: keys
        that are known go on, of others nobody can say that they are invalid."""
        try:
            return self.authenticate(token)
        except Unauthorized as refused:
            if refused.name == "missing_api_key":
                raise
            now = self._clock.monotonic()
            if now - self._looked_at < _LOOK_AGAIN_SECONDS:
                if self._blind:
                    raise _cannot_say() from None
                raise
            self._looked_at = now
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    grown = await self._directory.refresh()
            except (StoreUnavailable, TimeoutError) as error:
                self._blind = True
                raise _cannot_say() from error
            self._blind = False
            if not grown:
                raise
        return self.authenticate(token)


def _cannot_say() -> Unavailable:
    return Unavailable("This API key is not known here, and the database does not answer now.")
