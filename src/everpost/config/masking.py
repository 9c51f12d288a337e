"""Settings as people may see them: an address is shown without a password that stands in it."""

import re

__all__ = ["masked"]

_in_url = re.compile(r"(//[^:/@\s]*):.*@").sub
_by_name = re.compile(r"(password\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&]+)", re.IGNORECASE).sub


def masked(text: str) -> str:
    """Pure. Rather too much is left out than too little."""
    return _by_name(r"\1***", _in_url(r"\1:***@", text))
