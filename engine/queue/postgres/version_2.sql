-- From version 1, in which one engine at a time had the queue open, to version 2, in which nodes share it.

ALTER TABLE version ADD COLUMN usable_from INTEGER NOT NULL DEFAULT 2;
ALTER TABLE version ALTER COLUMN usable_from DROP DEFAULT;

CREATE TABLE node (
    name        TEXT    COLLATE "C" PRIMARY KEY,
    epoch       BIGINT  NOT NULL UNIQUE,
    version     TEXT    COLLATE "C" NOT NULL,
    since       FLOAT8  NOT NULL,
    beat        FLOAT8  NOT NULL,
    until       FLOAT8  NOT NULL,
    is_lost     BOOLEAN NOT NULL DEFAULT FALSE,
    said        TEXT    COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE SEQUENCE epoch;

CREATE TABLE drained (
    name        TEXT    COLLATE "C" PRIMARY KEY,
    since       FLOAT8  NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL
);

CREATE UNLOGGED TABLE errand (
    id          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch       BIGINT  NOT NULL,
    asker       BIGINT  NOT NULL,
    request     BYTEA   NOT NULL,
    until       FLOAT8  NOT NULL,
    is_taken    BOOLEAN NOT NULL DEFAULT FALSE,
    answer      BYTEA
);

CREATE INDEX errand_epoch ON errand (epoch, id) WHERE NOT is_taken;

-- Triggers of version 1 write to `destination` itself.
DROP TRIGGER entries_added ON entry;
DROP TRIGGER entries_changed ON entry;
DROP TRIGGER entries_left ON entry;

ALTER TABLE entry ADD COLUMN epoch BIGINT;
ALTER TABLE attempt ADD COLUMN node TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE operation ADD COLUMN epoch BIGINT;
ALTER TABLE event ADD COLUMN node TEXT COLLATE "C" NOT NULL DEFAULT '';
-- Of a life that is over: what was being sent, and the orders that were being given.
UPDATE entry SET epoch = 0 WHERE state = 'relaying';
UPDATE operation SET epoch = 0 WHERE NOT finished;
DROP INDEX entry_relaying;
CREATE INDEX entry_relaying ON entry (epoch, message, number) WHERE state = 'relaying';

ALTER TABLE taken_key ADD COLUMN node TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE taken_key DROP CONSTRAINT taken_key_pkey, ADD PRIMARY KEY (key, node);

CREATE TABLE leaving (
    move        TEXT    COLLATE "C" PRIMARY KEY,
    source      TEXT    COLLATE "C" NOT NULL,
    target      TEXT    COLLATE "C" NOT NULL,
    agreed      BOOLEAN NOT NULL
);

CREATE TABLE coming (
    move        TEXT    COLLATE "C" PRIMARY KEY,
    shifts      TEXT    COLLATE "C" NOT NULL,
    batch       TEXT    COLLATE "C" NOT NULL
);
