"""What callers may send: one struct an endpoint. Decoding, validation and the OpenAPI document all
come from these; bodies on relays, pools, routes, streams and projects are catalog's own.

Resend's endpoints ignore unknown fields and nulls (RULINGS "Unknown fields"), so their fields all
may be null. Our own endpoints refuse unknown fields. Field order is part of the idempotency
fingerprint: append only. Bounds that intake and catalog judge stand here for the document alone:
`_say` puts them into the schema, not into the decoder.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from everpost.catalog import Document

__all__ = [
    "DEMANDS",
    "ApplyBody",
    "AttachmentBody",
    "EmailBody",
    "ExplainBody",
    "NewApiKeyBody",
    "NewDomainBody",
    "RelayTestBody",
    "ReschedulingBody",
    "TagBody",
]


def _say(text: str, *examples: Any, **bounds: Any) -> Meta:
    """`bounds` are keywords of JSON Schema."""
    return Meta(description=text, examples=list(examples) or None, extra_json_schema=bounds or None)


_TAG = r"^[A-Za-z0-9_-]{1,256}$"
_CONTENT_ID = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]{0,128}$"
_HEADER_NAMES = {"pattern": "^[!-9;-~]{1,76}$"}


_NULL = msgspec.Raw(b"null")

Addresses = str | list[str] | None

_Content = Annotated[
    msgspec.Raw,
    Meta(
        description="The file: base64 text, an array of byte values, or Node's Buffer object.",
        extra_json_schema={
            "anyOf": [
                {"type": "string", "contentEncoding": "base64"},
                {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": "Buffer"},
                        "data": {"type": "array", "items": {"type": "integer"}},
                    },
                    "required": ["data"],
                },
            ]
        },
    ),
]


class AttachmentBody(msgspec.Struct, omit_defaults=True, gc=False):
    """An attached file. With `content_id` it is inline: `<img src="cid:…">`."""

    filename: Annotated[str | None, _say("Its name for the reader.", "invoice.pdf")] = None
    content: _Content = msgspec.field(default_factory=lambda: _NULL)
    path: Annotated[str | None, _say("A URL to fetch it from. Not supported: 422.")] = None
    content_type: Annotated[
        str | None, _say("Media type; derived from the filename when absent.")
    ] = None
    content_id: Annotated[
        str | None, _say("Makes it inline, to be shown by the HTML.", pattern=_CONTENT_ID)
    ] = None
    inline_content_id: Annotated[str | None, _say("Another name for `content_id`.")] = None
    contentType: Annotated[str | None, _say("Another name for `content_type`.")] = None  # noqa: N815
    contentId: Annotated[str | None, _say("Another name for `content_id`.")] = None  # noqa: N815
    inlineContentId: Annotated[str | None, _say("Another name for `content_id`.")] = None  # noqa: N815


class TagBody(msgspec.Struct, omit_defaults=True, gc=False):
    """A label that comes back in lists and events."""

    name: Annotated[str, _say("At most 256 of A-Z a-z 0-9 _ -", "category", pattern=_TAG)]
    value: Annotated[str, _say("At most 256 of A-Z a-z 0-9 _ -", "receipt", pattern=_TAG)]


class EmailBody(msgspec.Struct, omit_defaults=True, rename={"sender": "from"}):
    """One email to send."""

    sender: Annotated[
        str | None, _say("`a@b.example` or `Name <a@b.example>`. Required.", minLength=3)
    ] = None
    to: Annotated[
        Addresses, _say("Recipients, at most 50. Required.", minItems=1, maxItems=50, minLength=3)
    ] = None
    subject: Annotated[str | None, _say("Required.", maxLength=998)] = None
    cc: Annotated[Addresses, _say("Recipients whom all readers see.", maxItems=50)] = None
    bcc: Annotated[Addresses, _say("Recipients whom no reader sees.", maxItems=50)] = None
    reply_to: Annotated[Addresses, _say("Where answers go.", maxItems=50)] = None
    html: Annotated[str | None, _say("The HTML body. `html` or `text` is required.")] = None
    text: Annotated[str | None, _say("The plain body; derived from `html` when absent.")] = None
    headers: Annotated[
        dict[str, str | None] | None,
        _say(
            "Further headers. Reserved names are refused.",
            maxProperties=100,
            propertyNames=_HEADER_NAMES,
        ),
    ] = None
    attachments: Annotated[
        list[AttachmentBody] | None, _say("At most 200, 40 MB in all.", maxItems=200)
    ] = None
    tags: Annotated[list[TagBody] | None, _say("At most 50.", maxItems=50)] = None
    scheduled_at: Annotated[
        str | None,
        _say("When to send: ISO 8601 with offset, or words. At most 30 days ahead.", "in 1 hour"),
    ] = None
    template: Annotated[dict[str, Any] | None, _say("Not supported yet: 422.")] = None
    topic_id: Annotated[str | None, _say("Accepted and ignored.")] = None
    replyTo: Annotated[Addresses, _say("Another name for `reply_to`.")] = None  # noqa: N815
    scheduledAt: Annotated[str | None, _say("Another name for `scheduled_at`.")] = None  # noqa: N815
    stream: Annotated[
        str | None, _say("Everpost: the stream, `transactional` (default) or `broadcast`.")
    ] = None
    metadata: Annotated[
        dict[str, str | None] | None,
        _say(
            "Everpost: your own names and values, returned as sent.",
            maxProperties=50,
            propertyNames={"minLength": 1, "maxLength": 128},
        ),
    ] = None
    expires_in: Annotated[
        int | str | None,
        _say(
            "Everpost: stop trying after this long: seconds, or words.",
            600,
            "10 min",
            minimum=10,
            minLength=1,
        ),
    ] = None
    in_doubt: Annotated[
        Literal["resend", "hold", "fail"] | None,
        _say("Everpost: what follows an attempt that may have delivered without our knowing it."),
    ] = None
    durability: Annotated[
        Literal["replicated", "committed", "relaxed"] | None,
        _say(
            "Everpost: the least that the answer must mean. `committed`: in the database, on disk;"
            " `replicated`: on the disks of its standbys, too. Not met now: 503, and nothing is"
            " journalled; a server that never gives it: 422. `relaxed`: what this server does."
        ),
    ] = None


class ReschedulingBody(msgspec.Struct, omit_defaults=True):
    """Move an email that is still scheduled."""

    scheduled_at: Annotated[str | None, _say("The new time. Required.", "in 2 hours")] = None
    scheduledAt: Annotated[str | None, _say("Another name for `scheduled_at`.")] = None  # noqa: N815


class NewDomainBody(msgspec.Struct, omit_defaults=True):
    """A domain to send from. Everpost makes its DKIM keys and says which DNS records to set."""

    name: Annotated[str, _say("The domain.", "example.com")]
    signing: Annotated[
        Literal["sign", "unsigned"] | None, _say("Everpost: `unsigned` sends without DKIM.")
    ] = None
    trust: Annotated[bool | None, _say("Everpost: send without waiting for DNS verification.")] = (
        None
    )
    algorithms: Annotated[
        list[Literal["rsa-sha256", "ed25519-sha256"]] | None,
        _say("Everpost: the DKIM keys to make. Default: both.", minItems=1),
    ] = None
    selector: Annotated[str | None, _say("Everpost: the DKIM selector to begin with.")] = None


class NewApiKeyBody(msgspec.Struct, omit_defaults=True):
    """A key for callers."""

    name: Annotated[str, _say("What it is for.", "production")]
    permission: Annotated[
        Literal["full_access", "sending_access"] | None, _say("Default: full_access.")
    ] = None
    domain_id: Annotated[str | None, _say("May send from this domain only.", format="uuid")] = None
    sandbox: Annotated[bool | None, _say("Everpost: its mail is captured, never sent.")] = None


class RelayTestBody(msgspec.Struct, forbid_unknown_fields=True, rename={"sender": "from"}):
    """A real message through one relay."""

    to: Annotated[str, _say("Who gets it.", "you@example.com", minLength=3)]
    sender: Annotated[
        str | None,
        _say("The sender. Default: postmaster at the first verified domain.", minLength=3),
    ] = None


class ExplainBody(msgspec.Struct, forbid_unknown_fields=True, rename={"sender": "from"}):
    """A mail that might be sent."""

    sender: Annotated[str, _say("Its sender.", "news@example.com", minLength=3)]
    to: Annotated[str, _say("One recipient.", "you@example.org", minLength=3)]
    project: Annotated[
        int | str | None, _say("Its project, by id or name. Default: the caller's.")
    ] = None
    stream: Annotated[str | None, _say("Its stream. Default: transactional.")] = None
    tags: Annotated[list[TagBody] | None, _say("Its tags.", maxItems=50)] = None


class ApplyBody(Document, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What there should be, and how to go about it. Things are known by their names; a kind that is
    not mentioned stays as it is. A relay, pool or route is described in full: what its entry does
    not say has its default, but for its state, a password and the first day of a warm-up. Of
    streams and projects, what is not said stays."""

    prune: Annotated[bool, _say("Remove relays, pools and routes that are not in their list.")] = (
        False
    )
    dry_run: Annotated[bool, _say("Only say what would be different.")] = False


DEMANDS: dict[str, dict[str, Any]] = {
    "EmailBody": {
        "required": ["from", "to", "subject"],
        "anyOf": [{"required": ["html"]}, {"required": ["text"]}],
    },
    "ReschedulingBody": {
        "anyOf": [{"required": ["scheduled_at"]}, {"required": ["scheduledAt"]}],
    },
}
"""What the document says of a struct whose fields all may be null, so that the decoder does not."""
