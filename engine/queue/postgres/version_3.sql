-- From version 2 to version 3: what became of a commit is found by what it wrote, and not by its number. Engines of
-- version 2 go on beside it.

CREATE TABLE conclusion (
    node        TEXT    COLLATE "C" PRIMARY KEY REFERENCES node ON DELETE CASCADE,
    token       BIGINT  NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
