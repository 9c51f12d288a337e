-- What is held, found by its reason without a walk over all recipients (SQLite).

CREATE INDEX recipients_held ON recipients (reason) WHERE state = 'held';
