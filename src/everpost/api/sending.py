"""POST /emails and POST /emails/batch: the hot path."""

from typing import Annotated

from everpost import ids, telemetry
from everpost.api import drafts
from everpost.api.answers import encode
from everpost.api.bodies import EmailBody
from everpost.api.moments import in_figures
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import BatchAnswer, Created, ItemError
from everpost.intake import Prepared, check_key, fingerprint
from everpost.model.errors import Invalid, Refusal

__all__ = ["send", "send_batch"]

_PARSE = telemetry.histogram("everpost_http_parse_seconds", "Decoding the JSON of a request's mail")


async def send(
    services: Services, request: Request, body: Annotated[bytes, EmailBody]
) -> Annotated[bytes, Created]:
    """Accept one email. It is durable when the answer arrives."""
    key = _key(request)
    now = services.clock.monotonic
    began = now()
    email = drafts.decode(body)
    _PARSE.observe(now() - began)
    credential = request.credential
    mark = b"" if key is None else fingerprint("POST /emails", drafts.canonical(email))
    try:
        draft = drafts.draft(email)
        if draft.scheduled_at is not None:
            draft = await in_figures(services, draft)
        prepared = services.intake.prepare(credential, draft)
    except Refusal:
        if (first := await _answered(services, request, key, mark)) is None:
            raise
        return first
    answer = b'{"id":"%b"}' % ids.text(prepared.message.id).encode()
    if key is None:
        return await services.intake.accept(credential, (prepared,), answer=answer)
    return await services.intake.accept(
        credential, (prepared,), key=key, fingerprint=mark, answer=answer
    )


async def send_batch(
    services: Services, request: Request, body: Annotated[bytes, list[EmailBody]]
) -> Annotated[bytes, BatchAnswer]:
    """Accept up to 100 emails, all in one durable step.

    Strict validation (the default) refuses all when one is bad; `x-batch-validation: permissive`
    accepts the good ones and lists the others under `errors`.
    """
    key = _key(request)
    mode = request.header(b"x-batch-validation") or "strict"
    if mode not in {"strict", "permissive"}:
        raise Invalid("Invalid `x-batch-validation` header. It must be strict or permissive.")
    now = services.clock.monotonic
    began = now()
    if mode == "strict":
        emails: list[EmailBody] = drafts.decode_batch(body)
        _PARSE.observe(now() - began)
        mark = _mark(mode, key, emails)
        try:
            prepared, errors = await _prepare_all(services, request, emails), None
        except Refusal:
            if (first := await _answered(services, request, key, mark)) is None:
                raise
            return first
    else:
        items = drafts.decode_items(body)
        _PARSE.observe(now() - began)
        prepared, errors, emails = await _prepare_good(services, request, items)
        mark = _mark(mode, key, emails)
    made = [Created(ids.text(each.message.id)) for each in prepared]
    answer = encode(BatchAnswer(made, errors))
    if not prepared:
        first = await _answered(services, request, key, mark)
        return answer if first is None else first
    return await services.intake.accept(
        request.credential, prepared, key=key, fingerprint=mark, answer=answer
    )


def _key(request: Request) -> str | None:
    key = request.header(b"idempotency-key")
    if key is not None:
        check_key(key)
    return key


def _mark(mode: str, key: str | None, emails: list[EmailBody]) -> bytes:
    """A batch's fingerprint; without a key none is needed."""
    return (
        b"" if key is None else fingerprint(f"POST /emails/batch {mode}", drafts.canonical(emails))
    )


async def _answered(
    services: Services, request: Request, key: str | None, mark: bytes
) -> bytes | None:
    """The first answer to a request that would be refused, or make nothing, now."""
    if key is None:
        return None
    return await services.intake.answered(request.credential, key, mark)


async def _prepare_all(
    services: Services, request: Request, emails: list[EmailBody]
) -> list[Prepared]:
    prepared = []
    for index, email in enumerate(emails):
        try:
            draft = await in_figures(services, drafts.draft(email))
            prepared.append(services.intake.prepare(request.credential, draft))
        except Refusal as refusal:
            refusal.message = f"Item {index}: {refusal.message}"
            raise
    return prepared


async def _prepare_good(
    services: Services, request: Request, items: list[EmailBody | Refusal]
) -> tuple[list[Prepared], list[ItemError], list[EmailBody]]:
    prepared, errors, emails = [], [], []
    for index, item in enumerate(items):
        if isinstance(item, Refusal):
            errors.append(ItemError(index, item.message))
            continue
        emails.append(item)
        try:
            draft = await in_figures(services, drafts.draft(item))
            prepared.append(services.intake.prepare(request.credential, draft))
        except Refusal as refusal:
            errors.append(ItemError(index, refusal.message))
    return prepared, errors, emails
