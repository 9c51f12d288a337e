"""What people manage: API keys, sending domains, relays, pools, routes, streams, projects; for api
and cli alike.

Promises: what is written was validated here, is audited under the caller's name, and is in the
directory of this process when a verb returns; secrets go in, sealed or hashed, and do not come out.
Lists and single reads answer from the directory as it is: a door that wants another process's last
write refreshes the directory first. Who may call which verb of a door is access' matter; verbs that
change settings check once more that the credential may manage. No SQL, no HTTP shapes of vendors.
"""

from everpost.catalog.api_keys import ApiKeys
from everpost.catalog.apply import Applier
from everpost.catalog.difference import Difference, FieldDifference, pool_words, route_words
from everpost.catalog.domains import Domains
from everpost.catalog.fields import (
    Document,
    NewPool,
    NewRelay,
    NewRoute,
    PoolFields,
    ProjectFields,
    RelayFields,
    RouteFields,
    StreamFields,
)
from everpost.catalog.pools import Pools
from everpost.catalog.relays import DIRECT_CONNECTIONS, Relays
from everpost.catalog.routes import Routes
from everpost.catalog.streams import Projects, Streams
from everpost.catalog.views import DnsRecord, DomainView, RelayView, api_key_json

__all__ = [
    "DIRECT_CONNECTIONS", "ApiKeys", "Applier", "Difference", "DnsRecord", "Document", "DomainView",
    "Domains", "FieldDifference", "NewPool", "NewRelay", "NewRoute", "PoolFields", "Pools",
    "ProjectFields", "Projects", "RelayFields", "RelayView", "Relays", "RouteFields", "Routes",
    "StreamFields", "Streams", "api_key_json", "pool_words", "route_words",
]  # fmt: skip
