"""Domains and API keys: what callers manage. The rules are catalog's."""

from typing import Any

import msgspec

from everpost import ids
from everpost.api import views
from everpost.api.bodies import NewApiKeyBody, NewDomainBody
from everpost.api.lists import page_by_id
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import (
    ApiKeyAnswer,
    DeletedAnswer,
    DomainAnswer,
    ListAnswer,
    NewApiKeyAnswer,
)
from everpost.model.errors import Invalid, NotFound

__all__ = [
    "add_domain",
    "create_api_key",
    "get_domain",
    "list_api_keys",
    "list_domains",
    "remove_domain",
    "revoke_api_key",
    "verify_domain",
]

_NO_DOMAIN = "Domain not found"
_NO_KEY = "API key not found"


async def add_domain(services: Services, request: Request, body: NewDomainBody) -> DomainAnswer:
    """Add a domain; Everpost makes its DKIM keys."""
    chosen = _given(body, "signing", "trust", "algorithms", "selector")
    view = await services.domains.add(request.credential, body.name, **chosen)
    return views.domain(view)


async def list_domains(services: Services, request: Request) -> ListAnswer[DomainAnswer]:
    """All domains, oldest first."""
    await services.directory.refresh()
    found = services.domains.list(request.credential)
    return page_by_id([views.domain(each) for each in found], request)


async def get_domain(services: Services, request: Request) -> DomainAnswer:
    """One domain and its DNS records."""
    await services.directory.refresh()
    return views.domain(services.domains.get(request.credential, request.id_of(_NO_DOMAIN)))


async def verify_domain(services: Services, request: Request) -> DomainAnswer:
    """Look the domain's DNS records up now; the answer tells what was found of each. 409 when
    another project has proved a domain above or below this one."""
    id_ = request.id_of(_NO_DOMAIN)
    return views.domain(await services.domains.verify(request.credential, id_))


async def remove_domain(services: Services, request: Request) -> DeletedAnswer:
    """Remove a domain and its keys."""
    id_ = request.id_of(_NO_DOMAIN)
    if not await services.domains.remove(request.credential, id_):
        raise NotFound(_NO_DOMAIN)
    return DeletedAnswer("domain", ids.text(id_))


async def create_api_key(
    services: Services, request: Request, body: NewApiKeyBody
) -> NewApiKeyAnswer:
    """Make an API key. Its token is in this answer and never shown again."""
    chosen = _given(body, "permission", "sandbox")
    if body.domain_id is not None:
        domain = ids.parse(body.domain_id)
        if domain is None:
            raise Invalid(f"Invalid `domain_id` field. {_NO_DOMAIN}.", field="domain_id")
        chosen["domain"] = domain
    row, token = await services.api_keys.create(request.credential, body.name, **chosen)
    return NewApiKeyAnswer(ids.text(row.id), token)


async def list_api_keys(services: Services, request: Request) -> ListAnswer[ApiKeyAnswer]:
    """Keys that are not revoked, oldest first."""
    await services.directory.refresh()
    rows = services.api_keys.list(request.credential)
    return page_by_id([views.api_key(row) for row in rows], request)


async def revoke_api_key(services: Services, request: Request) -> DeletedAnswer:
    """End a key for good."""
    id_ = request.id_of(_NO_KEY)
    if not await services.api_keys.revoke(request.credential, id_):
        raise NotFound(_NO_KEY)
    return DeletedAnswer("api_key", ids.text(id_))


def _given(body: msgspec.Struct, *names: str) -> dict[str, Any]:
    """The fields that the caller gave; for the others catalog's defaults hold."""
    values = ((name, getattr(body, name)) for name in names)
    return {name: value for name, value in values if value is not None}
