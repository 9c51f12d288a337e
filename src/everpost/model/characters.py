"""Which characters may stand in one line of a header, wherever the value comes from.

A value that passes here cannot end a header line, neither as it stands nor once a reader has
decoded the encoded words in it. Linear in the length of the text.
"""

import binascii
import re

__all__ = ["has_direction_override", "line_fault"]

# C0, DEL, C1 (NEL among them), LINE SEPARATOR, PARAGRAPH SEPARATOR, surrogates: str.splitlines()
# and mail readers break lines at many of them (RFC 5322 §2.2 allows none in a header value).
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
# Embeddings, overrides and isolates reorder what stands around them (UAX 9 §2).
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]").search
# Wider than RFC 2047 §2, as readers are: some decode words with spaces or odd charsets in them.
_ENCODED_WORD = re.compile(r"=\?[^?]{0,60}\?([bBqQ])\?(.*?)\?=")
_QUOTED = re.compile(r"=(?:0[0aAdD])")
_BREAKS = frozenset(b"\x00\r\n")


def line_fault(text: str) -> str | None:
    """Why `text` may not stand in a header line, in a few words, or None when it may."""
    if _CONTROL(text):
        return "it contains a line break or another control character"
    if "=?" in text and _hides_break(text):
        return "it contains an encoded word that hides a line break"
    return None


def has_direction_override(text: str) -> bool:
    """Whether a character in it reorders its surroundings (`a\\u202egpj.exe` looks like a .jpg)."""
    return not text.isascii() and _DIRECTION(text) is not None


def _hides_break(text: str) -> bool:
    # Cut after the last end of a word: a start without an end behind it costs a scan to the end.
    for word in _ENCODED_WORD.finditer(text, 0, text.rfind("?=") + 2):
        encoding, payload = word.groups()
        if encoding in "qQ":
            if _QUOTED.search(payload):
                return True
        else:
            try:
                decoded = binascii.a2b_base64(payload)
            except ValueError:  # not base64, or not ASCII: no reader decodes it
                continue
            if not _BREAKS.isdisjoint(decoded):
                return True
    return False
