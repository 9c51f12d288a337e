"""From draft to message: what is kept, what is refused, and by which name."""

from collections.abc import Callable
from typing import Any

import pytest

from everpost.ids import made_at, text
from everpost.intake import DraftAttachment
from everpost.model.errors import Invalid, Missing
from everpost.model.message import (
    Address,
    Assurance,
    NewMessage,
    Priority,
    RecipientKind,
)
from everpost.model.states import InDoubtPolicy
from tests.support.hostile import PLACES, Hostile, rows

from .conftest import DAY_MS, NOW, Desk, draft, opened

NewDesk = Callable[..., Desk]
IN_PLACE = (
    "subject", "header_value", "header_name", "metadata", "tag", "filename", "content_id",
    "content_type", "bytes",
)  # fmt: skip


def _file(**changes: Any) -> DraftAttachment:
    return DraftAttachment(**{"filename": "a.txt", "content": b"x", **changes})


def _put(row: Hostile) -> tuple[dict[str, Any], Callable[[NewMessage], object]]:
    """The draft field that carries a hostile value, and where it is found afterwards."""
    value = row.value
    match row.place:
        case "subject":
            return {"subject": value}, lambda m: opened(m).subject
        case "header_value":
            return {"headers": (("X-A", value),)}, lambda m: opened(m).headers[0][1]
        case "header_name":
            return {"headers": ((value, "b"),)}, lambda m: opened(m).headers[0][0]
        case "metadata":
            return {"metadata": {"k": value}}, lambda m: m.metadata["k"]
        case "tag":
            return {"tags": (("name", value),)}, lambda m: m.tags[0][1]
        case "bytes":
            file = _file(content=value.encode("latin-1"))
            return {"attachments": (file,)}, (
                lambda m: opened(m).attachments[0].content.decode("latin-1")
            )
        case place:
            files = (_file(**{place: value}),)
            return {"attachments": files}, lambda m: getattr(opened(m).attachments[0], place)


@pytest.mark.parametrize("row", rows(*IN_PLACE), ids=str)
def test_a_hostile_value_is_refused_by_its_field_or_becomes_harmless(
    desk: Desk, row: Hostile
) -> None:
    changes, found = _put(row)
    field = PLACES[row.place][0]
    if row.result is not None:
        assert found(desk.prepare(draft(**changes))) == row.result
        return
    with pytest.raises(Invalid) as refusal:
        desk.prepare(draft(**changes))
    assert refusal.value.field == field
    assert f"`{field}`" in refusal.value.message
    if field == "attachments":
        assert refusal.value.name == "invalid_attachment"
    assert refusal.value.message.isascii(), "a refusal repeats hostile characters"
    assert len(refusal.value.message) < 1000
    assert desk.sealer.contexts == [], "something was sealed for a refused message"


@pytest.mark.parametrize("row", rows("mailbox"), ids=str)
def test_a_hostile_mailbox_is_refused_in_every_field(desk: Desk, row: Hostile) -> None:
    for field in ("to", "cc", "bcc", "reply_to"):
        values = {"to": ("z@good.test",), field: (row.value,)}
        if row.result is None:
            with pytest.raises(Invalid) as refusal:
                desk.prepare(draft(**values))
            assert refusal.value.field == field
        else:
            desk.prepare(draft(**values))


@pytest.mark.parametrize("row", rows("body"), ids=str)
def test_characters_that_no_encoding_carries_are_refused(desk: Desk, row: Hostile) -> None:
    for field in ("text", "html"):
        if row.result is not None:  # kept as given; line ends are compose's matter
            assert getattr(desk.content(draft(**{field: row.value})), field) == row.value
            continue
        with pytest.raises(Invalid) as refusal:
            desk.prepare(draft(**{field: row.value}))
        assert refusal.value.field == field


def test_a_message_carries_all_that_was_asked(desk: Desk) -> None:
    message = desk.prepare(
        draft(
            cc=("Cc <c@good.test>",),
            bcc=("hidden@good.test",),
            reply_to=("r@example.com",),
            html="<p>Hi</p>",
            headers=(("X-A", "1"), ("x-a", "2")),
            tags=(("kind", "news"),),
            metadata={"user": "7 é"},
            stream="broadcast",
            in_doubt="hold",
            dialect="smtp",
        ),
        key=b"k" * 16,
    )
    content = opened(message)
    assert (message.stream, message.priority) == ("broadcast", Priority.BROADCAST)
    assert message.in_doubt is InDoubtPolicy.HOLD
    assert (message.not_before, message.expires_at) == (NOW, NOW + 5 * DAY_MS)
    assert (message.scheduled_at, message.sandbox, message.dialect) == (None, False, "smtp")
    assert (message.sender, message.to) == ("Acme <news@example.com>", ("a@good.test",))
    assert (message.cc, message.bcc) == (("Cc <c@good.test>",), ("hidden@good.test",))
    assert message.reply_to == ("r@example.com",)
    assert message.tags == (("kind", "news"),)
    assert message.metadata == {"user": "7 é"}
    assert message.api_key == b"k" * 16
    assert len(message.return_token) == 10
    assert made_at(message.id) == NOW
    assert message.key_id == desk.sealer.key
    assert desk.sealer.contexts == [message.id]
    assert content.sender == Address("news@example.com", "Acme")
    assert content.reply_to == (Address("r@example.com"),)
    assert content.message_id == message.message_id == f"{text(message.id)}@example.com"
    assert (content.date, content.boundary) == (NOW // 1000, message.id.hex())
    assert content.headers == (("X-A", "1"), ("x-a", "2"))
    assert (content.text, content.html) == ("Hi there", "<p>Hi</p>")


def test_bcc_reaches_the_envelope_and_nothing_that_is_composed(desk: Desk) -> None:
    message = desk.prepare(draft(bcc=("hidden@good.test",), cc=("c@good.test",)))
    assert b"hidden" not in message.sealed
    assert [(r.address, r.kind) for r in message.recipients] == [
        ("a@good.test", RecipientKind.TO),
        ("c@good.test", RecipientKind.CC),
        ("hidden@good.test", RecipientKind.BCC),
    ]


def test_an_address_given_twice_is_delivered_once_where_it_first_stood(desk: Desk) -> None:
    message = desk.prepare(
        draft(
            to=("a@good.test", "A <a@GOOD.test>", "b@bücher.test"),
            cc=("b@xn--bcher-kva.test", "c@good.test"),
            bcc=("c@good.test", "a@good.test", "d@good.test"),
        )
    )
    assert [(r.address, r.destination, r.kind) for r in message.recipients] == [
        ("a@good.test", "good.test", RecipientKind.TO),
        ("b@xn--bcher-kva.test", "xn--bcher-kva.test", RecipientKind.TO),
        ("c@good.test", "good.test", RecipientKind.CC),
        ("d@good.test", "good.test", RecipientKind.BCC),
    ]
    content = opened(message)
    assert [a.address for a in content.to] == ["a@good.test", "b@xn--bcher-kva.test"]
    assert [a.address for a in content.cc] == ["c@good.test"]
    assert message.bcc == ("d@good.test",)


def test_one_person_spelled_two_ways_gets_no_second_copy(desk: Desk) -> None:
    message = desk.prepare(
        draft(
            to=("Jo.Doe@good.test", "jo.doe@good.test", "jo.doe@other.test"),
            cc=("JO.DOE@GOOD.TEST", "jö@good.test"),
            bcc=("JÖ@good.test",),
        )
    )
    assert [r.address for r in message.recipients] == [
        "Jo.Doe@good.test", "jo.doe@other.test", "jö@good.test",
    ]  # fmt: skip


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to"])
def test_one_address_more_than_the_limit_is_refused(desk: Desk, field: str) -> None:
    fifty = tuple(f"u{n}@good.test" for n in range(50))
    desk.prepare(draft(**{field: fifty}))
    with pytest.raises(Invalid) as refusal:
        desk.prepare(draft(**{field: (*fifty, "one@more.test")}))
    assert refusal.value.field == field


def test_what_is_required_is_missed_by_name(desk: Desk) -> None:
    with pytest.raises(Missing, match="Missing `to` field"):
        desk.prepare(draft(to=()))
    for text_, html in ((None, None), ("", ""), (None, ""), ("", None)):
        with pytest.raises(Missing, match="Missing `html` or `text` field"):
            desk.prepare(draft(text=text_, html=html))
    assert desk.content(draft(subject="")).subject == ""


def test_a_text_part_is_derived_from_html_alone_unless_an_empty_one_was_given(desk: Desk) -> None:
    assert desk.content(draft(text=None, html="<p>Hello <b>you</b></p>")).text == "Hello you"
    assert desk.content(draft(text="", html="<p>Hello</p>")).text is None
    assert desk.content(draft(text=None, html="<img src=x>")).text is None
    assert desk.content(draft(text="given", html="<p>Hello</p>")).text == "given"


def test_reply_to_among_the_headers_counts_only_when_the_field_is_absent(desk: Desk) -> None:
    headers = (("X-A", "1"), ("Reply-to", "Jo <jo@good.test>"))
    content = desk.content(draft(headers=headers))
    assert content.reply_to == (Address("jo@good.test", "Jo"),)
    assert content.headers == (("X-A", "1"),)
    content = desk.content(draft(headers=headers, reply_to=("r@good.test",)))
    assert content.reply_to == (Address("r@good.test"),)
    assert content.headers == (("X-A", "1"),)
    with pytest.raises(Invalid) as refusal:
        desk.prepare(draft(headers=(("Reply-To", "a@x.test, b@y.test"),)))
    assert refusal.value.field == "reply_to"


def test_headers_that_exist_once_are_taken_once(desk: Desk) -> None:
    with pytest.raises(Invalid, match="given once"):
        desk.prepare(draft(headers=(("References", "<a@b>"), ("references", "<c@d>"))))


def test_a_flood_of_headers_tags_or_metadata_is_refused(desk: Desk) -> None:
    for changes in (
        {"headers": tuple((f"X-{n}", "v") for n in range(101))},
        {"headers": tuple((f"X-{n}", "v " * 2000) for n in range(20))},
        {"tags": tuple((f"t{n}", "v") for n in range(51))},
        {"metadata": {f"k{n}": "v" for n in range(51)}},
        {"metadata": {"k" * 129: "v"}},
        {"metadata": {"": "v"}},
        {"metadata": {"k": "v" * 1025}},
        {"subject": "s" * 999},
        {"attachments": (_file(),) * 201},
    ):
        with pytest.raises(Invalid) as refusal:
            desk.prepare(draft(**changes))
        assert refusal.value.field == next(iter(changes))


def test_long_reference_lists_pass(desk: Desk) -> None:
    value = " ".join(f"<{n:040}@good.test>" for n in range(60))
    assert desk.content(draft(headers=(("References", value),))).headers[0][1] == value


@pytest.mark.parametrize(
    ("filename", "given", "kept"),
    [
        ("a.pdf", None, "application/pdf"),
        ("a.DOCX", None, "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.ics", "", "text/calendar"),
        ("a.unknown", None, "application/octet-stream"),
        (None, None, "application/octet-stream"),
        ("a.png", "text/html", "text/html"),
        ("a", 'text/plain; charset="utf-8"', "text/plain; charset=utf-8"),
        ("a.eml", "message/rfc822", "message/rfc822"),
    ],
)
def test_a_type_comes_from_the_caller_else_from_the_name(
    desk: Desk, filename: str | None, given: str | None, kept: str
) -> None:
    file = _file(filename=filename, content_type=given)
    (attachment,) = desk.content(draft(attachments=(file,))).attachments
    assert attachment.content_type == kept
    assert attachment.filename == (filename or "attachment")


def test_two_inline_images_may_not_share_an_id(desk: Desk) -> None:
    with pytest.raises(Invalid, match="twice"):
        desk.prepare(draft(attachments=(_file(content_id="a"), _file(content_id="a"))))


def test_large_attachments_become_shared_parts_and_small_ones_stay(desk: Desk) -> None:
    large = b"L" * 65_536
    files = (
        _file(filename="one", content=large),
        _file(filename="two", content=large),
        _file(filename="small", content=b"s" * 65_535),
    )
    message = desk.prepare(draft(attachments=files))
    one, two, small = opened(message).attachments
    ((hash_, sealed),) = message.parts
    assert (one.content, two.content, one.part, two.part) == (b"", b"", hash_, hash_)
    assert (sealed, small.content, small.part) == (large, b"s" * 65_535, None)
    assert desk.sealer.contexts == [hash_, message.id]
    assert hash_ == desk.sealer.part_hash(1, NOW // DAY_MS, large)


def test_the_largest_message_passes_and_one_byte_more_does_not(new_desk: NewDesk) -> None:
    def sized(text_: str, content: bytes, most: int) -> int:
        files = (_file(content=content),) if content else ()
        return new_desk(message_bytes=most).prepare(draft(attachments=files, text=text_)).size

    for body, content in (("x" * 90_000, b""), ("\u00e9" * 40_000, b""), ("Hi", b"x" * 60_000)):
        size = sized(body, content, 200_000)
        assert len(body.encode()) + 4 / 3 * len(content) < size < 140_000
        assert sized(body, content, size) == size
        with pytest.raises(Invalid) as refusal:
            sized(body, content, size - 1)
        assert refusal.value.name == "message_too_large"


def test_what_could_not_be_written_later_is_refused_now(desk: Desk) -> None:
    for changes in (
        {"headers": (("References", "\u00e9"),)},
        {"headers": (("List-Unsubscribe", f"<https://x.test/{'y' * 1000}>"),)},
        {"headers": (("X-A", "=?utf-8?b?G10wO3B3bg==?="),)},
    ):
        with pytest.raises(Invalid) as refusal:
            desk.prepare(draft(**changes))
        assert refusal.value.field == "headers"
        assert refusal.value.message.startswith("Invalid `headers` field. It is refused: ")


def test_schedule_and_lifetime_count_from_the_due_time(desk: Desk) -> None:
    message = desk.prepare(draft(scheduled_at="in 1 hour", expires_in="10 min"))
    due = NOW + 3_600_000
    assert (message.scheduled_at, message.not_before) == (due, due)
    assert message.expires_at == due + 600_000
    assert opened(message).date == NOW // 1000
    assert desk.prepare(draft(expires_in=10)).expires_at == NOW + 10_000
    assert desk.prepare(draft(expires_in=5 * 86_400)).expires_at == NOW + 5 * DAY_MS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expires_in", 9),
        ("expires_in", 5 * 86_400 + 1),
        ("expires_in", "soon"),
        ("expires_in", -1),
        ("expires_in", "9" * 40),
        ("expires_in", True),
        ("scheduled_at", "nonsense"),
        ("scheduled_at", "in 31 days"),
        ("stream", "nowhere"),
        ("stream", "\u202e"),
        ("in_doubt", "maybe"),
        ("durability", "total"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(
    desk: Desk, field: str, value: object
) -> None:
    with pytest.raises(Invalid) as refusal:
        desk.prepare(draft(**{field: value}))
    assert refusal.value.field == field
    assert refusal.value.message.isascii()


def test_a_relaxed_server_does_not_promise_committed(new_desk: NewDesk) -> None:
    relaxed, committed = new_desk(Assurance.RELAXED), new_desk()
    with pytest.raises(Invalid) as refusal:
        relaxed.prepare(draft(durability="committed"))
    assert refusal.value.field == "durability"
    relaxed.prepare(draft(durability="relaxed"))
    relaxed.prepare(draft())
    committed.prepare(draft(durability="relaxed"))
    committed.prepare(draft(durability="committed"))


def test_every_message_has_an_id_of_its_own(desk: Desk) -> None:
    made = [desk.prepare(draft()) for _ in range(50)]
    assert len({m.id for m in made}) == len({m.message_id for m in made}) == 50
    assert [m.id for m in made] == sorted(m.id for m in made)
