"""The resolver that the settings describe."""

from everpost.clock import Clock
from everpost.config import Settings
from everpost.net.resolver import Resolver

__all__ = ["resolver_for"]


def resolver_for(settings: Settings, clock: Clock) -> Resolver:
    """One a process: its cache is worth sharing."""
    dns = settings.dns
    servers = dns.servers.replace(",", " ").split()
    return Resolver(servers or None, dns.port, dns.timeout_s, clock=clock)
