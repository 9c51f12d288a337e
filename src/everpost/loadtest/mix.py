"""What is sent: weighted kinds of messages from a TOML file, turned into request bodies.

Bodies are encoded once and cut at what changes from message to message, so that making one costs
microseconds: the generator must not become what is measured.
"""

import base64
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Any

import msgspec

__all__ = ["ID_HEADER", "SAMPLE", "BadMix", "Kind", "Mix", "strangers"]

ID_HEADER = "X-Loadtest-Id"
"""Each message carries `run.number` in this header, and the sink reports it."""

MOST_BYTES = 40 * 1024 * 1024
_PLACE = re.compile(r"\{n(?::([1-9][0-9]{0,8}))?\}")
_PLACE_BYTES = re.compile(_PLACE.pattern.encode())
_HEADER = re.compile(r"[!-9;-~]{1,76}")
_LINE = "A paragraph of ordinary text, as mail has it, neither long nor short.\n"
_RESERVED = re.compile(
    r"(?:^|\.)(?:test|example|invalid|localhost|example\.(?:com|net|org))$", re.IGNORECASE
)
"""RFC 2606: names that lead nowhere."""

SAMPLE = """\
# A message mix for `everpost loadtest --mix FILE`.
#
# {n} stands for the message's number, {n:100} for its remainder by 100: that spreads addresses over
# so many mailboxes or domains. Both may stand in any text below.

[[message]]
name = "code"                        # how reports call it
weight = 8                           # of 10 messages 8 are of this kind
from = "Shop <noreply@example.test>" # its domain must be known to the server
to = "user{n}@dest{n:50}.test"       # or a list of several
subject = "Your code is {n}"
text = "Your code is {n}. It is valid for ten minutes.\\n"
tags = { kind = "code" }

[[message]]
name = "receipt"
weight = 2
from = "Shop <noreply@example.test>"
to = ["user{n}@dest{n:50}.test"]
subject = "Receipt {n}"
text_bytes = 1500                    # so much made-up text
html_bytes = 20000                   # and HTML
attachments = [{ filename = "receipt.pdf", bytes = 50000 }]
headers = { "X-Shop" = "eu-1" }
"""


class BadMix(ValueError):
    """The mix cannot be used; the text names the field."""


class Attachment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A made-up file of `bytes` bytes."""

    filename: str
    bytes: int


class Kind(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sender": "from"}, kw_only=True
):
    """One kind of message. `text` and `html` as given, or made up in the size of `text_bytes` and
    `html_bytes`; with none of them 2 KB of text."""

    name: str = "message"
    weight: float = 1.0
    sender: str = "Load test <loadtest@example.test>"
    to: str | list[str] = "user{n}@dest{n:100}.test"
    subject: str = "Load test message {n}"
    text: str | None = None
    text_bytes: int | None = None
    html: str | None = None
    html_bytes: int | None = None
    attachments: list[Attachment] = []
    headers: dict[str, str] = {}
    tags: dict[str, str] = {}
    stream: str | None = None

    @property
    def recipients(self) -> list[str]:
        return [self.to] if isinstance(self.to, str) else self.to

    def fault(self) -> tuple[str, str] | None:
        """(field, what is wrong with it) of the first field that cannot be used."""
        sizes = [("text_bytes", self.text_bytes), ("html_bytes", self.html_bytes)]
        sizes += [("attachments", file.bytes) for file in self.attachments]
        for field, size in sizes:
            if size is not None and not 0 < size <= MOST_BYTES:
                return field, f"a size lies between 1 and {MOST_BYTES}"
        if sum(size or 0 for _, size in sizes) > MOST_BYTES:
            return "attachments", f"together more than {MOST_BYTES} bytes"
        for one, other in (("text", "text_bytes"), ("html", "html_bytes")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                return one, f"either {one} or {other}"
        if not 0 < self.weight < float("inf"):
            return "weight", "a weight is above zero"
        if not self.name:
            return "name", "a name has at least one letter"
        if not self.recipients:
            return "to", "there is no recipient"
        if any(domain_of(address) == "" for address in self.recipients):
            return "to", "each recipient is an address, such as user{n}@dest{n:100}.test"
        if domain_of(self.sender) == "":
            return "from", "the sender is an address"
        for header in self.headers:
            if not _HEADER.fullmatch(header) or header.lower() == ID_HEADER.lower():
                return "headers", f"{header!r} cannot be set"
        return None

    def fields(self) -> dict[str, Any]:
        """The request's fields, placeholders still in."""
        fields: dict[str, Any] = {
            "from": self.sender, "to": self.recipients, "subject": self.subject
        }  # fmt: skip
        plain = _made_up(self.text_bytes) if self.text_bytes else self.text
        html = f"<p>{_made_up(self.html_bytes)}</p>" if self.html_bytes else self.html
        fields |= {"text": plain} if plain or not html else {}
        fields |= {"html": html} if html else {}
        if not plain and not html:
            fields["text"] = _made_up(2000)
        if self.attachments:
            fields["attachments"] = [
                {"filename": f.filename, "content": _content(f.bytes)} for f in self.attachments
            ]
        if self.tags:
            fields["tags"] = [{"name": k, "value": v} for k, v in self.tags.items()]
        if self.stream is not None:
            fields["stream"] = self.stream
        return fields


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    message: list[Kind]


class Mix:
    """Kinds of messages, of which `pick` takes one by weight. `run` names this run in each
    message's header."""

    def __init__(self, kinds: Sequence[Kind], *, run: str, chance: Random) -> None:
        self.kinds = tuple(kinds)
        self._bodies = [_Body(kind, run) for kind in kinds]
        self._weights = list(accumulate(kind.weight for kind in kinds))
        self._chance = chance
        self._all = range(len(kinds))

    @staticmethod
    def read(text: str) -> list[Kind]:
        """The kinds of a TOML file. Raises BadMix."""
        try:
            kinds = msgspec.convert(tomllib.loads(text), _File).message
        except tomllib.TOMLDecodeError as error:
            raise BadMix(f"not TOML: {error}") from error
        except msgspec.ValidationError as error:
            raise BadMix(str(error).replace("`$.", "`")) from error
        if not kinds:
            raise BadMix("`message`: there is none")
        for n, kind in enumerate(kinds):
            fault = kind.fault()
            if fault is not None:
                raise BadMix(f"`message[{n}].{fault[0]}`: {fault[1]}")
        names = [kind.name for kind in kinds]
        if len(set(names)) < len(names):
            raise BadMix("`message`: each needs a `name` of its own")
        return kinds

    def pick(self) -> int:
        """The index of a kind."""
        if len(self.kinds) == 1:
            return 0
        return self._chance.choices(self._all, cum_weights=self._weights)[0]

    def body(self, kind: int, n: int) -> bytes:
        """The JSON of message number `n`."""
        return self._bodies[kind].make(n)

    def recipients(self, kind: int) -> int:
        """To how many a message of this kind goes."""
        return self._bodies[kind].recipients


class _Body:
    """An encoded kind, cut at its placeholders."""

    def __init__(self, kind: Kind, run: str) -> None:
        fields = kind.fields()
        # {n} of the header is ours; it is cut like the others.
        fields["headers"] = {**kind.headers, ID_HEADER: f"{run}.{{n}}"}
        self.recipients = len(kind.recipients)
        encoded = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        self._parts: list[bytes] = []
        self._places: list[int] = []
        at = 0
        for place in _PLACE_BYTES.finditer(encoded):
            self._parts.append(encoded[at : place.start()])
            self._places.append(int(place[1]) if place[1] else 0)
            at = place.end()
        self._end = encoded[at:]

    def make(self, n: int) -> bytes:
        whole = b"%d" % n
        pieces: list[bytes] = []
        for part, modulus in zip(self._parts, self._places, strict=True):
            pieces += (part, b"%d" % (n % modulus) if modulus else whole)
        pieces.append(self._end)
        return b"".join(pieces)


def domain_of(address: str) -> str:
    """The domain of `a@b` or `Name <a@b>`, placeholders as 0; "" where there is none."""
    filled = _PLACE.sub("0", address).strip()
    found = re.fullmatch(r"(?:.*<)?[^<>@\s]+@([^<>@\s]+)>?", filled)
    return found[1].rstrip(".") if found else ""


def strangers(kinds: Sequence[Kind]) -> list[str]:
    """Domains of recipients that may belong to somebody: not reserved for tests (RFC 2606 §2)."""
    found = {domain_of(address) for kind in kinds for address in kind.recipients}
    return sorted(domain for domain in found if not _RESERVED.search(domain))


def _made_up(size: int) -> str:
    return (_LINE * (size // len(_LINE) + 1))[:size]


def _content(size: int) -> str:
    """Base64 of `size` bytes that no compression makes much of, always the same."""
    block: Iterator[int] = ((i * 167 + (i >> 8) * 59) & 0xFF for i in range(min(size, 65_536)))
    data = bytes(block)
    return base64.b64encode((data * (size // len(data) + 1))[:size]).decode()
