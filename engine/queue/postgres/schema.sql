-- The store's tables in PostgreSQL, version 4, in a schema of their own. One row of `entry` is one recipient of one
-- message. Texts are compared by their octets (COLLATE "C"), as names of hosts and addresses are.
-- What functions and triggers do stands in functions.sql.

CREATE TABLE version (
    number      INTEGER NOT NULL,
    usable_from INTEGER NOT NULL                    -- the oldest version whose engines can go on with these tables
);
INSERT INTO version VALUES (4, 2);

CREATE TABLE node (                                 -- the engines that share this queue
    name        TEXT    COLLATE "C" PRIMARY KEY,
    epoch       BIGINT  NOT NULL UNIQUE,            -- of its present life: what it claims carries it
    version     TEXT    COLLATE "C" NOT NULL,
    since       FLOAT8  NOT NULL,                   -- times are of this server
    beat        FLOAT8  NOT NULL,
    until       FLOAT8  NOT NULL,                   -- its lease: after that it sends nothing, and others take over
    is_lost     BOOLEAN NOT NULL DEFAULT FALSE,     -- they have; it does nothing more under this epoch
    said        TEXT    COLLATE "C" NOT NULL DEFAULT ''  -- what it says of itself, as JSON
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE conclusion (                           -- which transaction each node has committed last
    node        TEXT    COLLATE "C" PRIMARY KEY REFERENCES node ON DELETE CASCADE,
    token       BIGINT  NOT NULL                    -- drawn for it: the number of a transaction may be given again
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE SEQUENCE epoch;                              -- never given twice

CREATE TABLE drained (                              -- nodes that take and send nothing until that is undone
    name        TEXT    COLLATE "C" PRIMARY KEY,    -- whatever life of that name it is
    since       FLOAT8  NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL
);

CREATE UNLOGGED TABLE errand (                      -- what one node asks another; it is gone with the server's life
    id          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch       BIGINT  NOT NULL,                   -- of who is asked: a later life does not answer it
    asker       BIGINT  NOT NULL,                   -- the epoch of who asks
    request     BYTEA   NOT NULL,
    until       FLOAT8  NOT NULL,                   -- nobody waits for the answer any more
    is_taken    BOOLEAN NOT NULL DEFAULT FALSE,
    answer      BYTEA                               -- NULL: none yet; empty: it could not be answered
);

CREATE INDEX errand_epoch ON errand (epoch, id) WHERE NOT is_taken;

CREATE TABLE message (
    number      BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never given twice
    sender      TEXT    COLLATE "C" NOT NULL,       -- "" is the null reverse-path
    size        BIGINT  NOT NULL,
    arrived     FLOAT8  NOT NULL,
    expires     FLOAT8  NOT NULL,
    origin      TEXT    COLLATE "C" NOT NULL,
    subject     TEXT    COLLATE "C" NOT NULL,
    message_id  TEXT    COLLATE "C" NOT NULL,
    eight_bit   BOOLEAN NOT NULL,
    smtputf8    BOOLEAN NOT NULL,
    tell_at     FLOAT8,                             -- when the sender is told of what is in `untold`; NULL: of nothing
    tellings    INTEGER NOT NULL DEFAULT 0,         -- how often the sender has been told
    given_back  BOOLEAN NOT NULL DEFAULT FALSE,     -- its content has gone back whole with one of these
    ret         TEXT    COLLATE "C" NOT NULL CHECK (ret IN ('', 'FULL', 'HDRS')),
    envid       TEXT    COLLATE "C" NOT NULL        -- xtext, as it came
);

CREATE INDEX message_tell_at ON message (tell_at) WHERE tell_at IS NOT NULL;

CREATE TABLE untold (                               -- recipients that are settled, and of which nobody is told yet
    message     BIGINT  NOT NULL REFERENCES message ON DELETE CASCADE,
    number      INTEGER NOT NULL,                   -- that of the entry
    recipient   TEXT    COLLATE "C" NOT NULL,
    orcpt       TEXT    COLLATE "C" NOT NULL,
    action      TEXT    COLLATE "C" NOT NULL CHECK (action IN ('failed', 'relayed')),
    outcome     TEXT    COLLATE "C" NOT NULL,       -- Outcome as JSON
    at          FLOAT8  NOT NULL,                   -- when it was settled
    PRIMARY KEY (message, number)
);

CREATE TABLE body (                                 -- apart from rows that change: these are written once
    message     BIGINT  PRIMARY KEY REFERENCES message ON DELETE CASCADE,
    sha256      BYTEA   NOT NULL,
    content     BYTEA   NOT NULL
);
ALTER TABLE body ALTER COLUMN content SET STORAGE EXTERNAL;  -- so that a part of it is read without the rest

CREATE TABLE destination (
    name          TEXT    COLLATE "C" PRIMARY KEY,
    site          TEXT    COLLATE "C" NOT NULL,     -- those of one site share connections; '@' || name: not known yet
    waiting       BIGINT  NOT NULL DEFAULT 0,       -- these counts and the edge are kept by triggers on entry
    held          BIGINT  NOT NULL DEFAULT 0,
    relaying      BIGINT  NOT NULL DEFAULT 0,
    edge          FLOAT8,                           -- when the first waiting entry is due
    turn          BIGINT  NOT NULL,                 -- grows with every claim; the smallest is served next
    blocked_until FLOAT8  NOT NULL DEFAULT 0,       -- 0 again once it has taken mail
    blocked_why   TEXT    COLLATE "C" NOT NULL DEFAULT '',
    blocked_cause TEXT    COLLATE "C" NOT NULL DEFAULT '',
    last          TEXT    COLLATE "C",              -- Outcome as JSON
    last_at       FLOAT8,
    touched       FLOAT8  NOT NULL,                 -- last activity, for pruning
    unreached_at  FLOAT8  NOT NULL DEFAULT 0,       -- when no connection could be had last; 0: it has taken mail since
    took_at       FLOAT8  NOT NULL DEFAULT 0,       -- when it took mail, to the hour; 0: it has to prove itself (again)
    ready         FLOAT8  GENERATED ALWAYS AS (CASE WHEN edge IS NOT NULL THEN greatest(edge, blocked_until) END) STORED
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX destination_site     ON destination (site, turn, name, ready) WHERE ready IS NOT NULL;
CREATE INDEX destination_ready    ON destination (ready)             WHERE ready IS NOT NULL;
CREATE INDEX destination_proved   ON destination (turn, name, ready) WHERE ready IS NOT NULL AND took_at > 0;
CREATE INDEX destination_doubtful ON destination (turn, name, ready) WHERE ready IS NOT NULL AND took_at = 0;
CREATE INDEX destination_failed   ON destination (turn, name, ready)
    WHERE ready IS NOT NULL AND took_at = 0 AND blocked_until > 0;
CREATE INDEX destination_took     ON destination (site)              WHERE took_at > 0;

CREATE TABLE entry (
    message      BIGINT  NOT NULL REFERENCES message ON DELETE CASCADE,
    number       INTEGER NOT NULL,
    recipient    TEXT    COLLATE "C" NOT NULL,
    destination  TEXT    COLLATE "C" NOT NULL REFERENCES destination,
    state        TEXT    COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'relaying', 'held')),
    due          FLOAT8  NOT NULL,
    expires      FLOAT8  NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    last         TEXT    COLLATE "C",               -- Outcome as JSON
    last_line    TEXT    COLLATE "C" NOT NULL DEFAULT '',  -- the same as filters look at it: "550 5.1.1 no such user"
    reason_key   TEXT    COLLATE "C",               -- and without what varies: see engine.model.reason; NULL: no reply yet
    last_at      FLOAT8,
    notify       TEXT    COLLATE "C" NOT NULL DEFAULT '',  -- of RFC 3461 4.1: '', 'NEVER' or a list
    orcpt        TEXT    COLLATE "C" NOT NULL DEFAULT '',  -- type and xtext, as it came
    notice_at    FLOAT8,                            -- when the sender is told of the delay; NULL: not, or not again
    giving_up    BOOLEAN NOT NULL DEFAULT FALSE,    -- relaying only to be returned, nothing is dialled for it
    ordered      TEXT    COLLATE "C" CHECK (ordered IN ('hold', 'bounce', 'drop')),
    ordered_by   TEXT    COLLATE "C" NOT NULL DEFAULT '',
    note         TEXT    COLLATE "C" NOT NULL DEFAULT '',
    operation    BIGINT,                            -- of a bounce or drop: what undo names, and says when it is due
    prior        TEXT    COLLATE "C" NOT NULL DEFAULT '' CHECK (prior IN ('', 'waiting', 'held')),
    prior_by     TEXT    COLLATE "C" NOT NULL DEFAULT '',  -- before the bounce or drop; "held" had these words
    prior_note   TEXT    COLLATE "C" NOT NULL DEFAULT '',
    rule         BIGINT,                            -- the hold rule that holds it
    counted      BIGINT,                            -- the bounce or drop that has counted its message already
    postponed_at FLOAT8,                            -- when it was ordered to be due at `due`; NULL: it is by itself
    postponed_by TEXT    COLLATE "C" NOT NULL DEFAULT '',  -- and by whom
    epoch        BIGINT,                            -- of the node that claimed it last
    PRIMARY KEY (message, number)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX entry_destination ON entry (destination, message, number);
CREATE INDEX entry_due         ON entry (destination, due, message, number) WHERE state = 'waiting';
CREATE INDEX entry_fresh       ON entry (destination, due, message, number) WHERE state = 'waiting' AND attempts = 0;
CREATE INDEX entry_expires     ON entry (expires, message, number) WHERE state = 'waiting';
CREATE INDEX entry_relaying    ON entry (epoch, message, number) WHERE state = 'relaying';
CREATE INDEX entry_notice      ON entry (notice_at)       WHERE state = 'waiting' AND notice_at IS NOT NULL;
CREATE INDEX entry_reason      ON entry (reason_key, destination) WHERE reason_key IS NOT NULL;
CREATE INDEX entry_operation   ON entry (operation, message, number) WHERE operation IS NOT NULL;
CREATE INDEX entry_postponed   ON entry (postponed_by)    WHERE postponed_by <> '';
CREATE INDEX entry_rule        ON entry (rule, message, number) WHERE rule IS NOT NULL;

CREATE TABLE attempt (
    id          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never given twice
    message     BIGINT  NOT NULL REFERENCES message ON DELETE CASCADE,
    entry       INTEGER NOT NULL,
    relayer     INTEGER NOT NULL,
    started     FLOAT8  NOT NULL,
    ended       FLOAT8,
    outcome     TEXT    COLLATE "C",                -- Outcome as JSON
    interrupted BOOLEAN NOT NULL DEFAULT FALSE,
    node        TEXT    COLLATE "C" NOT NULL DEFAULT ''  -- whose attempt it is
);

CREATE INDEX attempt_message ON attempt (message);

CREATE TABLE taken_key (
    key         TEXT    COLLATE "C" NOT NULL,
    node        TEXT    COLLATE "C" NOT NULL DEFAULT '',  -- whose key it is: their drop folders are not the same; '': any
    message     BIGINT  NOT NULL,                   -- the number it had; the message may have left since
    PRIMARY KEY (key, node)
);

CREATE TABLE exchange (
    destination TEXT    COLLATE "C" NOT NULL REFERENCES destination ON DELETE CASCADE,
    preference  INTEGER NOT NULL,                   -- 0 is the best
    host        TEXT    COLLATE "C" NOT NULL,
    PRIMARY KEY (destination, preference)
);

CREATE INDEX exchange_host ON exchange (host);

CREATE TABLE suspension (
    destination TEXT    COLLATE "C" PRIMARY KEY,    -- "*" is the whole relay
    since       FLOAT8  NOT NULL,
    until       FLOAT8  NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL,
    note        TEXT    COLLATE "C" NOT NULL
);

CREATE TABLE hold_rule (
    id          BIGINT  GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    filter      TEXT    COLLATE "C" NOT NULL,       -- terms of from, to and domain
    since       FLOAT8  NOT NULL,
    until       FLOAT8  NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL,
    note        TEXT    COLLATE "C" NOT NULL,
    newest      BIGINT  NOT NULL,                   -- messages up to this one were there when it was made
    swept       BIGINT  NOT NULL DEFAULT 0,         -- of these it has looked at those up to here
    ended_by    TEXT    COLLATE "C" NOT NULL DEFAULT '',  -- who ended it before its time
    released    BIGINT  NOT NULL DEFAULT 0          -- recipients let go so far, once it is over
);

CREATE TABLE override (
    destination TEXT    COLLATE "C" PRIMARY KEY,
    host        TEXT    COLLATE "C" NOT NULL,
    port        INTEGER NOT NULL,                   -- 0 is the one of the settings
    since       FLOAT8  NOT NULL,
    until       FLOAT8  NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL,
    note        TEXT    COLLATE "C" NOT NULL
);

CREATE TABLE mark (
    host        TEXT    COLLATE "C" PRIMARY KEY,
    since       FLOAT8  NOT NULL,
    until       FLOAT8  NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL,
    note        TEXT    COLLATE "C" NOT NULL,
    last        TEXT    COLLATE "C",                -- Outcome as JSON
    times       INTEGER NOT NULL DEFAULT 1          -- marks in a row without a delivery between
);

CREATE TABLE sts_policy (
    domain      TEXT    COLLATE "C" PRIMARY KEY,
    expires     FLOAT8  NOT NULL,
    policy      TEXT    COLLATE "C" NOT NULL        -- as JSON, for whoever fetched it
);

CREATE INDEX sts_policy_expires ON sts_policy (expires);

CREATE TABLE known_login (
    login       TEXT    COLLATE "C" NOT NULL,       -- came in rightly
    address     TEXT    COLLATE "C" NOT NULL,       -- from here
    at          FLOAT8  NOT NULL,                   -- the last time that was noted
    PRIMARY KEY (login, address)
);

CREATE INDEX known_login_at ON known_login (at);

CREATE TABLE suppressed (                           -- addresses to which no new mail is taken
    address     TEXT    COLLATE "C" PRIMARY KEY,    -- all in lower case
    since       FLOAT8  NOT NULL,
    until       FLOAT8,                             -- NULL: until an operator takes it off
    by          TEXT    COLLATE "C" NOT NULL,
    reply       TEXT    COLLATE "C" NOT NULL,       -- what was said when it failed
    note        TEXT    COLLATE "C" NOT NULL
);

CREATE INDEX suppressed_since ON suppressed (since) WHERE by = 'engine';
CREATE INDEX suppressed_until ON suppressed (until) WHERE until IS NOT NULL;

CREATE TABLE operation (
    id          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        TEXT    COLLATE "C" NOT NULL,       -- kind of the event that tells of it
    verb        TEXT    COLLATE "C" NOT NULL,
    filter      TEXT    COLLATE "C" NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL,
    note        TEXT    COLLATE "C" NOT NULL,
    at          FLOAT8  NOT NULL,
    messages    BIGINT  NOT NULL DEFAULT 0,         -- what it touched so far
    recipients  BIGINT  NOT NULL DEFAULT 0,
    skipped     BIGINT  NOT NULL DEFAULT 0,
    last        BIGINT  NOT NULL DEFAULT 0,         -- the last message it touched
    finished    BOOLEAN NOT NULL DEFAULT FALSE,
    gone_messages   BIGINT NOT NULL DEFAULT 0,      -- of a bounce or drop: what it has been carried out on so far
    gone_recipients BIGINT NOT NULL DEFAULT 0,
    released    BIGINT  NOT NULL DEFAULT 0,         -- of a bounce or drop: what was released before that
    due         FLOAT8,                             -- of a bounce or drop: when it is done; NULL: not whole yet, or over
    epoch       BIGINT                              -- of the node that carries it out
);

CREATE INDEX operation_due ON operation (due) WHERE due IS NOT NULL;

CREATE TABLE event (
    seq         BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          FLOAT8  NOT NULL,
    kind        TEXT    COLLATE "C" NOT NULL,
    by          TEXT    COLLATE "C" NOT NULL,
    message     BIGINT  NOT NULL,
    entry       INTEGER NOT NULL,
    sender      TEXT    COLLATE "C" NOT NULL,
    recipient   TEXT    COLLATE "C" NOT NULL,
    destination TEXT    COLLATE "C" NOT NULL,
    host        TEXT    COLLATE "C" NOT NULL,
    outcome     TEXT    COLLATE "C",                -- Outcome as JSON
    text        TEXT    COLLATE "C" NOT NULL,
    node        TEXT    COLLATE "C" NOT NULL DEFAULT ''  -- of which node it is told
);

CREATE INDEX event_message ON event (message) WHERE message > 0;

-- Of moves from one store to another: see engine.queue.moving.

CREATE TABLE leaving (                              -- one row at the most: no engine opens this queue while it is there
    move        TEXT    COLLATE "C" PRIMARY KEY,    -- names the move at both ends
    source      TEXT    COLLATE "C" NOT NULL,       -- this queue and the other one, as an operator has named them
    target      TEXT    COLLATE "C" NOT NULL,
    agreed      BOOLEAN NOT NULL                    -- the other end knows of it, and may have some of the mail
);

CREATE TABLE coming (
    move        TEXT    COLLATE "C" PRIMARY KEY,
    shifts      TEXT    COLLATE "C" NOT NULL,       -- what is added to numbers, by table, as JSON; {}: all has come
    batch       TEXT    COLLATE "C" NOT NULL        -- the messages that came last, by the numbers they had, as JSON
);
