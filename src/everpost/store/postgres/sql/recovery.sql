-- The processes' own housekeeping, and the outbox.

-- name: register_worker
INSERT INTO workers (id, role, pid, boot, dots, started_at, seen_at, node)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (id) DO UPDATE
SET role = excluded.role, pid = excluded.pid, boot = excluded.boot, dots = excluded.dots,
  started_at = excluded.started_at, seen_at = excluded.seen_at, node = excluded.node;

-- name: seen_worker
UPDATE workers SET seen_at = %s WHERE id = %s;

-- name: workers
SELECT id, role, pid, boot, dots, started_at, seen_at, node FROM workers ORDER BY started_at, id;

-- name: forget_worker
DELETE FROM workers WHERE id = %s;

-- name: appear
INSERT INTO nodes (name, site, version, address, roles, started_at, seen_at, skew_ms)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE
SET site = excluded.site, version = excluded.version, address = excluded.address,
  roles = excluded.roles, started_at = excluded.started_at, seen_at = excluded.seen_at,
  skew_ms = excluded.skew_ms;

-- name: nodes
SELECT name, site, version, address, roles, started_at, seen_at, skew_ms FROM nodes ORDER BY name;

-- name: disappear
DELETE FROM nodes WHERE name = %s;

-- name: claims_of_owner
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at, r.owner, r.deadline, m.in_doubt
FROM recipients AS r
JOIN messages AS m ON m.project = r.project AND m.id = r.message
WHERE r.state = 'claimed' AND r.owner = %s AND r.deadline <= %s
ORDER BY r.deadline LIMIT %s;

-- A deadline that is further ahead than any lease is none. Whose worker is known is rescued when
-- that one is gone.
-- name: claims_of_anyone
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at, r.owner, r.deadline, m.in_doubt
FROM recipients AS r
JOIN messages AS m ON m.project = r.project AND m.id = r.message
WHERE r.state = 'claimed' AND (
    r.deadline <= %(until)s
    OR r.deadline > %(beyond)s
      AND NOT EXISTS (SELECT 1 FROM workers AS w WHERE w.id = r.owner)
  )
ORDER BY r.deadline LIMIT %(most)s;

-- name: held_for
SELECT v.reason FROM unnest(%s::text[]) AS v (reason)
WHERE EXISTS (
  SELECT 1 FROM recipients AS r WHERE r.state = 'held' AND r.reason = v.reason COLLATE "C"
);

-- name: purge_idempotency
DELETE FROM idempotency WHERE (project, key) IN (
  SELECT project, key FROM idempotency
  WHERE expires_at < %s ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
);

-- name: purgeable
SELECT 1 FROM idempotency WHERE expires_at < %s LIMIT 1;

-- name: mark_published
INSERT INTO outbox_cursors (consumer, tx, position)
VALUES (%(consumer)s, %(tx)s::text::xid8, %(position)s)
ON CONFLICT (consumer) DO UPDATE SET tx = excluded.tx, position = excluded.position
WHERE (outbox_cursors.tx, outbox_cursors.position) < (excluded.tx, excluded.position);

-- What a transaction that still runs will have written comes later: nothing beyond it is shown.
-- name: outbox
SELECT e.message, e.seq, e.recipient, e.type, e.at, e.data, e.tx::text, e.position FROM events AS e
WHERE (e.tx, e.position) > (
    coalesce((SELECT tx FROM outbox_cursors WHERE consumer = %(consumer)s), '0'),
    coalesce((SELECT position FROM outbox_cursors WHERE consumer = %(consumer)s), 0)
  )
  AND e.tx < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY e.tx, e.position LIMIT %(most)s;
