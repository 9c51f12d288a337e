"""Settings of the way out: dispatch, delivery, DNS, canaries. See `settings`."""

from dataclasses import dataclass

from everpost.config.forms import is_address_or_empty, is_addresses, is_mailbox_or_empty
from everpost.config.setting import MIB, setting

__all__ = ["CanarySettings", "DeliverySettings", "DispatchSettings", "DnsSettings"]


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """How queued recipients are taken in hand, per dispatch process."""

    window: int = setting(800, "Recipients in hand at once in one process.", low=1, high=100_000)
    window_bytes: int = setting(
        64 * MIB,
        "Memory that large messages may take in one process while they are delivered; each counts "
        "five times its size. One that is larger than all of it goes alone.",
        unit="bytes",
        low=MIB,
        high=64 * 1024 * MIB,
    )
    batch: int = setting(
        200, "Most recipients taken from the queue in one step.", low=1, high=10_000
    )
    lease_s: float = setting(
        900.0,
        "How long a claim holds without being renewed. Must be longer than the wait for the "
        "answer to the final dot (`delivery.dot_s`).",
        unit="seconds",
        low=1,
        high=86_400,
    )
    poll_s: float = setting(
        1.0,
        "How often the queue is looked at when no wake-up comes.",
        unit="seconds",
        low=0.01,
        high=60,
    )
    signing_threads: int = setting(
        1, "Threads that sign (DKIM) beside the event loop.", low=1, high=64
    )
    poison_after: int = setting(
        3,
        "A recipient whose composing crashed its process this often is held. Mail beside it counts "
        "once at most, so fewer than two would hold the innocent, too.",
        low=2,
        high=100,
    )


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """Conversations with mail servers. RFC 5321 §4.5.3.2 gives the times; where another relay may
    take over, less is waited to connect."""

    connections: int = setting(
        20,
        "Most connections to one relay that says nothing of its own, of all processes together.",
        low=1,
        high=10_000,
    )
    idle_s: float = setting(
        10.0,
        "How long an idle connection is kept for the next message.",
        unit="seconds",
        low=0,
        high=3600,
    )
    connect_s: float = setting(
        5.0, "Wait for a connection to a relay.", unit="seconds", low=0.01, high=3600
    )
    greet_s: float = setting(
        10.0,
        "Wait for a relay's greeting, and for each of its answers up to login.",
        unit="seconds",
        low=0.01,
        high=3600,
    )
    eject_s: float = setting(
        5.0,
        "How long a relay that failed us gets no mail. Doubled each time that it fails again soon, "
        "up to 64 times as long. 0: it is tried again at once, by one message at a time.",
        unit="seconds",
        low=0,
        high=300,
    )
    probe_s: float = setting(
        30.0,
        "How often a smart host that carries no mail is probed (a session up to MAIL, no message), "
        "by one process for all. 0: only one that is out of service, to see whether it is back.",
        unit="seconds",
        low=0,
        high=86_400,
    )
    mx_connect_s: float = setting(
        30.0, "Wait for a connection to an MX host.", unit="seconds", low=0.01, high=3600
    )
    mx_greet_s: float = setting(
        300.0,
        "Wait for an MX host's greeting, and for each of its answers before MAIL.",
        unit="seconds",
        low=0.01,
        high=3600,
    )
    mx_addresses: int = setting(
        5, "Addresses of a destination's MX hosts that one attempt connects to.", low=1, high=100
    )
    mx_sessions: int = setting(
        2, "Sessions that one attempt opens to a destination's MX hosts.", low=1, high=100
    )
    mail_s: float = setting(
        300.0, "Wait for the answer to MAIL.", unit="seconds", low=0.01, high=3600
    )
    rcpt_s: float = setting(
        300.0, "Wait for the answer to each RCPT.", unit="seconds", low=0.01, high=3600
    )
    data_s: float = setting(
        120.0, "Wait for the answer to DATA.", unit="seconds", low=0.01, high=3600
    )
    block_s: float = setting(
        180.0, "Wait for each block of the message to be taken.", unit="seconds", low=0.01,
        high=3600,
    )  # fmt: skip
    dot_s: float = setting(
        600.0,
        "Wait for the answer to the final dot. Shorter than ten minutes makes duplicates.",
        unit="seconds",
        low=0.01,
        high=3600,
    )


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Look-ups of mail hosts and of the records of sending domains."""

    servers: str = setting(
        "",
        "Name servers to ask: recursive ones, best a validating one on this machine. "
        "Empty: those of the system.",
        form="IP addresses with spaces between them, or empty",
        check=is_addresses,
    )
    port: int = setting(53, "Port of `dns.servers`.", low=1, high=65535)
    timeout_s: float = setting(
        5.0,
        "A look-up with all its retries may take so long.",
        unit="seconds",
        low=0.1,
        high=60,
    )


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """Messages to a mailbox of your own, through each relay in turn: they find a relay that accepts
    mail and loses it. Off unless `canary.address` is set."""

    address: str = setting(
        "",
        "Where canaries are sent: an address whose mail nobody else needs to see. Empty: none.",
        form="a mail address, or empty",
        check=is_address_or_empty,
    )
    mailbox: str = setting(
        "",
        "Where they arrive, over IMAP.",
        form="imaps://HOST[:PORT]/FOLDER (imap:// on this machine only), or empty",
        check=is_mailbox_or_empty,
    )
    username: str = setting("", "Login of the mailbox.", form="a text")
    password_file: str = setting(
        "",
        "File whose first line is the mailbox's password. It is read at each visit.",
        form="a path, or empty",
    )
    every_s: float = setting(
        900.0,
        "Each relay that is enabled carries a canary so often.",
        unit="seconds",
        low=1,
        high=86_400,
    )
    wait_s: float = setting(
        600.0,
        "A canary that has not arrived so long after the relay took it is lost.",
        unit="seconds",
        low=1,
        high=86_400,
    )
