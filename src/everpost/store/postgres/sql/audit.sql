-- Pages of facts for the ledger, all rows of messages whose ids lie in a range; and repairs.

-- Where a page ends: the first of the tables to have so many more messages, or the engine's rows of
-- them, bounds it. Rows without a message count too, so no damage makes a page large. NULL: no table
-- has so many.
-- name: audit_upto
SELECT (SELECT id FROM (
  (
    SELECT message AS id FROM recipients WHERE message > %(after)s ORDER BY message
    LIMIT 1 OFFSET %(limit)s - 1
  )
  UNION ALL
  (
    SELECT message FROM events WHERE message > %(after)s ORDER BY message
    LIMIT 1 OFFSET %(limit)s * 4 - 1
  )
  UNION ALL
  (
    SELECT message FROM attempts WHERE message > %(after)s ORDER BY message
    LIMIT 1 OFFSET %(limit)s * 4 - 1
  )
  UNION ALL
  (SELECT id FROM contents WHERE id > %(after)s ORDER BY id LIMIT 1 OFFSET %(limit)s - 1)
) AS ends ORDER BY id LIMIT 1);

-- From one project to the next by skipping: messages are ordered by project first. What is only a
-- further name has nothing of its own to check.
-- name: audit_messages
WITH RECURSIVE p (project) AS (
  (SELECT project FROM messages ORDER BY project LIMIT 1)
  UNION ALL
  SELECT (SELECT m.project FROM messages AS m WHERE m.project > p.project ORDER BY m.project LIMIT 1)
  FROM p WHERE p.project IS NOT NULL
)
SELECT m.id, m.project, m.content, EXISTS (SELECT 1 FROM contents AS c WHERE c.id = m.content)
FROM p CROSS JOIN LATERAL (
  SELECT id, project, content FROM messages
  WHERE messages.project = p.project AND id > %(after)s AND id <= %(upto)s AND alias_of IS NULL
  ORDER BY id
) AS m;

-- Large ones come by themselves: one at a time is in memory.
-- name: audit_contents
SELECT id, project, CASE WHEN octet_length(sealed) <= %(whole)s THEN sealed END, checksum
FROM contents WHERE id > %(after)s AND id <= %(upto)s ORDER BY id;

-- name: audit_content
SELECT sealed FROM contents WHERE id = %s;

-- name: audit_recipients
SELECT message, n, project, state, due, owner, deadline, attempts, settled_at, address, destination,
  crc
FROM recipients WHERE message > %(after)s AND message <= %(upto)s ORDER BY message, n;

-- name: audit_events
SELECT message, seq, recipient, type, data FROM events
WHERE message > %(after)s AND message <= %(upto)s ORDER BY message, seq;

-- name: audit_attempts
SELECT message, n, attempt FROM attempts
WHERE message > %(after)s AND message <= %(upto)s ORDER BY message, n, attempt;

-- name: audit_workers
SELECT id FROM workers;

-- name: audit_parts
SELECT n, project, day, hash, checksum FROM parts WHERE n > %s ORDER BY n LIMIT %s;

-- name: audit_part
SELECT sealed FROM parts WHERE project = %s AND day = %s AND hash = %s;

-- name: audit_tallies
SELECT project, state, sum(n)::bigint FROM tallies GROUP BY project, state;

-- name: audit_counts
SELECT project, state, count(*) FROM recipients GROUP BY project, state;

-- A few rows of so many of the table's pages, which lie about in the order in which they came.
-- name: audit_sample
SELECT id FROM messages WHERE ctid = ANY (ARRAY(
  SELECT format('(%%s,%%s)', page, line)::tid
  FROM generate_series(
    0, greatest(pg_relation_size('messages') / current_setting('block_size')::bigint - 1, 0),
    greatest(pg_relation_size('messages') / current_setting('block_size')::bigint / 1000, 1)
  ) AS page, generate_series(1, 4) AS line
));

-- name: audit_schema
SELECT version_num FROM alembic_version;

-- name: audit_checksums
SELECT current_setting('data_checksums') = 'on', checksum_failures,
  to_char(checksum_last_failure, 'YYYY-MM-DD"T"HH24:MI:SSOF')
FROM pg_stat_database WHERE datname = current_database();

-- name: audit_amcheck
SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'amcheck');

-- Our tables with rows, and what the extension has to say of each.
-- name: audit_tables
SELECT c.oid::regclass::text FROM pg_class AS c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' ORDER BY 1;

-- name: audit_heap
SELECT blkno, msg FROM verify_heapam(%s::regclass) LIMIT 100;

-- name: audit_indexes
SELECT c.oid::regclass::text FROM pg_class AS c
JOIN pg_index AS i ON i.indexrelid = c.oid
JOIN pg_am AS a ON a.oid = c.relam AND a.amname = 'btree'
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'i'
  AND i.indisready AND i.indisvalid ORDER BY 1;

-- name: audit_index
SELECT bt_index_check(%s::regclass, true);

-- Repairs ------------------------------------------------------------------------------------------

-- name: audited_recipients
SELECT message, n, project, state, due, not_before, owner, term, attempts, crashes
FROM recipients WHERE message = %s ORDER BY n FOR UPDATE;

-- name: unowned_claim
SELECT r.message, r.n, r.project, r.term, r.address, r.destination, r.route, r.attempts, r.crashes,
  r.not_before, r.expires_at, r.deadline, m.in_doubt, r.owner
FROM recipients AS r LEFT JOIN messages AS m ON m.project = r.project AND m.id = r.message
WHERE r.message = %s AND r.n = %s AND r.state = 'claimed' AND (
  r.owner IS NULL OR r.deadline IS NULL
  OR NOT EXISTS (SELECT 1 FROM workers AS w WHERE w.id = r.owner)
);

-- name: queue_anew
UPDATE recipients SET due = (not_before <= %(now)s)::int
WHERE message = %(message)s AND n = %(n)s AND state = 'queued' AND due NOT IN (0, 1);

-- name: is_orphan
WITH RECURSIVE p (project) AS (
  (SELECT project FROM messages ORDER BY project LIMIT 1)
  UNION ALL
  SELECT (SELECT m.project FROM messages AS m WHERE m.project > p.project ORDER BY m.project LIMIT 1)
  FROM p WHERE p.project IS NOT NULL
)
SELECT (
  NOT EXISTS (SELECT 1 FROM recipients WHERE message = %(id)s)
  AND NOT EXISTS (
    SELECT 1 FROM p JOIN messages AS m ON m.project = p.project AND m.id = %(id)s
  )
)::int;

-- name: orphan_contents
SELECT id, project, key_id, sealed, checksum FROM contents WHERE id = %s;

-- name: orphan_events
SELECT position, tx::text AS tx, message, seq, recipient, type, at, data
FROM events WHERE message = %s ORDER BY seq;

-- name: orphan_attempts
SELECT message, n, attempt, transaction_id, started_at, ended_at, outcome, detail, record, form,
  body_hash
FROM attempts WHERE message = %s ORDER BY n, attempt;

-- name: drop_orphan_contents
DELETE FROM contents WHERE id = %s;

-- name: drop_orphan_events
DELETE FROM events WHERE message = %s;

-- name: drop_orphan_attempts
DELETE FROM attempts WHERE message = %s;
