-- The least that an acceptance of their mail may mean; NULL: they demand nothing (SQLite).

ALTER TABLE projects ADD COLUMN durability TEXT;
ALTER TABLE streams ADD COLUMN durability TEXT;
