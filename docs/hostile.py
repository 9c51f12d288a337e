"""The reference pages that are made of test tables: hostile inputs, and opinions on addresses."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.address_opinions import DIFFERENCES, OPINIONS
from tests.support.hostile import (
    PATH_IDS,
    PLACES,
    QUERIES,
    REQUESTS,
    ROWS,
    SETTINGS,
    WIRES,
    Hostile,
    shown,
)

__all__ = ["addresses", "functions_in", "hostile_input"]

_ROOT = Path(__file__).parent.parent
_SCENARIO = "tests/scenarios/test_hostile_input_is_refused.py"
_ADDRESS = "tests/unit/model/test_address.py"
_PREPARE = "tests/unit/intake/test_intake_prepare.py"
_BODIES = "tests/unit/api/test_hostile_bodies.py"
_CURSORS = "tests/unit/api/test_hostile_keys_and_cursors.py"
_SETTINGS = "tests/unit/api/test_relays_and_pools.py"
_STRICT = "tests/unit/api/test_http_strictness.py"

_REFUSED = f"{_SCENARIO}::test_hostile_value_is_queued_or_its_field_is_not_named"
_VALUE = (
    f"{_PREPARE}::test_a_hostile_value_is_refused_by_its_field_or_becomes_harmless",
    _REFUSED,
)
_NAMED = f"{_SCENARIO}::test_accepted_name_subject_or_header_is_read_otherwise"
_FILE = f"{_SCENARIO}::test_accepted_attachment_arrives_with_other_bytes_or_another_name"
_TOLD = f"{_SCENARIO}::test_accepted_tag_or_metadata_comes_back_changed"
_NAME = (f"{_ADDRESS}::test_a_hostile_display_name_is_refused_or_stays_a_name", _REFUSED, _NAMED)

TESTS: Mapping[str, tuple[str, ...]] = {
    "mailbox": (
        f"{_ADDRESS}::test_a_hostile_mailbox_is_refused_or_means_one_address",
        f"{_PREPARE}::test_a_hostile_mailbox_is_refused_in_every_field",
        _REFUSED,
        f"{_SCENARIO}::test_accepted_address_gets_no_mail_or_another_one_does",
    ),
    "name": _NAME,
    "quoted_name": _NAME,
    "subject": (*_VALUE, _NAMED),
    "header_name": (*_VALUE, _NAMED),
    "header_value": (*_VALUE, _NAMED),
    "filename": (*_VALUE, _FILE),
    "content_id": (*_VALUE, _FILE),
    "content_type": (*_VALUE, _FILE),
    "content": (_REFUSED, _FILE),
    "bytes": (_VALUE[0], _FILE),
    "tag": (*_VALUE, _TOLD),
    "metadata": (*_VALUE, _TOLD),
    "body": (
        f"{_PREPARE}::test_characters_that_no_encoding_carries_are_refused",
        _REFUSED,
        f"{_SCENARIO}::test_accepted_text_ends_the_message_or_begins_another",
    ),
    "idempotency_key": (
        "tests/unit/intake/test_intake_accept.py::test_a_hostile_key_is_refused",
        f"{_SCENARIO}::test_hostile_idempotency_key_is_taken",
        f"{_SCENARIO}::test_accepted_idempotency_key_sends_twice",
    ),
    "request": (
        f"{_BODIES}::test_hostile_body_is_refused_with_4xx_that_says_why",
        f"{_BODIES}::test_hostile_body_in_a_batch_spoils_its_own_item_at_most",
        f"{_SCENARIO}::test_hostile_body_is_queued_or_the_answer_does_not_say_why",
        f"{_SCENARIO}::test_odd_but_good_body_is_refused",
    ),
    "setting": (
        f"{_SETTINGS}::test_a_hostile_setting_is_kept_or_its_field_is_not_named",
        f"{_SCENARIO}::test_hostile_setting_is_kept_or_its_field_is_not_named",
    ),
    "query": (
        f"{_CURSORS}::test_hostile_query_is_more_than_a_wrong_query",
        f"{_SCENARIO}::test_hostile_cursor_is_more_than_a_wrong_cursor",
    ),
    "path": (
        f"{_CURSORS}::test_hostile_id_is_more_than_an_unknown_id",
        f"{_SCENARIO}::test_hostile_id_in_a_path_is_more_than_an_unknown_id",
    ),
    "wire": (
        f"{_STRICT}::test_ambiguous_request_is_refused_and_the_connection_ends",
        f"{_SCENARIO}::test_smuggled_request_is_seen",
        "tests/scenarios/test_proxies_in_front.py::test_proxy_lets_a_second_request_through",
    ),
}
"""By what is hostile: the tests that run its rows. `functions_in` is checked against the files."""


def functions_in(path: str) -> set[str]:
    """The names of the test functions in a file of the repository."""
    tree = ast.parse((_ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def hostile_input() -> str:
    """The page of hostile inputs."""
    return "\n\n".join(
        [
            "Inputs that somebody could break mail with, and what becomes of them. One table in"
            " the code, `tests/support/hostile`; every entrance runs it. A refusal by HTTP names"
            " the field in backticks, and nothing is queued. What is accepted is delivered to a"
            " real mail server and read back by two strangers, Python's `email` and Perl's"
            " Email::MIME, with the same result. Values are shown as Python writes them, long ones"
            " cut.",
            *_values(),
            *_requests(),
        ]
    )


def _values() -> Iterator[str]:
    for place, (field, what) in PLACES.items():
        yield f"## {what[0].upper()}{what[1:]}"
        yield _tests(place)
        rows = [row for row in ROWS if row.place == place]
        yield _table(("row", "input", "result"), [_value(row, field) for row in rows])


def _value(row: Hostile, field: str) -> tuple[str, str, str]:
    if row.result is not None:
        same = row.result == row.value
        return row.row, _code(shown(row.value)), "accepted" if same else _becomes(row.result)
    named = f" `{field}`" if field and row.status == 422 else ""
    if named and row.place == "mailbox":
        named = " its field"
    return row.row, _code(shown(row.value)), f"{row.status}{named}"


def _becomes(result: str) -> str:
    return f"becomes {_code(shown(result))}"


def _requests() -> Iterator[str]:
    yield "## A whole body of POST /emails"
    yield _tests("request")
    yield _table(
        ("row", "input", "begins", "result"),
        [
            (
                row.row,
                row.name,
                _beginning(row.body),
                "accepted" if row.status == 200 else f"{row.status} {row.said}",
            )
            for row in REQUESTS
        ],
    )
    yield "## A setting of a relay, a pool or a route"
    yield _tests("setting")
    yield _table(
        ("row", "call", "field", "input", "result"),
        [
            (
                row.row,
                f"POST {row.path}",
                f"`{row.field}`",
                _code(shown(json.dumps(row.value))),
                f"422 `{row.field}`",
            )
            for row in SETTINGS
        ],
    )
    yield "## The query of a list"
    yield _tests("query")
    yield _table(
        ("row", "input", "result"),
        [(row.row, _code(shown(row.query)), _query(row.fields)) for row in QUERIES],
    )
    yield "## An id in a path"
    yield _tests("path")
    yield _table(
        ("row", "input", "result"), [("S52", _code(shown(text)), "404") for text in PATH_IDS]
    )
    yield "## Bytes at the HTTP port"
    yield _tests("wire")
    yield _table(
        ("row", "input", "bytes", "result"),
        [
            (row.row, row.name, _code(shown(row.data)), " or ".join(map(str, row.statuses)))
            for row in WIRES
        ],
    )


def _beginning(body: bytes) -> str:
    """What a body begins with; compressed ones differ from one library to the next."""
    compressed = body.startswith((b"\x1f\x8b", b"\x78"))
    return "(compressed)" if compressed else _code(shown(body))


def _query(fields: tuple[str, ...] | None) -> str:
    if fields is None:
        return "ignored"
    return f"422 `{fields[0]}`" if fields else "422"


def addresses() -> str:
    """The page of differences between our grammar of addresses and others."""
    parts = [
        "An address field takes one addr-spec, alone or behind a display name: `a@b.example`,"
        ' `Name <a@b.example>`, `"Quoted, Name" <a@b.example>`. The local part is a dot-atom (in'
        " Unicode's form NFKC beyond ASCII), the domain a host name of two labels or more, sent as"
        " A-labels of IDNA 2008. No comments, groups, routes, lists, quoted local parts or address"
        " literals: what was checked is what is sent, so no later parser can read another address"
        " out of it.",
        "Property tests (`tests/unit/model/test_address_grammar.py`) compare this with Python's"
        " `email.headerregistry` and with email-validator. Apart from these classes, they agree on"
        " what is an address, and on its local part and domain.",
    ]
    for who in OPINIONS:
        for ours in (True, False):
            heading = "Accepted here, not by" if ours else "Refused here, accepted by"
            parts.append(f"## {heading} {who}")
            found = [d for d in DIFFERENCES if (d.who, d.ours) == (who, ours)]
            rows = [(d.what, _code(shown(d.example)), d.why) for d in found]
            parts.append(_table(("what", "example", "why"), rows))
    return "\n\n".join(parts)


def _tests(place: str) -> str:
    return "Run by:\n\n" + "\n".join(f"- `{name}`" for name in TESTS[place])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _code(text: str) -> str:
    """As code in a cell of a table: a bar is escaped, a backtick needs longer fences."""
    fence = "``" if "`" in text else "`"
    pad = " " if "`" in text else ""
    return fence + pad + text.replace("|", "\\|") + pad + fence
