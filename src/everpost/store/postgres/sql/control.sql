-- Operators' and callers' interventions.

-- The message that a name stands for.
-- name: stands_for
SELECT coalesce(alias_of, id) FROM messages WHERE project = %s AND id = %s;

-- The lifetime counts from the due time, so it moves along.
-- name: reschedule_recipients
UPDATE recipients
SET not_before = %(at)s, expires_at = expires_at + %(at)s - not_before,
  due = CASE WHEN %(at)s::bigint <= %(now)s::bigint THEN 1 ELSE 0 END
WHERE message = %(message)s AND project = %(project)s AND state = 'queued' AND attempts = 0;

-- name: reschedule_message
UPDATE messages
SET scheduled_at = %(at)s,
  expires_at = (SELECT max(expires_at) FROM recipients WHERE message = %(message)s)
WHERE project = %(project)s AND id = %(message)s;
