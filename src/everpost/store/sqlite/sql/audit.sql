-- Pages of facts for the ledger, all rows of messages whose ids lie in a range; and repairs.

-- Where a page ends: the first of the tables to have so many more messages, or the engine's rows of
-- them, bounds it. Rows without a message count too, so no damage makes a page large. NULL: no table
-- has so many.
-- name: audit_upto
SELECT min(id) FROM (
  SELECT (
    SELECT message FROM recipients WHERE message > :after ORDER BY message
    LIMIT 1 OFFSET :limit - 1
  ) AS id
  UNION ALL
  SELECT (
    SELECT message FROM events WHERE message > :after ORDER BY message
    LIMIT 1 OFFSET :limit * 4 - 1
  )
  UNION ALL
  SELECT (
    SELECT message FROM attempts WHERE message > :after ORDER BY message
    LIMIT 1 OFFSET :limit * 4 - 1
  )
  UNION ALL
  SELECT (
    SELECT id FROM contents WHERE id > :after ORDER BY id LIMIT 1 OFFSET :limit - 1
  )
);

-- From one project to the next by skipping: messages are ordered by project first. What is only a
-- further name has nothing of its own to check.
-- name: audit_messages
WITH RECURSIVE p (project) AS (
  SELECT (SELECT project FROM messages ORDER BY project LIMIT 1)
  UNION ALL
  SELECT (SELECT project FROM messages WHERE project > p.project ORDER BY project LIMIT 1)
  FROM p WHERE p.project IS NOT NULL
)
SELECT m.id, m.project, m.content,
  m.content = m.id OR EXISTS (SELECT 1 FROM contents AS c WHERE c.id = m.content)
FROM p CROSS JOIN messages AS m ON m.project = p.project AND m.id > :after AND m.id <= :upto
WHERE m.alias_of IS NULL;

-- name: audit_contents
SELECT id, project, iif(typeof(sealed) = 'blob', sealed, NULL), CAST(checksum AS BLOB) FROM contents
WHERE id > :after AND id <= :upto ORDER BY id;

-- name: audit_recipients
SELECT message, n, project, CAST(state AS BLOB), due, owner, deadline, attempts, settled_at,
  CAST(address AS BLOB), CAST(destination AS BLOB), crc
FROM recipients WHERE message > :after AND message <= :upto ORDER BY message, n;

-- name: audit_events
SELECT message, seq, recipient, CAST(type AS BLOB), CAST(data AS BLOB) FROM events
WHERE message > :after AND message <= :upto ORDER BY message, seq;

-- name: audit_attempts
SELECT message, n, attempt FROM attempts
WHERE message > :after AND message <= :upto ORDER BY message, n, attempt;

-- name: audit_workers
SELECT id FROM workers;

-- name: audit_parts
SELECT n, project, day, CAST(hash AS BLOB), iif(typeof(sealed) = 'blob', sealed, NULL),
  CAST(checksum AS BLOB)
FROM parts WHERE n > ? ORDER BY n LIMIT ?;

-- name: audit_tallies
SELECT project, state, sum(n) FROM tallies GROUP BY project, state;

-- name: audit_counts
SELECT project, state, count(*) FROM recipients GROUP BY project, state;

-- name: audit_last_message
SELECT max(n) FROM messages;

-- name: audit_message_at
SELECT id FROM messages WHERE n >= ? ORDER BY n LIMIT 1;

-- name: audit_schema
SELECT version_num FROM alembic_version;

-- Repairs ------------------------------------------------------------------------------------------

-- name: audited_recipients
SELECT message, n, project, state, due, not_before, owner, term, attempts, crashes
FROM recipients WHERE message = ? ORDER BY n;

-- name: unowned_claim
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at, r.deadline, m.in_doubt
FROM recipients AS r LEFT JOIN messages AS m ON m.project = r.project AND m.id = r.message
WHERE r.message = ? AND r.n = ? AND r.state = 'claimed' AND (
  r.owner IS NULL OR r.deadline IS NULL OR r.owner NOT IN (SELECT id FROM workers)
);

-- name: queue_anew
UPDATE recipients SET due = not_before <= :now
WHERE message = :message AND n = :n AND state = 'queued' AND due NOT IN (0, 1);

-- name: is_orphan
WITH RECURSIVE p (project) AS (
  SELECT (SELECT project FROM messages ORDER BY project LIMIT 1)
  UNION ALL
  SELECT (SELECT project FROM messages WHERE project > p.project ORDER BY project LIMIT 1)
  FROM p WHERE p.project IS NOT NULL
)
SELECT NOT EXISTS (SELECT 1 FROM recipients WHERE message = :id) AND NOT EXISTS (
  SELECT 1 FROM p CROSS JOIN messages AS m ON m.project = p.project AND m.id = :id
);

-- name: orphan_contents
SELECT * FROM contents WHERE id = ?;

-- name: orphan_events
SELECT * FROM events WHERE message = ? ORDER BY seq;

-- name: orphan_attempts
SELECT * FROM attempts WHERE message = ?;

-- name: drop_orphan_contents
DELETE FROM contents WHERE id = ?;

-- name: drop_orphan_events
DELETE FROM events WHERE message = ?;

-- name: drop_orphan_attempts
DELETE FROM attempts WHERE message = ?;
