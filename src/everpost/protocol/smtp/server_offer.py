"""What a server offers and what it bears: the facts that its owner chooses per connection."""

import msgspec

__all__ = ["Limits", "Offer"]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The extensions that EHLO lists; what is not offered is refused when used.

    AUTH (`auth` names mechanisms: PLAIN, LOGIN) is listed and allowed under TLS only, unless
    `auth_in_clear`. STARTTLS is listed until TLS is there.
    """

    pipelining: bool = True
    size: bool = True
    eight_bit: bool = True
    utf8: bool = True
    enhanced: bool = True
    chunking: bool = True
    starttls: bool = False
    auth: tuple[str, ...] = ()
    auth_in_clear: bool = False

    def may_log_in(self, *, tls: bool) -> bool:
        """Whether AUTH is there at this point."""
        return bool(self.auth) and (tls or self.auth_in_clear)

    def lines(self, limits: "Limits", *, tls: bool) -> list[str]:
        """EHLO keywords with their parameters. RFC 5321 §4.1.1.1."""
        listed = (
            ("PIPELINING", self.pipelining),
            (f"SIZE {limits.message}", self.size),
            ("8BITMIME", self.eight_bit),
            ("SMTPUTF8", self.utf8),
            ("ENHANCEDSTATUSCODES", self.enhanced),
            ("CHUNKING", self.chunking),
            ("STARTTLS", self.starttls and not tls),
            ("AUTH " + " ".join(self.auth), self.may_log_in(tls=tls)),
        )
        return [line for line, shown in listed if shown]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one connection.

    `message` octets of content · `recipients` of one transaction · `command` octets of a line ·
    `errors` mistakes and `logins` refused logins until the connection is ended. `in_turn` drops
    who speaks out of turn (RFC 2920 §3.1); off only where broken clients must be served.
    """

    message: int = 50 * 1024 * 1024
    recipients: int = 1000
    command: int = 2048
    errors: int = 20
    logins: int = 3
    in_turn: bool = True
