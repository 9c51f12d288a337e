-- Claiming. `recipients_queue` holds only what is due, in lanes (priority, route). A route reads
-- project/stream/destination, so the queue's projects, a project's streams and a stream's lanes are
-- found by skipping from one to the next: neither a million rows in one lane, nor ten thousand
-- lanes, nor a million rows that wait for their hour cost anything. A row that has been due stays so:
-- a wall clock that is set back strands nothing. A route of a release before
-- 0002 has no slash: it is a project of its own. `busy` names lanes, and by what they end with (a
-- slash) whole projects and streams; `last` sorts after every character.

-- The first and the last route: mostly they are of one stream, and that is all there is.
-- name: queue_ends
SELECT (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority ORDER BY route LIMIT 1
  ), (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority ORDER BY route DESC LIMIT 1
  );

-- name: queued_projects
WITH RECURSIVE head (route, room) AS (
  SELECT (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > :after AND route <= :upto
    ORDER BY route LIMIT 1
  ), :most
  UNION ALL
  SELECT (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > iif(
        instr(head.route, '/'), substr(head.route, 1, instr(head.route, '/')) || :last, head.route
      )
      AND route <= :upto
    ORDER BY route LIMIT 1
  ), room - 1
  FROM head WHERE head.route IS NOT NULL AND room > 1
)
SELECT iif(instr(route, '/'), substr(route, 1, instr(route, '/')), route) AS project,
  coalesce((
    SELECT weight FROM projects
    WHERE id = iif(instr(route, '/'), CAST(substr(route, 1, instr(route, '/')) AS INTEGER), NULL)
  ), 1)
FROM head WHERE route IS NOT NULL;

-- The streams of several projects, each given as [after, upto]; `most` of each.
-- name: queued_streams
WITH RECURSIVE head (n, upto, route, room) AS (
  SELECT key, value ->> 1, (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > value ->> 0 AND route <= value ->> 1
    ORDER BY route LIMIT 1
  ), :most
  FROM json_each(:ranges)
  UNION ALL
  SELECT n, upto, (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > substr(
        head.route, 1,
        instr(head.route, '/') + instr(substr(head.route, instr(head.route, '/') + 1), '/')
      ) || :last
      AND route <= head.upto
    ORDER BY route LIMIT 1
  ), room - 1
  FROM head WHERE head.route IS NOT NULL AND room > 1
)
SELECT n, substr(
    route, 1, instr(route, '/') + instr(substr(route, instr(route, '/') + 1), '/')
  ) AS stream,
  coalesce((
    SELECT weight FROM streams
    WHERE project = CAST(substr(route, 1, instr(route, '/')) AS INTEGER) AND name = substr(
      route, instr(route, '/') + 1, instr(substr(route, instr(route, '/') + 1), '/') - 1
    )
  ), 1)
FROM head WHERE route IS NOT NULL;

-- The lanes of several streams, each given as [after, upto, most].
-- name: queued_lanes
WITH RECURSIVE head (n, upto, route, room) AS (
  SELECT key, value ->> 1, (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > value ->> 0 AND route <= value ->> 1
    ORDER BY route LIMIT 1
  ), value ->> 2
  FROM json_each(:ranges)
  UNION ALL
  SELECT n, upto, (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
      AND route > head.route AND route <= head.upto
    ORDER BY route LIMIT 1
  ), room - 1
  FROM head WHERE head.route IS NOT NULL AND room > 1
)
SELECT n, route FROM head WHERE route IS NOT NULL;

-- Lanes in order, whoever's they are.
-- name: lanes
WITH RECURSIVE lane (route) AS (
  SELECT (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority
    ORDER BY route LIMIT 1
  )
  UNION ALL
  SELECT (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = :priority AND route > coalesce(
        (
          SELECT value || :last FROM json_each(:busy_groups)
          WHERE substr(lane.route, 1, length(value)) = value
        ),
        lane.route
      )
    ORDER BY route LIMIT 1
  )
  FROM lane WHERE lane.route IS NOT NULL
)
SELECT route FROM lane
WHERE route IS NOT NULL AND route NOT IN (SELECT value FROM json_each(:busy))
  AND NOT EXISTS (
    SELECT 1 FROM json_each(:busy_groups) WHERE substr(lane.route, 1, length(value)) = value
  )
LIMIT :most;

-- `share` rows of each of many lanes, in no order: a statement a lane costs several times as much.
-- name: rows_of_lanes
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at, r.crc
FROM json_each(:lanes) AS lane
CROSS JOIN recipients AS r ON (r.message, r.n) IN (
  SELECT message, n FROM recipients INDEXED BY recipients_queue
  WHERE state = 'queued' AND due = 1 AND priority = :priority AND route = lane.value
  ORDER BY not_before, message, n LIMIT :share
);

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
  SELECT column1, '' FROM (VALUES (0), (1)) WHERE column1 <= :priority
  UNION ALL
  SELECT priority, (
    SELECT route FROM recipients INDEXED BY recipients_queue
    WHERE state = 'queued' AND due = 1 AND priority = lane.priority AND route > coalesce(
        (
          SELECT value || :last FROM json_each(:busy_groups)
          WHERE substr(lane.route, 1, length(value)) = value
        ),
        lane.route
      )
    ORDER BY route LIMIT 1
  )
  FROM lane WHERE lane.route IS NOT NULL LIMIT :most
)
SELECT min((
  SELECT not_before FROM recipients INDEXED BY recipients_queue
  WHERE state = 'queued' AND due = 1 AND priority = lane.priority AND route = lane.route
  ORDER BY not_before LIMIT 1
)) FROM lane
WHERE route IS NOT NULL AND route NOT IN (SELECT value FROM json_each(:busy))
  AND NOT EXISTS (
    SELECT 1 FROM json_each(:busy_groups) WHERE substr(lane.route, 1, length(value)) = value
  );

-- An index that was changed may lead to what is not queued at all: it would be sent again and again.
-- name: set_claimed
UPDATE OR FAIL recipients
SET state = 'claimed', owner = ?, deadline = ?, term = term + 1
WHERE +state = 'queued' AND (message, n) IN (VALUES /*rows*/ (?, ?));

-- Of what is queued and due, the rows with text beyond printable ASCII, as bytes: what is not UTF-8
-- any more is among them.
-- name: queued_beyond_ascii
SELECT message, n, CAST(address AS BLOB), CAST(destination AS BLOB), CAST(route AS BLOB)
FROM recipients
WHERE state = 'queued' AND due = 1 AND (
  address GLOB '*[^ -~]*' OR destination GLOB '*[^ -~]*' OR route GLOB '*[^ -~]*'
  OR typeof(address) || typeof(destination) || typeof(route) <> 'texttexttext'
);

-- Of what is queued and due, the rows whose numbers are none any more: such a row could not even be
-- held. Nobody knows how long it was to live: no longer.
-- name: mend_numbers
UPDATE recipients SET
  term = iif(typeof(term) = 'integer', term, 0),
  attempts = iif(typeof(attempts) = 'integer', attempts, 0),
  crashes = iif(typeof(crashes) = 'integer', crashes, 0),
  not_before = iif(typeof(not_before) = 'integer', not_before, :now),
  expires_at = iif(typeof(expires_at) = 'integer', expires_at, :now)
WHERE state = 'queued' AND due = 1 AND
  typeof(term) || typeof(attempts) || typeof(crashes) || typeof(not_before) || typeof(expires_at)
  <> 'integerintegerintegerintegerinteger'
RETURNING message, n;

-- The same of claims that a process left.
-- name: mend_claimed_numbers
UPDATE recipients SET
  term = iif(typeof(term) = 'integer', term, 0),
  attempts = iif(typeof(attempts) = 'integer', attempts, 0),
  crashes = iif(typeof(crashes) = 'integer', crashes, 0),
  not_before = iif(typeof(not_before) = 'integer', not_before, ?),
  expires_at = iif(typeof(expires_at) = 'integer', expires_at, ?)
WHERE +state = 'claimed' AND (message, n) IN (VALUES /*rows*/ (?, ?)) AND
  typeof(term) || typeof(attempts) || typeof(crashes) || typeof(not_before) || typeof(expires_at)
  <> 'integerintegerintegerintegerinteger'
RETURNING message, n;

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
