"""POST /emails and POST /emails/batch: the hot path."""

from typing import Annotated

from everpost import ids, telemetry
from everpost.api import drafts
from everpost.api.answers import Answer, encode
from everpost.api.bodies import EmailBody
from everpost.api.moments import in_figures
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import BatchAnswer, Created, ItemError
from everpost.intake import Prepared, Receipt, check_key, fingerprint
from everpost.model.errors import Invalid, Refusal
from everpost.model.message import Assurance, Durability

__all__ = ["send", "send_batch"]

_PARSE = telemetry.histogram("everpost_http_parse_seconds", "Decoding the JSON of a request's mail")


async def send(
    services: Services, request: Request, body: Annotated[bytes, EmailBody]
) -> Annotated[Answer, Created]:
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
        return _answer(services, first)
    answer = b'{"id":"%b"}' % ids.text(prepared.message.id).encode()
    receipt = await services.intake.accept(
        credential, (prepared,), key=key, fingerprint=mark, answer=answer
    )
    return _shown(services, receipt)


async def send_batch(
    services: Services, request: Request, body: Annotated[bytes, list[EmailBody]]
) -> Annotated[Answer, BatchAnswer]:
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
            return _answer(services, first)
    else:
        items = drafts.decode_items(body)
        _PARSE.observe(now() - began)
        prepared, errors, emails = await _prepare_good(services, request, items)
        mark = _mark(mode, key, emails)
    made = [Created(ids.text(each.message.id)) for each in prepared]
    answer = encode(BatchAnswer(made, errors))
    if not prepared:
        first = await _answered(services, request, key, mark)
        return _answer(services, answer if first is None else first)
    receipt = await services.intake.accept(
        request.credential, prepared, key=key, fingerprint=mark, answer=answer
    )
    return _shown(services, receipt)


_JOURNALLED = frozenset((Assurance.JOURNAL, Assurance.JOURNAL_PEER))


def _shown(services: Services, receipt: Receipt) -> Answer:
    """The answer, and in it what it means where that is less than what this server gives as a
    rule."""
    if receipt.assurance not in _JOURNALLED:
        return _answer(services, receipt.answer)
    word = receipt.assurance.value.encode()
    return Answer(200, _saying(receipt.answer, word), headers=[(b"everpost-durability", word)])


def _answer(services: Services, body: bytes) -> Answer:
    relaxed = services.durability is Durability.RELAXED  # the application adds the header
    return Answer(200, _saying(body, b"relaxed") if relaxed else body)


def _saying(body: bytes, word: bytes) -> bytes:
    return body[:-1] + b',"durability":"' + word + b'"}'


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
