"""Hostile input of twice the size costs about twice the work (S29, S30), by CPU time: the whole way
from a body to a refusal or a message. Never wall time: other processes use it, too."""

import json
import time
from collections.abc import Callable

import pytest

from tests.unit.api.conftest import Door, email

SMALL, FACTOR = 20_000, 4


def _email(**fields: object) -> bytes:
    return json.dumps(email(**fields)).encode()


def _file(**fields: object) -> bytes:
    return _email(attachments=[{"filename": "a", "content": "SGk=", **fields}])


BODIES: dict[str, Callable[[int], bytes]] = {
    "brackets": lambda n: b"[" * n,
    "brackets in an ignored field": lambda n: b'{"x":' + b"[" * n,
    "one key": lambda n: b'{"' + b"k" * n + b'":1}',
    "keys": lambda n: b"{" + b",".join(b'"k%d":1' % i for i in range(n)) + b"}",
    "the same key": lambda n: b"{" + b'"to":"a",' * n + b'"to":"b"}',
    "digits": lambda n: b'{"expires_in":' + b"9" * n + b"}",
    "fraction": lambda n: b'{"expires_in":0.' + b"9" * n + b"}",
    "backslashes": lambda n: b'{"subject":"' + b"\\\\" * n + b'"}',
    "escapes": lambda n: b'{"subject":"' + b"\\u00e9" * n + b'"}',
    "parentheses in to": lambda n: _email(to="(" * n),
    "commas in to": lambda n: _email(to="," * n),
    "angles in to": lambda n: _email(to="<" * n),
    "quotes in to": lambda n: _email(to='"' * n),
    "labels in to": lambda n: _email(to="a@" + "a." * n),
    "letters beyond ASCII in to": lambda n: _email(to="a@" + "\u00e9" * n),
    "encoded words in to": lambda n: _email(to="=?utf-8?q?a?= " * n + "<a@b.test>"),
    "addresses in to": lambda n: _email(to=["a@b.test"] * n),
    "encoded words in subject": lambda n: _email(subject="=?utf-8?q?a?= " * n),
    "starts of encoded words in subject": lambda n: _email(subject="=?a?q?" * n),
    "starts of encoded words in a header": lambda n: _email(headers={"X-A": "=?" * n + "?="}),
    "headers": lambda n: _email(headers={f"X-{i}": "v" for i in range(n)}),
    "one header name": lambda n: _email(headers={"X" * n: "v"}),
    "metadata": lambda n: _email(metadata={f"k{i}": "v" for i in range(n)}),
    "slashes in a filename": lambda n: _file(filename="/" * n),
    "dots in a filename": lambda n: _file(filename="." * n + "a" + " ." * n),
    "parameters of a type": lambda n: _file(content_type="a/b" + "; c=d" * n),
    "base64 of equals": lambda n: _file(content="=" * n),
    "base64 of line ends": lambda n: _file(content="\n" * n + "="),
    "numbers": lambda n: _file(content=[0] * n),
    "attachments": lambda n: _email(attachments=[{"content": ""}] * n),
    "angles in html": lambda n: _email(text=None, html="<" * n),
    "tags in html": lambda n: _email(text=None, html="<p>" * n),
    "lists in html": lambda n: _email(text=None, html="<ul><li>" * (n // 4)),
    "links in html": lambda n: _email(text=None, html="<a href='x'>" * (n // 4)),
    "comments in html": lambda n: _email(text=None, html="<!--" * n),
    "entities in html": lambda n: _email(text=None, html="&" * n),
    "attributes in html": lambda n: _email(text=None, html="<p " + "a=b " * n),
    "one line of text": lambda n: _email(text="x" * n),
    "spaces in text": lambda n: _email(text=" " * n + "\u00e9"),
    "line ends in text": lambda n: _email(text="\r\n.\r" * n),
    "words in a time": lambda n: _email(scheduled_at="in 1 hour " * n),
    "digits in a time": lambda n: _email(expires_in="9" * n),
}


@pytest.mark.parametrize("name", BODIES)
def test_twice_the_input_costs_far_more_than_twice_the_work(door: Door, name: str) -> None:
    small, large = BODIES[name](SMALL), BODIES[name](SMALL * FACTOR)

    def cost(body: bytes) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            status = door.ask("POST", "/emails", body).status
            best = min(best, time.process_time() - started)
            assert status in {200, 400, 413, 422}
        return best

    cost(b"{}")  # what is loaded once is no part of it
    # Quadratic work would be 16 times as much. The floor: below it is noise.
    assert cost(large) < 9 * max(cost(small), 0.003)
