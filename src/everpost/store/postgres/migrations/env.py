"""What Alembic runs around the revisions. Offline only: it prints SQL, it opens no database."""

from alembic import context

from everpost.store.migrate import VERSION_TABLE

context.configure(dialect_name="postgresql", version_table=VERSION_TABLE, transactional_ddl=False)
with context.begin_transaction():
    context.run_migrations()
