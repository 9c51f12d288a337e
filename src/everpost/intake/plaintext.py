"""The text part of a message that came with HTML alone.

A scanner, not a parser: it goes over the markup once, whatever is wrong with it, keeps the words,
the paragraphs, the list marks and where links lead, and drops the rest. Linear in its input.
"""

import html
import re

__all__ = ["plain_text"]

_MOST = 256 * 1024
"""Characters of HTML that are read; a text part of that length has no reader."""
_HREF_CHARS = 2048

# Possessive: it never goes back, so one tag costs its own length, or, when a quote in it never
# ends, the rest of the text; `_scan` lets that happen once.
_tag = re.compile(r"""<(/?)([a-zA-Z][a-zA-Z0-9:-]*+)((?:[^"'>]++|"[^"]*+"|'[^']*+')*+)>""").match
_tag_start = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*+)").match
_attributes = re.compile(
    r"""([^\s"'>/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?"""
).finditer
_LEADING_SOMEWHERE = ("http://", "https://", "mailto:", "tel:")

_SKIPPED = frozenset({"script", "style", "title", "template", "noscript", "textarea"})
_skip_end = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search for name in _SKIPPED}

_LINE, _PARAGRAPH, _BR, _LINK, _ITEM, _CELL, _RULE, _IMAGE, _PRE = range(9)
_KINDS = {
    **dict.fromkeys(
        (
            "address", "article", "aside", "caption", "center", "dd", "div", "dl", "dt", "fieldset",
            "figcaption", "figure", "footer", "form", "header", "main", "nav", "section", "tbody",
            "tfoot", "thead", "tr",
        ),
        _LINE,
    ),
    **dict.fromkeys(
        ("blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "table", "ul"), _PARAGRAPH
    ),
    "br": _BR, "a": _LINK, "li": _ITEM, "td": _CELL, "th": _CELL, "hr": _RULE, "img": _IMAGE,
    "pre": _PRE,
}  # fmt: skip
# Marks that senders put behind a preheader to push the text out of sight, and soft hyphens.
_UNSEEN = str.maketrans("", "", "\u00ad\u034f\u200b\u2060\ufeff")


def plain_text(markup: str) -> str:
    """The readable text of some HTML, lines ended by newlines; empty when there is none."""
    writer = _Writer()
    _scan(markup[:_MOST], writer)
    text = writer.finish()
    return f"{text}\n\n[...]" if text and len(markup) > _MOST else text


def _scan(markup: str, writer: "_Writer") -> None:
    at, end = 0, len(markup)
    quotes_pair = True
    while at < end:
        start = markup.find("<", at)
        if start != at:
            writer.words(markup[at:start] if start >= 0 else markup[at:])
            if start < 0:
                return
        tag = _tag(markup, start) if quotes_pair else None
        if tag is not None:
            slash, name, attributes = tag.groups()
            at = tag.end()
        elif (opening := _tag_start(markup, start)) is not None:
            # A quote or the tag never ends. To look for its end again at each later tag would
            # cost the square of the length: from here on a tag ends at its first `>`.
            quotes_pair = False
            close = markup.find(">", opening.end())
            if close < 0:
                return
            slash, name = opening.groups()
            attributes = markup[opening.end() : close]
            at = close + 1
        else:
            at = _skip_other(markup, start, writer)
            continue
        name = name.lower()
        if name in _SKIPPED:
            closing = None if slash else _skip_end[name](markup, at)
            if not slash:
                at = closing.start() if closing is not None else end
        elif (kind := _KINDS.get(name)) is not None:
            writer.tag(kind, attributes, closing=slash == "/")


def _skip_other(markup: str, start: int, writer: "_Writer") -> int:
    """Pass a comment, declaration or stray `<`; where to go on."""
    if markup.startswith("<!--", start):
        close = markup.find("-->", start + 4)
        return close + 3 if close >= 0 else len(markup)
    if markup.startswith(("<!", "<?", "</"), start):
        close = markup.find(">", start)
        return close + 1 if close >= 0 else len(markup)
    writer.words("<")  # as in `1 < 2`
    return start + 1


class _Writer:
    """Gathers words into lines and paragraphs."""

    __slots__ = ("_breaks", "_link", "_link_from", "_out", "_pre", "_space")

    def __init__(self) -> None:
        self._out: list[str] = []
        self._breaks = 0  # line ends owed before the next word: 2 for a paragraph
        self._space = False
        self._pre = 0
        self._link: str | None = None
        self._link_from = 0

    def words(self, raw: str) -> None:
        text = _unescaped(raw) if "&" in raw else raw
        if not text.isascii():
            text = text.translate(_UNSEEN)
        if self._pre:
            self._put(text.replace("\r", ""))
            return
        words = text.split()
        if "\u200c" in text:  # between letters it is spelling; alone it is a preheader's padding
            words = [word for word in words if word.strip("\u200c\u200d")]
        if not words:
            self._space = self._space or text != ""
            return
        if text[0].isspace():
            self._space = True
        self._put(" ".join(words))
        self._space = text[-1].isspace()

    def _put(self, text: str) -> None:
        if self._out:
            if self._breaks:
                self._out.append("\n\n" if self._breaks == 2 else "\n")
            elif self._space:
                self._out.append(" ")
        self._breaks, self._space = 0, False
        self._out.append(text)

    def tag(self, kind: int, attributes: str, *, closing: bool) -> None:
        """A tag that shows in the text."""
        if kind == _LINE:
            self._breaks = self._breaks or 1
        elif kind == _PARAGRAPH:
            self._breaks = 2
        elif kind == _LINK:
            self._end_link()
            if not closing:
                self._begin_link(attributes)
        elif kind == _CELL:
            self._space = True
        elif kind == _BR:
            self._breaks = min(self._breaks + 1, 2)
        elif kind == _ITEM:
            self._breaks = self._breaks or 1
            if not closing:
                self._put("*")
                self._space = True
        elif kind == _PRE:
            self._pre = max(self._pre + (-1 if closing else 1), 0)
            self._breaks = 2
        elif kind == _RULE:
            self._breaks = 2
            self._put("---")
            self._breaks = 2
        elif kind == _IMAGE and (shown := _value("alt", attributes)):
            self.words(shown)

    def _begin_link(self, attributes: str) -> None:
        target = _value("href", attributes).strip()
        if len(target) <= _HREF_CHARS and target.lower().startswith(_LEADING_SOMEWHERE):
            self._link = _unescaped(target)
            self._link_from = len(self._out)

    def _end_link(self) -> None:
        """Write where a link leads, unless its words say so already."""
        link, self._link = self._link, None
        if link is None or len(link.split()) != 1 or "<" in link or ">" in link:
            return
        words = "".join(self._out[self._link_from :]).strip()
        bare = link.removeprefix("mailto:").removeprefix("tel:")
        if not words:
            self._put(bare)
        elif words not in {link, bare}:
            self._out.append(f" <{bare}>")

    def finish(self) -> str:
        """The whole text."""
        self._end_link()
        lines = "".join(self._out).split("\n")
        return "\n".join([line.rstrip() for line in lines]).strip()


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a character reference with thousands of digits
        return text


def _value(wanted: str, attributes: str) -> str:
    """What an attribute is set to, or an empty text."""
    for found in _attributes(attributes):
        if found[1].lower() == wanted:
            return found[2] or found[3] or found[4] or ""
    return ""
