"""Relays: the mail servers that mail is handed to. They belong to the server, not to a project."""

from collections.abc import Sequence

import msgspec

from everpost import telemetry
from everpost.catalog.checks import OPERATORS_PROJECT, must_operate
from everpost.catalog.relay_form import read_form
from everpost.catalog.views import RelayView
from everpost.clock import Clock
from everpost.ids import Id, IdMaker
from everpost.model.credential import Credential
from everpost.model.errors import Conflict, Invalid, NotFound
from everpost.model.relay import Relay, RelayKind, RelayState
from everpost.security import Sealer, Unsealable
from everpost.store.directory import Directory
from everpost.store.interface import Catalog, RelayRow

__all__ = ["Relays"]

_SETTINGS = (
    "implicit_tls", "tls", "username", "auth", "helo", "connections", "weight", "site",
    "signed_headers", "eight_bit", "kind", "source", "destination_connections", "allow_private",
)  # fmt: skip

_DIRECT_CONNECTIONS = 100
"""Sessions of one process to all MX hosts together, where a relay says nothing of its own."""


class Relays:
    """All relays of this server. `connections` is for relays that say nothing of their own: the
    cap of one process. Passwords are sealed under the operator's project."""

    def __init__(
        self,
        store: Catalog,
        directory: Directory,
        *,
        sealer: Sealer,
        clock: Clock,
        ids: IdMaker,
        connections: int = 10,
    ) -> None:
        self._store = store
        self._directory = directory
        self._sealer = sealer
        self._clock = clock
        self._ids = ids
        self._connections = connections
        self._unusable: set[str] = set()
        """Names whose alarm this process has raised."""

    async def add(
        self,
        credential: Credential,
        url: str,
        *,
        name: str | None = None,
        tls: str | None = None,
        connections: int | None = None,
        weight: int | None = None,
        helo: str | None = None,
        site: str | None = None,
        eight_bit: bool | None = None,
        signed_headers: Sequence[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        auth: str | None = None,
        port: int | None = None,
        source: Sequence[str] | None = None,
        destination_connections: int | None = None,
        allow_private: bool | None = None,
    ) -> RelayView:
        """A new relay, enabled. `url` is `smtp://[user:password@]host[:port]` (port 25, with a
        login 587) or `smtps://…` (465, TLS from the first byte); user and password are
        percent-encoded there, or given apart as they are. The `url` `mx` delivers straight to the
        MX hosts of each destination; `port` (25), `destination_connections` and `allow_private`
        go with it only. `source` holds the addresses to connect from, one a family at most.

        Where `tls` is not said: verify with smtps or a login across a network; none with a login on
        this machine itself; else opportunistic. With a login, opportunistic is refused across a
        network, `require` gives the password to whoever answers there, and `none` sends it in
        clear. Raises Invalid, Forbidden; Conflict when the name is taken.
        """
        must_operate(credential)
        form = read_form(
            url, name=name, tls=tls, connections=connections, weight=weight, helo=helo, site=site,
            eight_bit=eight_bit, signed_headers=signed_headers, username=username,
            password=password, auth=auth, port=port, source=source,
            destination_connections=destination_connections, allow_private=allow_private,
        )  # fmt: skip
        if any(row.name == form.name for row in await self._store.relays()):
            raise Conflict(
                f"A relay named {form.name} exists already; give another `name`", field="name"
            )
        id_ = self._ids()
        key_id, sealed = 0, None
        if form.password is not None:
            key_id, sealed = self._sealer.seal(
                OPERATORS_PROJECT, form.password.encode(), context=id_
            )
        row = RelayRow(
            id=id_,
            name=form.name,
            host=form.host,
            port=form.port,
            state=RelayState.ENABLED.value,
            settings=form.settings,
            key_id=key_id,
            password=sealed,
            created_at=self._clock.now(),
        )
        await self._put(row, credential, "relay.add")
        return RelayView(row)

    def list(self, credential: Credential) -> Sequence[RelayView]:
        """All relays, oldest first."""
        must_operate(credential)
        rows = sorted(self._directory.now.relays, key=lambda row: row.id)
        return [RelayView(row) for row in rows]

    def get(self, credential: Credential, id_: Id) -> RelayView:
        """Raises NotFound."""
        must_operate(credential)
        return RelayView(_of(self._directory.now.relays, id_))

    async def set_state(self, credential: Credential, id_: Id, state: str) -> RelayView:
        """Enable, drain or disable. Raises Invalid, NotFound."""
        must_operate(credential)
        if state not in {known.value for known in RelayState}:
            raise Invalid(f"Invalid `state` field. One of {', '.join(RelayState)}.", field="state")
        row = _of(await self._store.relays(), id_)
        if row.state != state:
            row = msgspec.structs.replace(row, state=state)
            await self._put(row, credential, f"relay.{state}")
        return RelayView(row)

    async def remove(self, credential: Credential, id_: Id) -> bool:
        """Forget a relay; False when there is none."""
        must_operate(credential)
        gone = await self._store.drop("relay", id_, actor=credential.actor, action="relay.remove")
        await self._directory.refresh()
        self._clear_gone()
        return gone

    async def _put(self, row: RelayRow, credential: Credential, action: str) -> None:
        await self._store.put(row, actor=credential.actor, action=action)
        await self._directory.refresh()

    def load_all(self) -> Sequence[Relay]:
        """Every relay of the directory, as `load` does; alarms of removed ones end."""
        self._clear_gone()
        return [self.load(row) for row in self._directory.now.relays]

    def _clear_gone(self) -> None:
        for name in self._unusable - {row.name for row in self._directory.now.relays}:
            telemetry.alarm(f"relay_unusable:{name}").clear()
            self._unusable.discard(name)

    def load(self, row: RelayRow) -> Relay:
        """The relay as delivery needs it, password in clear. A row that cannot be read raises the
        alarm `relay_unusable:<name>` and comes out disabled: its mail waits or goes elsewhere."""
        alarm = telemetry.alarm(f"relay_unusable:{row.name}")
        known = {key: row.settings[key] for key in _SETTINGS if key in row.settings}
        direct = known.get("kind") == RelayKind.MX.value
        known.setdefault("connections", _DIRECT_CONNECTIONS if direct else self._connections)
        try:
            if row.password is not None:
                clear = self._sealer.unseal(row.key_id, row.password, context=row.id)
                known["password"] = clear.decode()
            relay = msgspec.convert(
                {"id": row.id, "name": row.name, "host": row.host, "port": row.port}
                | {"state": row.state}
                | known,
                Relay,
            )
        except (Unsealable, UnicodeDecodeError, msgspec.ValidationError) as error:
            reason = "its password does not unseal" if isinstance(error, Unsealable) else "its row"
            self._unusable.add(row.name)
            alarm.raise_(relay=row.name, reason=reason, error=type(error).__name__)
            return Relay(
                id=row.id, name=row.name, host=row.host, port=row.port, state=RelayState.DISABLED
            )
        self._unusable.discard(row.name)
        alarm.clear()
        return relay


def _of(rows: Sequence[RelayRow], id_: Id) -> RelayRow:
    for row in rows:
        if row.id == id_:
            return row
    raise NotFound("Relay not found")
