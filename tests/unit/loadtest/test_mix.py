"""Message mixes: what a file may say, how errors name the field, what becomes a request."""

import base64
import json
import random
from collections import Counter
from typing import Any

import pytest

from everpost.loadtest.mix import ID_HEADER, SAMPLE, BadMix, Kind, Mix, strangers


def _mix(kinds: list[Kind], seed: int = 3) -> Mix:
    return Mix(kinds, run="r1", chance=random.Random(seed))


def _message(kind: Kind, n: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_mix([kind]).body(0, n))
    return found


def test_the_sample_cannot_be_read_or_sends_to_strangers() -> None:
    kinds = Mix.read(SAMPLE)
    assert [kind.name for kind in kinds] == ["code", "receipt"]
    assert strangers(kinds) == []
    receipt = _message(kinds[1], 7)
    assert (len(receipt["text"]), len(receipt["html"])) == (1500, 20000 + len("<p></p>"))
    (file,) = receipt["attachments"]
    assert len(base64.b64decode(file["content"])) == 50000
    assert receipt["headers"] == {"X-Shop": "eu-1", ID_HEADER: "r1.7"}


def test_a_number_that_is_not_filled_in() -> None:
    kind = Kind(
        to=["u{n}@d{n:10}.test", "x@y.test"], subject="№ {n} of {n:7}", text='{"n": "{n}"} {n:0}',
        tags={"k": "v{n:2}"}, stream="broadcast",
    )  # fmt: skip
    message = _message(kind, 123)
    assert message["to"] == ["u123@d3.test", "x@y.test"]
    assert message["subject"] == "№ 123 of 4"
    assert message["text"] == '{"n": "123"} {n:0}'
    assert message["tags"] == [{"name": "k", "value": "v1"}]
    assert message["headers"][ID_HEADER] == "r1.123"
    assert message["stream"] == "broadcast"


def test_weights_are_not_kept() -> None:
    mix = _mix([Kind(name="a", weight=8), Kind(name="b", weight=2)])
    picked = Counter(mix.pick() for _ in range(2000))
    assert picked[1] / 2000 == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "not TOML"),
        ("", "missing required field `message`"),
        ("message = []", "there is none"),
        ("[[message]]\nwieght = 3", "unknown field `wieght`.*message"),
        ("[[message]]\nweight = 'a'", r"`message\[0\].weight`"),
        ("[[message]]\nweight = 0", r"`message\[0\].weight`"),
        ("[[message]]\n[[message]]\nname='b'\nto = 'nobody'", r"`message\[1\].to`"),
        ("[[message]]\nto = []", r"`message\[0\].to`: there is no recipient"),
        ("[[message]]\nfrom = 'x'", r"`message\[0\].from`"),
        ("[[message]]\nname = ''", r"`message\[0\].name`"),
        ("[[message]]\ntext = 'a'\ntext_bytes = 5", "either text or text_bytes"),
        ("[[message]]\nhtml_bytes = -1", r"`message\[0\].html_bytes`"),
        ("[[message]]\nattachments = [{filename='a', bytes=99999999}]", "attachments"),
        ("[[message]]\nhtml_bytes=30000000\ntext_bytes=30000000", "together more than"),
        ("[[message]]\nheaders = {'X-Loadtest-Id' = '1'}", "cannot be set"),
        ("[[message]]\nheaders = {'A b' = '1'}", "cannot be set"),
        ("[[message]]\n[[message]]", "a `name` of its own"),
    ],
)
def test_a_wrong_file_is_read_without_naming_the_field(text: str, said: str) -> None:
    with pytest.raises(BadMix, match=said):
        Mix.read(text)


@pytest.mark.parametrize(
    ("to", "foreign"),
    [
        ("a@x{n}.test", []),
        ("A <a@b.example.com>", []),
        ("a@example.org", []),
        ("a@notexample.org", ["notexample.org"]),
        ("a@gmail.com", ["gmail.com"]),
        ("a@mytest", ["mytest"]),
        ("a@test", []),
    ],
)
def test_mail_would_go_to_strangers(to: str, foreign: list[str]) -> None:
    assert strangers([Kind(to=to)]) == foreign
