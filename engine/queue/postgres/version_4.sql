-- From version 3 to version 4: addresses to which no new mail is taken are kept. Engines of version 2 go on beside it.

CREATE TABLE suppressed (
    address     TEXT    COLLATE "C" PRIMARY KEY,
    since       FLOAT8  NOT NULL,
    until       FLOAT8,
    by          TEXT    COLLATE "C" NOT NULL,
    reply       TEXT    COLLATE "C" NOT NULL,
    note        TEXT    COLLATE "C" NOT NULL
);
CREATE INDEX suppressed_since ON suppressed (since) WHERE by = 'engine';
CREATE INDEX suppressed_until ON suppressed (until) WHERE until IS NOT NULL;
