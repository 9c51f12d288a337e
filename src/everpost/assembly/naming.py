"""Whether this node is one of several, and what it is called among them."""

import socket

from everpost.config import Settings

__all__ = ["many_nodes", "node_name"]


def many_nodes(settings: Settings) -> bool:
    """Whether the store is one that several nodes share."""
    return bool(settings.postgres.url)


def node_name(settings: Settings) -> str:
    """What this node is called among the others; empty where there are none."""
    if not many_nodes(settings):
        return ""
    return settings.cluster.name or socket.gethostname()
