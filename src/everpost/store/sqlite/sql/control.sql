-- Operators' and callers' interventions, and the processes' own housekeeping.

-- The message that a name stands for.
-- name: stands_for
SELECT coalesce(alias_of, id) FROM messages WHERE project = ? AND id = ?;

-- The lifetime counts from the due time, so it moves along.
-- name: reschedule_recipients
UPDATE recipients
SET not_before = :at, expires_at = expires_at + :at - not_before, due = :at <= :now
WHERE message = :message AND project = :project AND state = 'queued' AND attempts = 0;

-- name: reschedule_message
UPDATE messages
SET scheduled_at = :at,
  expires_at = (SELECT max(expires_at) FROM recipients WHERE message = :message)
WHERE project = :project AND id = :message;

-- name: register_worker
INSERT INTO workers (id, role, pid, boot, dots, started_at, seen_at, node)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET role = excluded.role, pid = excluded.pid, boot = excluded.boot, dots = excluded.dots,
  started_at = excluded.started_at, seen_at = excluded.seen_at, node = excluded.node;

-- name: seen_worker
UPDATE workers SET seen_at = ? WHERE id = ?;

-- name: workers
SELECT id, role, pid, boot, dots, started_at, seen_at, node FROM workers ORDER BY started_at, id;

-- name: forget_worker
DELETE FROM workers WHERE id = ?;

-- name: appear
INSERT INTO nodes (name, site, version, address, roles, started_at, seen_at, skew_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET site = excluded.site, version = excluded.version, address = excluded.address,
  roles = excluded.roles, started_at = excluded.started_at, seen_at = excluded.seen_at,
  skew_ms = excluded.skew_ms;

-- name: nodes
SELECT name, site, version, address, roles, started_at, seen_at, skew_ms FROM nodes ORDER BY name;

-- name: disappear
DELETE FROM nodes WHERE name = ?;

-- name: claims_of_owner
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at, r.owner, r.deadline, m.in_doubt
FROM recipients AS r INDEXED BY recipients_claimed
JOIN messages AS m ON m.project = r.project AND m.id = r.message
WHERE r.state = 'claimed' AND r.owner = ? AND r.deadline <= ?
ORDER BY r.deadline LIMIT ?;

-- A deadline that is further ahead than any lease is none: an earlier run of the host left it, or a
-- release that wrote wall time. Whose worker is known is rescued when that one is gone.
-- name: claims_of_anyone
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at, r.owner, r.deadline, m.in_doubt
FROM recipients AS r INDEXED BY recipients_claimed
JOIN messages AS m ON m.project = r.project AND m.id = r.message
WHERE r.state = 'claimed' AND (
    r.deadline <= :until
    OR r.deadline > :beyond AND r.owner NOT IN (SELECT id FROM workers)
  )
ORDER BY r.deadline LIMIT :most;

-- name: held_for
SELECT EXISTS (
  SELECT 1 FROM recipients INDEXED BY recipients_held WHERE state = 'held' AND reason = ?
);

-- name: purge_idempotency
DELETE FROM idempotency WHERE (project, key) IN (
  SELECT project, key FROM idempotency INDEXED BY idempotency_ends
  WHERE expires_at < ? ORDER BY expires_at LIMIT ?
);

-- name: purgeable
SELECT 1 FROM idempotency INDEXED BY idempotency_ends WHERE expires_at < ? LIMIT 1;

-- name: mark_published
INSERT INTO outbox_cursors (consumer, position) VALUES (?, ?)
ON CONFLICT (consumer) DO UPDATE SET position = max(position, excluded.position);

-- name: outbox
SELECT message, seq, recipient, type, at, data, position FROM events
WHERE position > coalesce((SELECT position FROM outbox_cursors WHERE consumer = ?), 0)
ORDER BY position LIMIT ?;
