-- What tells a recipient's row that the disk has changed (SQLite).

-- CRC-32 of message id, n and address. NULL: accepted before this revision, so not known.
ALTER TABLE recipients ADD COLUMN crc INTEGER;
