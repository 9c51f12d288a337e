"""What a text in the settings must look like. Pure."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = [
    "is_address_or_empty",
    "is_addresses",
    "is_host_or_empty",
    "is_listen",
    "is_listen_or_off",
    "is_mailbox_or_empty",
    "is_name_or_empty",
    "is_site",
    "is_url_or_empty",
]

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
_HOST_NAME = re.compile(
    r"(?=.{1,255}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
    r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*|\[[0-9A-Fa-f:.IPv]+\]"
)
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_SITE = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def is_listen(text: str) -> bool:
    match = _HOST_PORT.fullmatch(text)
    return match is not None and int(match[2]) <= 65535


def is_listen_or_off(text: str) -> bool:
    return text == "" or is_listen(text)


def is_host_or_empty(text: str) -> bool:
    return text == "" or _HOST_NAME.fullmatch(text) is not None


def is_addresses(text: str) -> bool:
    try:
        return all(ip_address(one) for one in text.replace(",", " ").split())
    except ValueError:
        return False


def is_name_or_empty(text: str) -> bool:
    return text == "" or _NODE.fullmatch(text) is not None


def is_site(text: str) -> bool:
    return _SITE.fullmatch(text) is not None


def is_mailbox_or_empty(text: str) -> bool:
    from everpost.net.mailbox import Mailbox

    try:
        return not text or bool(Mailbox.from_url(text))
    except ValueError:
        return False


def is_address_or_empty(text: str) -> bool:
    from everpost.model.address import parse_mailbox
    from everpost.model.errors import Invalid

    try:
        return not text or bool(parse_mailbox(text, field="canary.address"))
    except Invalid:
        return False


def is_url_or_empty(text: str) -> bool:
    if not text:
        return True
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and (parts.port or 1) > 0
            and not (parts.query or parts.fragment or parts.username)
        )
    except ValueError:
        return False
