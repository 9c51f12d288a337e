"""What people manage: API keys, sending domains, relays; for api and cli alike.

Promises: what is written was validated here, is audited under the caller's name, and is in the
directory of this process when a verb returns; secrets go in, sealed or hashed, and do not come out.
Lists and single reads answer from the directory as it is: a door that wants another process's last
write refreshes the directory first. Who may call which verb of a door is access' matter; verbs that
change settings check once more that the credential may manage. No SQL, no HTTP shapes of vendors.
"""

from everpost.catalog.api_keys import ApiKeys
from everpost.catalog.domains import Domains
from everpost.catalog.relays import Relays
from everpost.catalog.views import DnsRecord, DomainView, RelayView, api_key_json

__all__ = ["ApiKeys", "DnsRecord", "DomainView", "Domains", "RelayView", "Relays", "api_key_json"]
