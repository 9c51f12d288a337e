"""Content types: a fixed table by file name, so that bytes do not depend on a machine's own one."""

import re

from everpost.compose.errors import CannotCompose

__all__ = ["FALLBACK_TYPE", "ContentType", "guess_type", "parse_type", "type_of_attachment"]

FALLBACK_TYPE = "application/octet-stream"

_BY_SUFFIX = {
    "7z": "application/x-7z-compressed", "aac": "audio/aac", "apk":
    "application/vnd.android.package-archive", "avi": "video/x-msvideo", "avif": "image/avif",
    "bmp": "image/bmp", "bz2": "application/x-bzip2", "css": "text/css", "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip", "flac": "audio/flac", "gif": "image/gif",
    "gz": "application/gzip", "heic": "image/heic", "heif": "image/heif", "htm": "text/html",
    "html": "text/html", "ico": "image/vnd.microsoft.icon", "ics": "text/calendar",
    "jpeg": "image/jpeg", "jpg": "image/jpeg", "js": "text/javascript", "json": "application/json",
    "jsonld": "application/ld+json", "log": "text/plain", "m4a": "audio/mp4", "m4v": "video/mp4",
    "markdown": "text/markdown", "md": "text/markdown", "mid": "audio/midi", "mjs":
    "text/javascript", "mkv": "video/x-matroska", "mov": "video/quicktime", "mp3": "audio/mpeg",
    "mp4": "video/mp4", "mpeg": "video/mpeg", "mpg": "video/mpeg",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text", "oga": "audio/ogg", "ogg": "audio/ogg",
    "ogv": "video/ogg", "opus": "audio/ogg", "otf": "font/otf", "p7m": "application/pkcs7-mime",
    "p7s": "application/pkcs7-signature", "pdf": "application/pdf",
    "pgp": "application/pgp-encrypted", "pkpass": "application/vnd.apple.pkpass",
    "png": "image/png", "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "ps": "application/postscript", "rar": "application/vnd.rar", "rtf": "application/rtf",
    "svg": "image/svg+xml", "tar": "application/x-tar", "tgz": "application/gzip", "tif":
    "image/tiff", "tiff": "image/tiff", "tsv": "text/tab-separated-values", "ttf": "font/ttf",
    "txt": "text/plain", "vcf": "text/vcard", "vcs": "text/x-vcalendar", "wasm":
    "application/wasm", "wav": "audio/wav", "weba": "audio/webm", "webm": "video/webm",
    "webp": "image/webp", "woff": "font/woff", "woff2": "font/woff2",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml", "xz": "application/x-xz", "yaml": "application/yaml",
    "yml": "application/yaml", "zip": "application/zip", "zst": "application/zstd",
}  # fmt: skip

_ATOM = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,100}"
_PARAMETER = rf'\s*;\s*({_ATOM})\s*=\s*({_ATOM}|"(?:[^"\\\x00-\x1f\x7f-\U0010ffff]|\\[ -~])*")'
_TYPE = re.compile(rf"\s*({_ATOM})/({_ATOM})((?:{_PARAMETER})*)\s*;?\s*")
_EACH = re.compile(_PARAMETER)
_LONGEST = 500

ContentType = tuple[str, str, tuple[tuple[str, str], ...]]
"""(type, subtype, parameters) in lower case but for the parameters' values, which are as written,
quoted or not."""


def guess_type(filename: str) -> str:
    """The content type that a file name's suffix stands for, else application/octet-stream."""
    _, dot, suffix = filename.rpartition(".")
    return _BY_SUFFIX.get(suffix.lower(), FALLBACK_TYPE) if dot else FALLBACK_TYPE


def parse_type(value: str) -> ContentType | None:
    """The parts of a Content-Type value (RFC 2045 §5.1) without comments; None if malformed."""
    if len(value) > _LONGEST or not (match := _TYPE.fullmatch(value)):
        return None
    parameters = tuple((m[1].lower(), m[2]) for m in _EACH.finditer(match[3]))
    return match[1].lower(), match[2].lower(), parameters


def type_of_attachment(content_type: str, filename: str) -> ContentType:
    """The type as asked for, else as the file name says, else application/octet-stream.

    multipart/* and message/* may not be base64 (RFC 2045 §6.4, RFC 2046 §5.2.1), so they travel as
    application/octet-stream. Raises CannotCompose on control characters (injection), while a type
    that is merely malformed gives way to the file name's.
    """
    if not content_type.isprintable():
        raise CannotCompose("a content type contains a control character", field="attachments")
    kind = parse_type(content_type) or parse_type(guess_type(filename))
    assert kind is not None
    if kind[0] in ("multipart", "message"):
        return "application", "octet-stream", ()
    return kind
