"""The text part made from HTML: readable from good markup, harmless and cheap from any."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.intake import plain_text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("", ""),
        ("plain words", "plain words"),
        ("<p>One\n  two</p><p>Three</p>", "One two\n\nThree"),
        ("<div>a</div><div>b</div>c<br>d<br><br>e", "a\nb\nc\nd\n\ne"),
        ("<b>no</b>break <i>in</i> words", "nobreak in words"),
        ("<h1>Title</h1>Text", "Title\n\nText"),
        ("<ul><li>One</li><li>Two</ul>after", "* One\n* Two\n\nafter"),
        ("<tr><td>A</td><td>B</td></tr><tr><td>C</td></tr>", "A B\nC"),
        ('<a href="https://x.test/?a=1&amp;b=2">Go</a>!', "Go <https://x.test/?a=1&b=2>!"),
        ("<a href=https://x.test>https://x.test</a>", "https://x.test"),
        ("<a href='mailto:a@b.test'>a@b.test</a>", "a@b.test"),
        ("<a href='mailto:a@b.test'>Write</a>", "Write <a@b.test>"),
        ('<a href="javascript:alert(1)">x</a><a href="#top">y</a>', "xy"),
        ('<a href="https://x.test"><img src=a></a>', "https://x.test"),
        ('<a href="https://x.test\n<b>">x</a>', "x"),
        ('<a title="href=https://evil.test" href="https://x.test">x</a>', "x <https://x.test>"),
        ("<img alt='The logo' src=x>", "The logo"),
        ("<title>T</title><style>p{}</style><SCRIPT>a<b</Script>x", "x"),
        ("<script>never ends", ""),
        ("<!DOCTYPE html><!-- a > b --><?php x ?>y", "y"),
        ("<!-- never ends", ""),
        ("1 < 2 &amp; 3 > 2 &lt;b&gt;", "1 < 2 & 3 > 2 <b>"),
        ("&nbsp;caf&eacute; &#128512; &bogus;", "caf\u00e9 \U0001f600 &bogus;"),
        ("<p>Look&nbsp;&zwnj;&nbsp;&zwnj;&nbsp;&#847;</p>", "Look"),
        ("soft&shy;hyphen", "softhyphen"),
        ("<pre>  a\n    b</pre>c", "a\n    b\n\nc"),
        ("a<hr>b", "a\n\n---\n\nb"),
        ('<p title="a > b">x</p>', "x"),
        ('<p title="never ends>x<p>y', "x\n\ny"),
        ("x<p", "x"),
        ("\u4f60\u597d<br>\u4e16\u754c", "\u4f60\u597d\n\u4e16\u754c"),
    ],
)
def test_words_paragraphs_and_links_are_kept(markup: str, text: str) -> None:
    assert plain_text(markup) == text


def test_a_huge_page_is_cut_and_says_so() -> None:
    text = plain_text("word " * 100_000)
    assert text.endswith("\n\n[...]")
    assert len(text) < 300_000


_pieces = st.sampled_from(
    ["<", ">", "</", "<!--", "-->", "<!", "<a", " href='", '"', "'", "=", "&", "&#", "&#x", ";",
     "<p>", "<pre>", "</pre>", "<li>", "<script>", "</script>", "<b", "x", " ", "\n", "\xa0",
     "https://x.test", "<br/>", "<img", " alt=", "<title", "<a"]
)  # fmt: skip


@given(st.lists(_pieces, max_size=60).map("".join) | st.text(max_size=200))
@settings(max_examples=400)
def test_no_markup_breaks_it_or_makes_what_the_composer_refuses(markup: str) -> None:
    text = plain_text(markup)
    assert "\0" not in text or "\0" in markup
    assert len(text) <= 2 * len(markup) + 10
    assert text == text.strip()


@pytest.mark.parametrize(
    "unit",
    ["<", "<a ", '<a "', "<a '\">", "<!--", "<script>", "&#9", "&", "<a href=", "<li>",
     "<a href='h'>", "</", "<p title='>", "<b>x</b>", "<a href=https://x.test>y", "<pre>",
     "&#" + "9" * 5000 + ";"],
)  # fmt: skip
def test_twice_the_markup_costs_at_most_about_twice_the_time(unit: str) -> None:
    def cost(length: int) -> float:
        markup = unit * (length // len(unit))
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            plain_text(markup)
            best = min(best, time.process_time() - started)
        return best

    assert cost(160_000) < 10 * max(cost(40_000), 0.002)
