"""API keys: made, listed, revoked. A revoked key stays as a row, so that the audit table's names
keep their meaning and its token is never given out again."""

import os
from collections.abc import Callable, Sequence

import msgspec

from everpost.catalog.checks import must_have_full_access, must_manage, title
from everpost.clock import Clock
from everpost.ids import Id, IdMaker
from everpost.model.credential import FULL_ACCESS, SENDING_ACCESS, Credential
from everpost.model.errors import Conflict, Invalid
from everpost.security import describe, new_api_key
from everpost.store.directory import Directory
from everpost.store.interface import ApiKeyRow, Catalog

__all__ = ["ApiKeys"]


class ApiKeys:
    """A project's API keys."""

    def __init__(
        self,
        store: Catalog,
        directory: Directory,
        *,
        clock: Clock,
        ids: IdMaker,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._ids = ids
        self._randomness = randomness

    async def create(
        self,
        credential: Credential,
        name: str,
        *,
        permission: str = FULL_ACCESS,
        domain: Id | None = None,
        sandbox: bool = False,
        token: str | None = None,
    ) -> tuple[ApiKeyRow, str]:
        """A new key and its token, which is shown this once. `domain` restricts a sending key to
        one domain; `token` is a value that the operator chose. A key of the sandbox makes only keys
        of the sandbox. Raises Invalid, Missing, Forbidden; Conflict when the token was used before.
        """
        must_have_full_access(credential)
        name = title(name, "name")
        if permission not in {FULL_ACCESS, SENDING_ACCESS}:
            raise Invalid(
                "Invalid `permission` field. It must be full_access or sending_access.",
                field="permission",
            )
        if domain is not None:
            self._check_domain(credential, domain, permission)
        if token is None:
            made = new_api_key(self._randomness)
            token, public_id, hash_ = made.token, made.public_id, made.hash
        else:
            public_id, hash_ = describe(token)
            if any(row.hash == hash_ for row in await self._store.api_keys()):
                raise Conflict("This API key exists already, or was revoked", field="token")
        row = ApiKeyRow(
            id=self._ids(),
            project=credential.project,
            public_id=public_id,
            name=name,
            permission=permission,
            hash=hash_,
            created_at=self._clock.now(),
            domain=domain,
            sandbox=sandbox or credential.sandbox,
        )
        await self._store.put(row, actor=credential.actor, action="api_key.create")
        await self._directory.refresh()
        return row, token

    def _check_domain(self, credential: Credential, domain: Id, permission: str) -> None:
        if permission != SENDING_ACCESS:
            raise Invalid(
                "Invalid `domain_id` field. It goes with permission sending_access only.",
                field="domain_id",
            )
        for row in self._directory.now.domains.values():
            if row.id == domain and row.project == credential.project:
                return
        raise Invalid("Invalid `domain_id` field. There is no such domain.", field="domain_id")

    def list(self, credential: Credential) -> Sequence[ApiKeyRow]:
        """Keys that are not revoked, oldest first."""
        must_manage(credential)
        rows = self._directory.now.keys.values()
        mine = [r for r in rows if r.project == credential.project and r.revoked_at is None]
        return sorted(mine, key=lambda row: row.id)

    async def revoke(self, credential: Credential, id_: Id) -> bool:
        """End a key for good; False when there is no such key, or it has ended before."""
        must_manage(credential)
        for row in await self._store.api_keys():
            if row.id == id_ and row.project == credential.project and row.revoked_at is None:
                ended = msgspec.structs.replace(row, revoked_at=self._clock.now())
                await self._store.put(ended, actor=credential.actor, action="api_key.revoke")
                await self._directory.refresh()
                return True
        return False
