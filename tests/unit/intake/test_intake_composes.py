"""What intake accepts can always be written, and says to a reader what the caller said."""

import email
import email.policy

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everpost.compose import assemble, compose
from everpost.intake import DraftAttachment
from everpost.model.address import shown
from everpost.model.errors import Invalid
from everpost.model.message import Address, Form
from tests.support.hostile import rows

from .conftest import Desk, draft

_words = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=60)
_harmless = (
    _words | st.text('a\u00e9\u4f60 =?_.,;:<>@"\\()[]', max_size=60) | st.text("ab ", max_size=200)
)
_hostile = st.text(max_size=20) | st.sampled_from(
    [row.value for row in rows("subject", "header_value", "name", "filename", "mailbox")]
).filter(lambda value: len(value) < 2000)
_values = st.integers(0, 9).flatmap(lambda n: _harmless if n else _hostile)


@given(
    given_=st.fixed_dictionaries(
        dict.fromkeys(("subject", "name", "header", "filename", "metadata"), _values)
    )
)
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_accepted_composes_to_the_fields_that_were_asked_for(
    desk: Desk, given_: dict[str, str]
) -> None:
    try:
        content = desk.content(
            draft(
                sender=shown(Address("news@example.com", given_["name"])),
                subject=given_["subject"],
                bcc=("hidden@good.test",),
                headers=(("X-Note", given_["header"]),),
                metadata={"k": given_["metadata"]},
                attachments=(DraftAttachment(filename=given_["filename"], content=b"x"),),
            )
        )
    except Invalid:
        return
    written = assemble(compose(content, Form.SEVEN_BIT))
    assert written.isascii()
    assert b"hidden" not in written
    assert max(map(len, written.split(b"\r\n"))) <= 998
    parsed = email.message_from_bytes(written, policy=email.policy.SMTP)
    names = [field.lower() for field in parsed]
    assert sorted(names) == sorted(
        ["from", "to", "subject", "date", "message-id", "mime-version", "content-type", "x-note"]
    )
    assert [a.addr_spec for a in parsed["From"].addresses] == ["news@example.com"]
    assert [a.addr_spec for a in parsed["To"].addresses] == ["a@good.test"]
