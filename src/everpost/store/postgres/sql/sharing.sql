-- What processes tell each other: notes, leases, shares of limits.

-- One counter for all notes: it must not fall back when the newest note is purged. Whoever counts
-- holds it until COMMIT, so that versions are in commit order.
-- name: count_notes
INSERT INTO meta (key, value) VALUES ('notes', %s)
ON CONFLICT (key) DO UPDATE SET value = meta.value + excluded.value
RETURNING value;

-- name: newest_note
SELECT value FROM meta WHERE key = 'notes';

-- name: put_notes
INSERT INTO notes (kind, key, data, expires_at, version)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[])
ON CONFLICT (kind, key) DO UPDATE
SET data = excluded.data, expires_at = excluded.expires_at, version = excluded.version;

-- name: notes_after
SELECT kind, key, data, expires_at, version FROM notes
WHERE version > %s AND expires_at > %s ORDER BY version;

-- Whoever reads all that holds looks at these kinds alone: a month has many thousands of greylists.
-- name: notes_of_kinds
SELECT kind, key, data, expires_at, version FROM notes
WHERE kind = ANY (%s::text[]) AND expires_at > %s ORDER BY version;

-- name: lease_of
SELECT owner, term, deadline FROM leases WHERE name = %s;

-- Nobody's, and over: so that there is a row to lock.
-- name: make_lease
INSERT INTO leases (name, owner, term, deadline) VALUES (%s, '', 0, 0) ON CONFLICT DO NOTHING;

-- name: lock_lease
SELECT owner, term, deadline FROM leases WHERE name = %s FOR UPDATE;

-- name: put_lease
UPDATE leases SET owner = %s, term = %s, deadline = %s WHERE name = %s;

-- The row stays, for its term.
-- name: yield_lease
UPDATE leases SET deadline = 0 WHERE name = %s AND owner = %s;

-- One at a time divides limits: what it reads holds until COMMIT. The number is "EVsh".
-- name: share_alone
SELECT pg_advisory_xact_lock(1163293544);

-- name: processes_that_share
SELECT id FROM workers WHERE role = 'dispatch';

-- name: seats_by_name
SELECT name, owner, amount, want, ends_at FROM seats WHERE name = ANY (%s::text[]);

-- name: put_seats
INSERT INTO seats (name, owner, amount, want, ends_at)
SELECT * FROM unnest(%s::text[], %s::bytea[], %s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (name, owner) DO UPDATE
SET amount = excluded.amount, want = excluded.want, ends_at = excluded.ends_at;

-- name: drop_seats
DELETE FROM seats WHERE (name, owner) IN (SELECT * FROM unnest(%s::text[], %s::bytea[]));

-- name: drop_seats_of_owner
DELETE FROM seats WHERE owner = %s;

-- name: budgets_by_name
SELECT name, starts_at, granted FROM budgets WHERE name = ANY (%s::text[]);

-- name: put_budgets
INSERT INTO budgets (name, starts_at, ends_at, granted)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (name) DO UPDATE
SET starts_at = excluded.starts_at, ends_at = excluded.ends_at, granted = excluded.granted;

-- name: purge_notes
DELETE FROM notes WHERE expires_at < %(before)s;

-- name: purge_seats
DELETE FROM seats WHERE ends_at < %(steady)s OR ends_at > %(beyond)s;

-- name: purge_budgets
DELETE FROM budgets WHERE ends_at < %(before)s;

-- name: purgeable_shares
SELECT 1 WHERE EXISTS (SELECT 1 FROM notes WHERE expires_at < %(before)s)
  OR EXISTS (SELECT 1 FROM seats WHERE ends_at < %(steady)s OR ends_at > %(beyond)s)
  OR EXISTS (SELECT 1 FROM budgets WHERE ends_at < %(before)s);
