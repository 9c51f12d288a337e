"""Attachments as callers give them, with safe names and types (S6, S32).

A filename keeps what follows its last slash or backslash, and becomes one that is safe to save on
every reader's system; a type comes from the caller, else from the filename, else it is
application/octet-stream (COMPAT §4).
"""

import re

from everpost.compose import guess_type
from everpost.intake.draft import DraftAttachment
from everpost.intake.limits import Limits
from everpost.model.characters import has_direction_override, line_fault
from everpost.model.errors import Invalid
from everpost.model.message import Attachment

__all__ = ["attachments"]

_WORD = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # RFC 6838 §4.2 restricted names
_media_type = re.compile(rf'({_WORD}/{_WORD})((?: *; *{_WORD}=(?:{_WORD}|"{_WORD}"))*)').fullmatch
_parameter = re.compile(rf'; *({_WORD})="?({_WORD})"?').findall
_content_id = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]{1,128}").fullmatch
_MEDIA_TYPE_CHARS = 255
_OWN_PARAMETERS = frozenset({"name", "boundary"})
"""We write these ourselves."""
_CONTAINERS = ("multipart/", "message/partial", "message/external-body")
"""Types whose body is structure: as an attachment in base64 they are malformed (RFC 2045 §6.4)."""
_device = re.compile(
    r"(?:CON|PRN|AUX|NUL|(?:COM|LPT)[0-9\xb9\xb2\xb3]) *(?:\.|\Z)", re.IGNORECASE
).match
"""Windows opens a device in place of such a file, whatever its extension."""


def attachments(drafts: tuple[DraftAttachment, ...], limits: Limits) -> tuple[Attachment, ...]:
    """Checked attachments, contents still in place. Raises Invalid."""
    if len(drafts) > limits.attachments:
        raise _bad(f"There may be at most {limits.attachments}.")
    checked = []
    ids: set[str] = set()
    for draft in drafts:
        if draft.content_id is not None:
            if not _content_id(draft.content_id):
                raise _bad(f"The content_id {draft.content_id[:80]!a} is refused.")
            if draft.content_id in ids:
                raise _bad(f"The content_id `{draft.content_id}` is given twice.")
            ids.add(draft.content_id)
        filename = _filename(draft.filename, limits)
        checked.append(
            Attachment(
                filename=filename,
                content_type=_content_type(draft.content_type, filename),
                content=draft.content,
                content_id=draft.content_id,
            )
        )
    return tuple(checked)


def _filename(given: str | None, limits: Limits) -> str:
    if not given:
        return "attachment"
    if (fault := line_fault(given)) is not None:
        raise _bad(f"A filename is refused: {fault}.")
    if has_direction_override(given):
        raise _bad("A filename contains a character that changes text direction.")
    name = given[max(given.rfind("/"), given.rfind("\\")) + 1 :].strip().rstrip(" .")
    if not name:
        raise _bad(f"The filename {given[:80]!a} names no file.")
    name = name.replace(":", "_")  # behind it NTFS reads the name of a hidden stream
    if _device(name):
        name = f"_{name}"
    if len(name) > limits.filename_chars:
        raise _bad(f"A filename may have at most {limits.filename_chars} characters.")
    return name


def _content_type(given: str | None, filename: str) -> str:
    if not given:
        return guess_type(filename)
    parsed = _media_type(given) if len(given) <= _MEDIA_TYPE_CHARS else None
    if parsed is None:
        raise _bad(f"The content_type {given[:80]!a} is refused: `type/subtype` is needed.")
    kind, parameters = parsed[1].lower(), parsed[2]
    if kind.startswith(_CONTAINERS):
        raise _bad(f"The content_type `{kind}` cannot be attached.")
    for name, value in _parameter(parameters):
        if name.lower() not in _OWN_PARAMETERS:
            kind += f"; {name.lower()}={value}"
    return kind


def _bad(reason: str) -> Invalid:
    return Invalid(
        f"Invalid `attachments` field. {reason}", field="attachments", name="invalid_attachment"
    )
