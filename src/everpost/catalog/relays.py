"""Relays: the mail servers that mail is handed to. They belong to the server, not to a project."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from everpost.catalog.checks import OPERATORS_PROJECT, must_operate
from everpost.catalog.fields import NewRelay, RelayFields
from everpost.catalog.membership import leave_pools
from everpost.catalog.relay_form import MOST_RELAYS, RelayForm, change_form, read_form
from everpost.catalog.unusable import Unusable
from everpost.catalog.views import RelayView
from everpost.clock import Clock
from everpost.ids import Id, IdMaker
from everpost.model.credential import Credential
from everpost.model.errors import Conflict, NotFound
from everpost.model.relay import Relay, RelayKind, RelayState
from everpost.security import Sealer, Unsealable
from everpost.store.directory import Directory
from everpost.store.interface import Catalog, Change, RelayRow

__all__ = ["DIRECT_CONNECTIONS", "Relays", "changed_row", "new_row"]

_SETTINGS = (
    "implicit_tls", "tls", "username", "auth", "helo", "connections", "weight", "site",
    "signed_headers", "eight_bit", "kind", "source", "destination_connections", "allow_private",
    "messages_per_connection", "messages_per_second", "messages_per_minute", "messages_per_day",
    "warmup", "warmup_from", "probe", "probe_sender",
)  # fmt: skip

DIRECT_CONNECTIONS = 100
"""Sessions to all MX hosts together, where a relay says nothing of its own."""


class Relays:
    """All relays of this server. `connections` is for relays that say nothing of their own: the
    cap over all processes. Passwords are sealed under the operator's project."""

    def __init__(
        self,
        store: Catalog,
        directory: Directory,
        *,
        sealer: Sealer,
        clock: Clock,
        ids: IdMaker,
        connections: int = 20,
    ) -> None:
        self._store = store
        self._directory = directory
        self._sealer = sealer
        self._clock = clock
        self._ids = ids
        self._connections = connections
        self._unusable = Unusable("relay")

    async def add(self, credential: Credential, given: NewRelay) -> RelayView:
        """A new relay, enabled unless it says otherwise. Its `url` is
        `smtp://[user:password@]host[:port]` (port 25, with a login 587) or `smtps://…` (465, TLS
        from the first byte); user and password are percent-encoded there, or given apart as they
        are. The `url` `mx` delivers straight to the MX hosts of each destination.

        Where `tls` is not said: verify with smtps or a login across a network; none with a login on
        this machine itself; else opportunistic. With a login, opportunistic is refused across a
        network, `require` gives the password to whoever answers there, and `none` sends it in
        clear. Raises Invalid, Forbidden; Conflict when the name is taken.
        """
        must_operate(credential)
        form = read_form(given)
        rows = await self._store.relays()
        _refuse_taken(form.name, rows)
        if len(rows) >= MOST_RELAYS:
            raise Conflict(f"There may be at most {MOST_RELAYS} relays.")
        row = new_row(form, id_=self._ids(), now=self._clock.now(), sealer=self._sealer)
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

    async def change(self, credential: Credential, id_: Id, given: RelayFields) -> RelayView:
        """Change what is given, the state included: enabled, draining or disabled. A password stays
        for the host and user that it was given for. What changes nothing is not written. Raises
        Invalid, NotFound; Conflict when the name is taken."""
        must_operate(credential)
        rows = await self._store.relays()
        row = _of(rows, id_)
        changed = changed_row(
            row, change_form(row, given), now=self._clock.now(), sealer=self._sealer
        )
        if changed != row:
            _refuse_taken(changed.name, rows, known=id_)
            of_state = changed == msgspec.structs.replace(row, state=changed.state)
            await self._put(
                changed, credential, f"relay.{changed.state}" if of_state else "relay.change"
            )
            self._clear_gone()
        return RelayView(changed)

    async def remove(self, credential: Credential, id_: Id) -> bool:
        """Forget a relay, and take it out of its pools; False when there is none. Raises Conflict
        when that leaves nothing of a pool that mail is sent to."""
        must_operate(credential)
        rows = await self._store.relays()
        if not any(row.id == id_ for row in rows):
            return False
        left = leave_pools(
            await self._store.pools(),
            {id_},
            routes=await self._store.routes(),
            streams=await self._store.streams(),
        )
        changes = [Change("pool.change", row) for row in left]
        changes.append(Change("relay.remove", drop=("relay", id_)))
        await self._store.change(changes, actor=credential.actor)
        await self._directory.refresh()
        self._clear_gone()
        return True

    async def _put(self, row: RelayRow, credential: Credential, action: str) -> None:
        await self._store.put(row, actor=credential.actor, action=action)
        await self._directory.refresh()

    def load_all(self) -> Sequence[Relay]:
        """Every relay of the directory, as `load` does; alarms of removed ones end."""
        self._clear_gone()
        return [self.load(row) for row in self._directory.now.relays]

    def _clear_gone(self) -> None:
        self._unusable.only(row.name for row in self._directory.now.relays)

    def load(self, row: RelayRow) -> Relay:
        """The relay as delivery needs it, password in clear. A row that cannot be read raises the
        alarm `relay_unusable:<name>` and comes out disabled: its mail waits or goes elsewhere."""
        known = {key: row.settings[key] for key in _SETTINGS if key in row.settings}
        direct = known.get("kind") == RelayKind.MX.value
        known.setdefault("connections", DIRECT_CONNECTIONS if direct else self._connections)
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
            self._unusable.found(row.name, reason=reason, error=error)
            return Relay(
                id=row.id, name=row.name, host=row.host, port=row.port, state=RelayState.DISABLED
            )
        self._unusable.fine(row.name)
        return relay


def _of(rows: Sequence[RelayRow], id_: Id) -> RelayRow:
    for row in rows:
        if row.id == id_:
            return row
    raise NotFound("Relay not found")


def _refuse_taken(name: str, rows: Sequence[RelayRow], *, known: Id | None = None) -> None:
    if any(row.name == name and row.id != known for row in rows):
        raise Conflict(f"A relay named {name} exists already; give another `name`", field="name")


# --- forms become rows ----------------------------------------------------------------------------


def new_row(form: RelayForm, *, id_: Id, now: int, sealer: Sealer) -> RelayRow:
    key_id, sealed = 0, None
    if form.password is not None and form.password is not UNSET:
        key_id, sealed = sealer.seal(OPERATORS_PROJECT, form.password.encode(), context=id_)
    return RelayRow(
        id=id_,
        name=form.name,
        host=form.host,
        port=form.port,
        state=form.state or RelayState.ENABLED.value,
        settings=_dated(form, None, now),
        key_id=key_id,
        password=sealed,
        created_at=now,
    )


def changed_row(row: RelayRow, form: RelayForm, *, now: int, sealer: Sealer) -> RelayRow:
    """The row as the form has it; equal to `row` when nothing is new. A password that is the same
    is not sealed again."""
    key_id, sealed = row.key_id, row.password
    if form.password is None:
        key_id, sealed = 0, None
    elif form.password is not UNSET and not _is(row, form.password, sealer):
        key_id, sealed = sealer.seal(OPERATORS_PROJECT, form.password.encode(), context=row.id)
    return msgspec.structs.replace(
        row,
        name=form.name,
        host=form.host,
        port=form.port,
        state=form.state or row.state,
        settings=_dated(form, row, now),
        key_id=key_id,
        password=sealed,
    )


def _dated(form: RelayForm, row: RelayRow | None, now: int) -> dict[str, object]:
    """The form's settings; a warm-up without a first day keeps the one it had, or begins now."""
    if "warmup" not in form.settings or "warmup_from" in form.settings:
        return form.settings
    was = {} if row is None else row.settings
    began = was.get("warmup_from") if was.get("warmup") == form.settings["warmup"] else None
    return form.settings | {"warmup_from": now if began is None else began}


def _is(row: RelayRow, password: str, sealer: Sealer) -> bool:
    if row.password is None:
        return False
    try:
        return sealer.unseal(row.key_id, row.password, context=row.id) == password.encode()
    except Unsealable:
        return False
