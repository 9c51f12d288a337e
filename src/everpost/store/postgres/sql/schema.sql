-- Which schema there is.

-- Whoever comes second waits here. The number is "EVpr".
-- name: schema_alone
SELECT pg_advisory_xact_lock(1163292786);

-- name: schema_tables
SELECT count(*) > 0, coalesce(bool_or(tablename = 'alembic_version'), false)
FROM pg_tables WHERE schemaname = current_schema();

-- name: schema_revision
SELECT version_num FROM alembic_version;

-- name: schema_oldest
SELECT word FROM meta WHERE key = 'oldest' AND word IS NOT NULL;
