-- Claiming. `recipients_queue` holds only what is due, in lanes (priority, route); the lanes are
-- found by skipping from one to the next, so neither a million rows in one lane nor a million that
-- wait for their hour cost anything.

-- name: lanes
WITH RECURSIVE lane (route) AS (
  SELECT (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > :after AND route <= :upto
    ORDER BY route LIMIT 1
  )
  UNION ALL
  SELECT (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > lane.route AND route <= :upto
    ORDER BY route LIMIT 1
  )
  FROM lane WHERE lane.route IS NOT NULL
)
SELECT route FROM lane
WHERE route IS NOT NULL AND route NOT IN (SELECT value FROM json_each(:busy))
LIMIT :most;

-- name: lane_rows
SELECT message, n, project, term, address, destination, route, attempts, crashes, not_before,
  expires_at
FROM recipients INDEXED BY recipients_queue
WHERE state = 'queued' AND due = 1 AND priority = ? AND route = ? AND not_before <= ?
ORDER BY not_before, message, n LIMIT ? OFFSET ?;

-- One row of each of many lanes, in their order, `most` in all: a statement a lane costs seven times as much.
-- name: one_of_each_lane
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at
FROM json_each(:lanes) AS lane
CROSS JOIN recipients AS r ON (r.message, r.n) = (
  SELECT message, n FROM recipients INDEXED BY recipients_queue
  WHERE state = 'queued' AND due = 1 AND priority = :priority AND route = lane.value
    AND not_before <= :now
  ORDER BY not_before, message, n LIMIT 1 OFFSET :offset
)
LIMIT :most;

-- name: has_come_due
SELECT 1 FROM recipients INDEXED BY recipients_later
WHERE state = 'queued' AND due = 0 AND not_before <= ? LIMIT 1;

-- name: promote_due
UPDATE OR FAIL recipients SET due = 1 WHERE (message, n) IN (
  SELECT message, n FROM recipients INDEXED BY recipients_later
  WHERE state = 'queued' AND due = 0 AND not_before <= ? ORDER BY not_before LIMIT ?
);

-- name: next_later
SELECT not_before FROM recipients INDEXED BY recipients_later
WHERE state = 'queued' AND due = 0 ORDER BY not_before LIMIT 1;

-- The earliest row of each lane; `most` bounds the lanes looked at.
-- name: lane_heads
WITH RECURSIVE lane (priority, route) AS (
  SELECT column1, '' FROM (VALUES (0), (1))
  UNION ALL
  SELECT priority, (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = lane.priority AND route > lane.route
    ORDER BY route LIMIT 1
  )
  FROM lane WHERE lane.route IS NOT NULL LIMIT :most
)
SELECT min((
  SELECT not_before FROM recipients INDEXED BY recipients_queue
  WHERE state = 'queued' AND due = 1 AND priority = lane.priority AND route = lane.route
  ORDER BY not_before LIMIT 1
)) FROM lane WHERE route IS NOT NULL AND route NOT IN (SELECT value FROM json_each(:busy));

-- name: set_claimed
UPDATE OR FAIL recipients
SET state = 'claimed', owner = ?, deadline = ?, term = term + 1
WHERE (message, n) IN (VALUES /*rows*/ (?, ?));

-- name: claimed_messages
SELECT m.id, m.project, m.stream, m.sender, m.in_doubt, m.return_token, m.sandbox, m.size,
  m.content, c.key_id, c.checksum, iif(length(c.sealed) <= ?, c.sealed, NULL), m.tags, m.only_relay
FROM messages AS m LEFT JOIN contents AS c ON c.id = m.content
WHERE (m.project, m.id) IN (VALUES /*rows*/ (?, ?));

-- name: body_hashes
SELECT message, form, body_hash FROM attempts
WHERE message IN (VALUES /*rows*/ (?)) AND form IS NOT NULL AND body_hash IS NOT NULL
ORDER BY started_at, attempt, n;

-- The plus signs keep the planner on the primary key: the index of claims would walk all of an
-- owner's claims for each chunk.
-- name: extend_claims
UPDATE OR FAIL recipients SET deadline = ?
WHERE +state = 'claimed' AND +owner = ? AND (message, n, term) IN (VALUES /*rows*/ (?, ?, ?))
RETURNING message, n, term;

-- name: parts
SELECT day, hash, key_id, sealed, checksum FROM parts
WHERE (project, day, hash) IN (VALUES /*rows*/ (?, ?, ?));
