-- What doors show. A message that is only a further name stands for another: it is in no list.

-- name: message_ids_older
SELECT id FROM messages WHERE project = :project AND id < :bound AND alias_of IS NULL
ORDER BY id DESC LIMIT :most;

-- name: message_ids_newer
SELECT id FROM messages WHERE project = :project AND id > :bound AND alias_of IS NULL
ORDER BY id LIMIT :most;

-- name: sandbox_ids_older
SELECT id FROM messages INDEXED BY messages_sandbox
WHERE project = :project AND sandbox = 1 AND id < :bound AND alias_of IS NULL ORDER BY id DESC LIMIT :most;

-- name: sandbox_ids_newer
SELECT id FROM messages INDEXED BY messages_sandbox
WHERE project = :project AND sandbox = 1 AND id > :bound AND alias_of IS NULL ORDER BY id LIMIT :most;

-- name: sent_ids_older
SELECT id FROM messages WHERE project = :project AND sandbox = 0 AND id < :bound AND alias_of IS NULL
ORDER BY id DESC LIMIT :most;

-- name: sent_ids_newer
SELECT id FROM messages WHERE project = :project AND sandbox = 0 AND id > :bound AND alias_of IS NULL
ORDER BY id LIMIT :most;

-- name: messages_by_id
SELECT id, project, stream, message_id, sender, subject, lists, tags, metadata, scheduled_at,
  expires_at, in_doubt, dialect, sandbox, durability, size, content
FROM messages WHERE (project, id) IN (VALUES /*rows*/ (?, ?));

-- name: recipients_by_message
SELECT message, n, address, destination, kind, state, reason, route, attempts, not_before,
  expires_at, settled_at, via
FROM recipients WHERE message IN (VALUES /*rows*/ (?)) ORDER BY message, n;

-- name: content
SELECT key_id, sealed, checksum FROM contents WHERE id = ?;

-- name: attempts_of_message
SELECT a.n, a.attempt, a.started_at, a.ended_at, a.detail, a.record
FROM messages AS m JOIN attempts AS a ON a.message = coalesce(m.alias_of, m.id)
WHERE m.project = :project AND m.id = :message
ORDER BY a.started_at, a.n, a.attempt;

-- name: events_of_message
SELECT e.message, e.seq, e.recipient, e.type, e.at, e.data, e.position
FROM messages AS m JOIN events AS e ON e.message = coalesce(m.alias_of, m.id)
WHERE m.project = :project AND m.id = :message
ORDER BY e.seq;

-- name: tallies
SELECT state, sum(n) FROM tallies GROUP BY state;

-- name: due_now
SELECT count(*) FROM (
  SELECT 1 FROM recipients INDEXED BY recipients_queue
  WHERE state = 'queued' AND due = 1 LIMIT :most
);

-- name: due_unseen
SELECT count(*) FROM (
  SELECT 1 FROM recipients INDEXED BY recipients_later
  WHERE state = 'queued' AND due = 0 AND not_before <= :now LIMIT :most
);
