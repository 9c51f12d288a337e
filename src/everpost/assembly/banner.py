"""What `everpost serve` says when it is ready: addresses, the first key, lines to paste."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping

from everpost.assembly.naming import many_nodes, node_name
from everpost.assembly.places import Places
from everpost.config import Settings

__all__ = ["banner"]

_ANY = {"0.0.0.0:": "127.0.0.1:", "[::]:": "[::1]:"}


def _reachable(address: str) -> str:
    """An address that a client on this machine can use."""
    for any_, here in _ANY.items():
        if address.startswith(any_):
            return here + address.removeprefix(any_)
    return address


def banner(
    settings: Settings,
    places: Places,
    addresses: Mapping[str, str],
    prepared: Mapping[str, object],
) -> str:
    """`prepared`: `key` (a key made just now), `chosen` (EVERPOST_FIRST_API_KEY became the key),
    `ignored` (it did not: the store has keys), `sandbox`, `sender` (a domain that may send)."""
    url = settings.node.public_url or f"http://{_reachable(addresses['api'])}"
    key = prepared.get("key")
    program = shlex.quote("everpost" if shutil.which("everpost") else sys.argv[0] or "everpost")
    data = f"--data {shlex.quote(str(settings.node.data))}"
    lines = [
        "",
        f"Everpost is ready at {url}  (documentation: {url}/docs)",
        f"  data        {places.data}"
        + ("" if many_nodes(settings) else f", durability {settings.store.durability.value}"),
    ]
    if many_nodes(settings):
        lines.append(f"  node        {node_name(settings)}, on PostgreSQL")
    if "admin" in addresses:
        lines.append(f"  metrics     http://{_reachable(addresses['admin'])}/metrics")
    if isinstance(key, str):
        lines.append(f"  API key     {key}")
        lines.append("              (shown this once; the store keeps only its hash)")
    elif prepared.get("chosen"):
        lines.append("  API key     the one in EVERPOST_FIRST_API_KEY")
    else:
        lines.append(f"  API key     made before; another one: {program} keys create NAME {data}")
    if prepared.get("ignored"):
        lines.append("              (EVERPOST_FIRST_API_KEY is ignored: this store has keys)")
    if prepared.get("sandbox"):
        lines.append("  sandbox     no relay and no domain is set up: mail is captured, not sent")
    look = f"and look at it: {program} sandbox list {data}"
    if not prepared.get("sandbox"):
        look = f"and follow it: {program} status {data}"
    return "\n".join([*lines, "", "Send a first message:", "", *_curl(url, prepared), "", look, ""])


def _curl(url: str, prepared: Mapping[str, object]) -> list[str]:
    """A command that works when pasted; the key from the environment where we do not know it."""
    key = prepared.get("key")
    variable = "EVERPOST_FIRST_API_KEY" if prepared.get("chosen") else "EVERPOST_API_KEY"
    bearer = f"'Authorization: Bearer {key}'" if key else f'"Authorization: Bearer ${variable}"'
    body = {
        "from": f"Me <me@{prepared.get('sender') or 'example.com'}>",
        "to": "you@example.net",
        "subject": "Hello",
        "text": "It works.",
    }
    return [
        f"  curl -sS {url}/emails -H {bearer} \\",
        "    -H 'Content-Type: application/json' \\",
        f"    -d '{json.dumps(body)}'",
    ]
