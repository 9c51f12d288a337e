"""What a node is: one TOML file, environment overrides, frozen values.

Promises: `load` returns settings whose every value is of its documented type and range, or raises
`ConfigError` naming every wrong key, where it was found and what is expected there; an unknown key
never passes silently. Nothing here opens a socket or a store. What the cluster shares (projects,
keys, domains, relays) lives in the store and must not become a setting; no secret is a setting (a
database's address may hold one all the same: it is `masked` wherever it is shown).
"""

from everpost.config.changing import Origin, unchangeable
from everpost.config.describe import Described, describe, reference, sample
from everpost.config.load import FILE_NAME, ConfigError, Loaded, load, trace
from everpost.config.masking import masked
from everpost.config.settings import (
    ClusterSettings,
    DeliverySettings,
    DispatchSettings,
    DnsSettings,
    Http,
    IntakeSettings,
    Limits,
    LogSettings,
    Node,
    PostgresSettings,
    Settings,
    StoreSettings,
)

__all__ = [
    "FILE_NAME",
    "ClusterSettings",
    "ConfigError",
    "DeliverySettings",
    "Described",
    "DispatchSettings",
    "DnsSettings",
    "Http",
    "IntakeSettings",
    "Limits",
    "Loaded",
    "LogSettings",
    "Node",
    "Origin",
    "PostgresSettings",
    "Settings",
    "StoreSettings",
    "describe",
    "load",
    "masked",
    "reference",
    "sample",
    "trace",
    "unchangeable",
]
