"""What callers may send: one struct an endpoint. Decoding, validation and the OpenAPI document all
come from these.

Resend's endpoints ignore unknown fields and nulls (RULINGS "Unknown fields"), so their fields all
may be null. Our own endpoints refuse unknown fields. Field order is part of the idempotency
fingerprint: append only. Bounds that intake and catalog judge stand here for the document alone:
`_say` puts them into the schema, not into the decoder.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "DEMANDS",
    "AttachmentBody",
    "EmailBody",
    "NewApiKeyBody",
    "NewDomainBody",
    "NewRelayBody",
    "RelayPatchBody",
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
        Literal["committed", "relaxed"] | None,
        _say(
            "Everpost: the least that the answer must mean. `committed`: on disk; a server that"
            " runs relaxed then refuses the message (422). `relaxed`: what this server does."
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


class NewRelayBody(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A mail server that Everpost hands mail to."""

    url: Annotated[
        str,
        _say(
            "`smtp://` or `smtps://`, with user, password, port; or `mx`: straight to the MX hosts"
            " of each destination.",
            "smtp://mail.example:587",
        ),
    ]
    name: Annotated[str | None, _say("Default: the host.")] = None
    username: Annotated[str | None, _say("In place of the one in `url`.")] = None
    password: Annotated[str | None, _say("In place of the one in `url`. Never shown.")] = None
    tls: Annotated[
        Literal["none", "opportunistic", "require", "verify"] | None,
        _say(
            "What TLS a session must have. Default: `verify` with smtps:// or a login across a"
            " network, `none` with a login on this machine, else `opportunistic`. `require` takes"
            " any certificate."
        ),
    ] = None
    connections: Annotated[int | None, _say("Most connections of one process.")] = None
    weight: Annotated[int | None, _say("Its share of the mail, against other relays.")] = None
    helo: Annotated[str | None, _say("The name we greet with.")] = None
    auth: Annotated[str | None, _say("PLAIN, LOGIN or XOAUTH2. Default: what it offers.")] = None
    site: Annotated[str | None, _say("The site of nodes that should prefer it.")] = None
    eight_bit: Annotated[bool | None, _say("Use 8BITMIME where it is offered.")] = None
    signed_headers: Annotated[
        list[str] | None, _say("DKIM signs these, where the relay rewrites others.")
    ] = None
    port: Annotated[int | None, _say("`mx` only: the port of MX hosts. Default: 25.")] = None
    source: Annotated[
        list[str] | None,
        _say("Addresses of this machine to connect from, one IPv4 and one IPv6 at most."),
    ] = None
    destination_connections: Annotated[
        int | None, _say("`mx` only: most connections of one process to one destination.")
    ] = None
    allow_private: Annotated[
        bool | None, _say("`mx` only: also connect to addresses that are not public.")
    ] = None


class RelayPatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """What of a relay may change."""

    state: Annotated[
        Literal["enabled", "draining", "disabled"],
        _say("`draining`: no new sessions, running ones finish."),
    ]


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
