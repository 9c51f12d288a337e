"""Our grammar of addresses against two others: they read the same address in what we accept, or
the difference is on the list, and what they accept beyond it is on the list, too."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.address_opinions import DIFFERENCES, OPINIONS, Difference, everpost
from tests.support.hostile import rows

_ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~"
_atoms = st.text(st.sampled_from(_ATEXT), min_size=1, max_size=10)
_wide = st.text(st.characters(min_codepoint=0xA0), min_size=1, max_size=6)
_quoted = st.text(st.sampled_from('ab .,@()<>\\"\t'), max_size=8).map(lambda s: f'"{s}"')
_comments = st.text(st.sampled_from("ab ()@"), max_size=5).map(lambda s: f"({s})")
_locals = st.one_of(
    st.lists(_atoms, min_size=1, max_size=3).map(".".join),
    st.lists(_atoms | _wide, min_size=1, max_size=3).map(".".join),
    _quoted,
    st.builds("{}{}".format, _comments, _atoms),
    st.integers(60, 70).map(lambda n: "a" * n),
)
_ascii_labels = st.from_regex(r"\A[a-zA-Z0-9]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9])?\Z")
_scripts = st.sampled_from(["bücher", "例え", "пример", "παράδειγμα", "한국", "دامنه", "ɡood",
                            "gооd", "straße", "ﬁ", "Ａ", "e\u0301", "xn--bcher-kva", "xn--a",
                            "r3---sn", "K", "l·l", "a\u200db", "☃", "𝒳"])  # fmt: skip
_labels = _ascii_labels | _scripts | _wide
_tops = st.sampled_from(["com", "test", "org", "рф", "xn--p1ai", "local", "invalid", "c1", "1",
                         "2a", "x", "COM", "museum", "中国"])  # fmt: skip
_domains = st.one_of(
    st.builds(lambda ls, t: ".".join([*ls, t]), st.lists(_labels, min_size=1, max_size=3), _tops),
    st.sampled_from(
        ["localhost", "[127.0.0.1]", "[IPv6:::1]", "1.2.3.4", "a..b", ".a.com", "a.com."]
    ),
    st.integers(58, 66).map(lambda n: "b" * n + ".com"),
    st.integers(230, 256).map(lambda n: ".".join(["b" * 50] * 4) + "." + "c" * (n - 208) + ".com"),
)
_specs = st.builds("{}@{}".format, _locals, _domains)
_junk = st.sampled_from([*"()<>@,;:\\\"[]. \t\r\n\0%!=?", "\u00a0", "\u200b", "\u3002", "\u202e",
                         "\ud800", "=?", "é", "\u0301"])  # fmt: skip


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    """A good address with one character put in, taken away or replaced."""
    text = draw(_specs)
    at = draw(st.integers(0, len(text)))
    end = at + draw(st.integers(0, 1))
    return text[:at] + draw(_junk | st.just("")) + text[end:]


_texts = (
    _specs
    | _mutated()
    | st.sampled_from([row.value for row in rows("mailbox")][:400]).filter(
        lambda text: len(text) < 1000
    )
)


def _is_explained(who: str, text: str, *, ours: bool) -> bool:
    return any(d.applies(text) for d in DIFFERENCES if (d.who, d.ours) == (who, ours))


@pytest.mark.parametrize("who", OPINIONS)
@given(text=_texts)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_another_reads_another_address_in_what_we_accept(who: str, text: str) -> None:
    found = everpost(text)
    if found is not None and not _is_explained(who, text, ours=True):
        assert OPINIONS[who](text) == found


@pytest.mark.parametrize("who", OPINIONS)
@given(text=_texts)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_we_refuse_what_another_accepts_without_a_reason(who: str, text: str) -> None:
    if everpost(text) is None and OPINIONS[who](text) is not None:
        assert _is_explained(who, text, ours=False)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda d: f"{d.who}-{d.what}")
def test_a_difference_on_the_list_is_none(difference: Difference) -> None:
    theirs = OPINIONS[difference.who](difference.example)
    found = everpost(difference.example)
    assert difference.applies(difference.example)
    if difference.ours:
        assert found is not None
        assert theirs != found
    else:
        assert found is None
        assert theirs is not None
