-- The store's tables, version 8. One row of `entry` is one recipient of one message.

CREATE TABLE message (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, not even after the message has left
    sender      TEXT    NOT NULL,                   -- "" is the null reverse-path
    size        INTEGER NOT NULL,
    arrived     REAL    NOT NULL,
    expires     REAL    NOT NULL,
    origin      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    eight_bit   INTEGER NOT NULL,
    smtputf8    INTEGER NOT NULL,
    tell_at     REAL,                               -- when the sender is told of what is in `untold`; NULL: of nothing
    tellings    INTEGER NOT NULL DEFAULT 0,         -- how often the sender has been told
    given_back  INTEGER NOT NULL DEFAULT 0,         -- 1: its content has gone back whole with one of these
    ret         TEXT    NOT NULL CHECK (ret IN ('', 'FULL', 'HDRS')),
    envid       TEXT    NOT NULL                    -- xtext, as it came
) STRICT;

CREATE INDEX message_tell_at ON message (tell_at) WHERE tell_at IS NOT NULL;

CREATE TABLE untold (                               -- recipients that are settled, and of which nobody is told yet
    message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
    number      INTEGER NOT NULL,                   -- that of the entry
    recipient   TEXT    NOT NULL,
    orcpt       TEXT    NOT NULL,
    action      TEXT    NOT NULL CHECK (action IN ('failed', 'relayed')),
    outcome     TEXT    NOT NULL,                   -- Outcome as JSON
    at          REAL    NOT NULL,                   -- when it was settled
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE body (
    message     INTEGER PRIMARY KEY REFERENCES message ON DELETE CASCADE,
    sha256      BLOB    NOT NULL,
    content     BLOB    NOT NULL
) STRICT;

CREATE TABLE destination (
    name          TEXT    NOT NULL PRIMARY KEY,
    site          TEXT    NOT NULL,                 -- those of one site share connections; '@' || name: not known yet
    waiting       INTEGER NOT NULL DEFAULT 0,       -- these counts and the edge are kept by the triggers below
    held          INTEGER NOT NULL DEFAULT 0,
    relaying      INTEGER NOT NULL DEFAULT 0,
    edge          REAL,                             -- when the first waiting entry is due
    turn          INTEGER NOT NULL,                 -- grows with every claim; the smallest is served next
    blocked_until REAL    NOT NULL DEFAULT 0,       -- 0 again once it has taken mail
    blocked_why   TEXT    NOT NULL DEFAULT '',
    blocked_cause TEXT    NOT NULL DEFAULT '',      -- of that Outcome; '' for a limit's, or an earlier version's
    last          TEXT,                             -- Outcome as JSON
    last_at       REAL,
    touched       REAL    NOT NULL,                 -- last activity, for pruning
    unreached_at  REAL    NOT NULL DEFAULT 0,       -- when no connection could be had last; 0: it has taken mail since
    ready         REAL    GENERATED ALWAYS AS (max(edge, blocked_until)) VIRTUAL,
    took_at       REAL    NOT NULL DEFAULT 0        -- when it took mail, to the hour; 0: it has to prove itself (again)
) STRICT, WITHOUT ROWID;

CREATE INDEX destination_turn  ON destination (turn, name, ready, site, blocked_until) WHERE ready IS NOT NULL;
CREATE INDEX destination_site  ON destination (site, turn, name, ready) WHERE ready IS NOT NULL;
CREATE INDEX destination_ready ON destination (ready)                   WHERE ready IS NOT NULL;
-- In order of turns, those that have taken mail lately apart from those that have yet to.
CREATE INDEX destination_proved   ON destination (turn, name, ready, site) WHERE ready IS NOT NULL AND took_at > 0;
CREATE INDEX destination_doubtful ON destination (turn, name, ready, site, blocked_until)
    WHERE ready IS NOT NULL AND took_at = 0;
CREATE INDEX destination_took  ON destination (site, took_at)           WHERE took_at > 0;

CREATE TABLE entry (
    message      INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
    number       INTEGER NOT NULL,
    recipient    TEXT    NOT NULL,
    destination  TEXT    NOT NULL REFERENCES destination,
    state        TEXT    NOT NULL CHECK (state IN ('waiting', 'relaying', 'held')),
    due          REAL    NOT NULL,
    expires      REAL    NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    last         TEXT,                              -- Outcome as JSON
    last_line    TEXT    NOT NULL DEFAULT '',       -- the same as filters look at it: "550 5.1.1 no such user"
    reason_key   TEXT,                              -- and without what varies: see engine.model.reason; NULL: no reply yet
    last_at      REAL,
    notify       TEXT    NOT NULL DEFAULT '',       -- of RFC 3461 4.1: '', 'NEVER' or a list such as 'SUCCESS,DELAY'
    orcpt        TEXT    NOT NULL DEFAULT '',       -- type and xtext, as it came
    notice_at    REAL,                              -- when the sender is told of the delay; NULL: not, or not again
    giving_up    INTEGER NOT NULL DEFAULT 0,        -- 1: relaying only to be returned, nothing is dialled for it
    ordered      TEXT    CHECK (ordered IN ('hold', 'bounce', 'drop')),
    ordered_by   TEXT    NOT NULL DEFAULT '',
    note         TEXT    NOT NULL DEFAULT '',
    operation    INTEGER,                           -- of a bounce or drop: what undo names, and says when it is due
    prior        TEXT    NOT NULL DEFAULT '' CHECK (prior IN ('', 'waiting', 'held')),
    prior_by     TEXT    NOT NULL DEFAULT '',       -- before the bounce or drop; "held" had these words
    prior_note   TEXT    NOT NULL DEFAULT '',
    rule         INTEGER,                           -- the hold rule that holds it
    counted      INTEGER,                           -- the bounce or drop that has counted its message already
    postponed_at REAL,                              -- when it was ordered to be due at `due`; NULL: it is by itself
    postponed_by TEXT    NOT NULL DEFAULT '',       -- and by whom
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX entry_destination ON entry (destination);
-- The state is in these so that entries are counted, and chosen beside a damaged page, without reading their rows.
CREATE INDEX entry_due         ON entry (destination, due, state) WHERE state = 'waiting';
CREATE INDEX entry_fresh       ON entry (destination, due, state, attempts) WHERE state = 'waiting' AND attempts = 0;
CREATE INDEX entry_expires     ON entry (expires)           WHERE state = 'waiting';
CREATE INDEX entry_relaying    ON entry (destination, state) WHERE state = 'relaying';
CREATE INDEX entry_notice      ON entry (notice_at)         WHERE state = 'waiting' AND notice_at IS NOT NULL;
CREATE INDEX entry_reason      ON entry (reason_key, destination) WHERE reason_key IS NOT NULL;
CREATE INDEX entry_operation   ON entry (operation)         WHERE operation IS NOT NULL;
CREATE INDEX entry_postponed   ON entry (postponed_by)      WHERE postponed_by <> '';
CREATE INDEX entry_rule        ON entry (rule)              WHERE rule IS NOT NULL;

-- The edge is written only when it changes: it is in two indexes, the counts are in none.

CREATE TRIGGER entry_added AFTER INSERT ON entry BEGIN
    UPDATE destination SET
        waiting  = waiting  + (NEW.state = 'waiting'),
        held     = held     + (NEW.state = 'held'),
        relaying = relaying + (NEW.state = 'relaying')
    WHERE name = NEW.destination;
    UPDATE destination SET edge = NEW.due
    WHERE name = NEW.destination AND NEW.state = 'waiting' AND NEW.due < coalesce(edge, NEW.due + 1);
END;

CREATE TRIGGER entry_moved AFTER UPDATE OF state ON entry WHEN OLD.state <> NEW.state BEGIN
    UPDATE destination SET
        waiting  = waiting  + (NEW.state = 'waiting')  - (OLD.state = 'waiting'),
        held     = held     + (NEW.state = 'held')     - (OLD.state = 'held'),
        relaying = relaying + (NEW.state = 'relaying') - (OLD.state = 'relaying')
    WHERE name = NEW.destination;
END;

CREATE TRIGGER entry_timed AFTER UPDATE OF state, due ON entry
WHEN (OLD.state = 'waiting' OR NEW.state = 'waiting') AND (OLD.state <> NEW.state OR OLD.due <> NEW.due) BEGIN
    UPDATE destination SET edge = NEW.due
    WHERE name = NEW.destination AND NEW.state = 'waiting' AND NEW.due < coalesce(edge, NEW.due + 1);
    UPDATE destination SET edge =
        (SELECT min(due) FROM entry WHERE destination = NEW.destination AND state = 'waiting')
    WHERE name = NEW.destination AND OLD.state = 'waiting' AND OLD.due <= edge AND edge IS NOT
        (SELECT min(due) FROM entry WHERE destination = NEW.destination AND state = 'waiting');
END;

CREATE TRIGGER entry_left AFTER DELETE ON entry BEGIN
    UPDATE destination SET
        waiting  = waiting  - (OLD.state = 'waiting'),
        held     = held     - (OLD.state = 'held'),
        relaying = relaying - (OLD.state = 'relaying')
    WHERE name = OLD.destination;
    UPDATE destination SET edge =
        (SELECT min(due) FROM entry WHERE destination = OLD.destination AND state = 'waiting')
    WHERE name = OLD.destination AND OLD.state = 'waiting' AND OLD.due <= edge AND edge IS NOT
        (SELECT min(due) FROM entry WHERE destination = OLD.destination AND state = 'waiting');
END;

CREATE TABLE attempt (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: a late settlement cannot meet another attempt
    message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
    entry       INTEGER NOT NULL,
    relayer     INTEGER NOT NULL,
    started     REAL    NOT NULL,
    ended       REAL,
    outcome     TEXT,                               -- Outcome as JSON
    interrupted INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX attempt_message ON attempt (message);

CREATE TABLE taken_key (
    key         TEXT    NOT NULL PRIMARY KEY,
    message     INTEGER NOT NULL                    -- the number it had; the message may have left since
) STRICT, WITHOUT ROWID;

CREATE TABLE exchange (
    destination TEXT    NOT NULL REFERENCES destination ON DELETE CASCADE,
    preference  INTEGER NOT NULL,                   -- 0 is the best
    host        TEXT    NOT NULL,
    PRIMARY KEY (destination, preference)
) STRICT, WITHOUT ROWID;

CREATE INDEX exchange_host ON exchange (host);

CREATE TABLE suspension (
    destination TEXT    NOT NULL PRIMARY KEY,       -- "*" is the whole relay
    since       REAL    NOT NULL,
    until       REAL    NOT NULL,
    "by"        TEXT    NOT NULL,
    note        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE hold_rule (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    filter      TEXT    NOT NULL,                   -- terms of from, to and domain
    since       REAL    NOT NULL,
    until       REAL    NOT NULL,
    "by"        TEXT    NOT NULL,
    note        TEXT    NOT NULL,
    newest      INTEGER NOT NULL,                   -- messages up to this one were there when it was made
    swept       INTEGER NOT NULL DEFAULT 0,         -- of these it has looked at those up to here
    ended_by    TEXT    NOT NULL DEFAULT '',        -- who ended it before its time
    released    INTEGER NOT NULL DEFAULT 0          -- recipients let go so far, once it is over
) STRICT;

CREATE TABLE override (
    destination TEXT    NOT NULL PRIMARY KEY,
    host        TEXT    NOT NULL,
    port        INTEGER NOT NULL,                   -- 0 is the one of the settings
    since       REAL    NOT NULL,
    until       REAL    NOT NULL,
    "by"        TEXT    NOT NULL,
    note        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mark (
    host        TEXT    NOT NULL PRIMARY KEY,
    since       REAL    NOT NULL,
    until       REAL    NOT NULL,
    "by"        TEXT    NOT NULL,
    note        TEXT    NOT NULL,
    last        TEXT,                               -- Outcome as JSON
    times       INTEGER NOT NULL DEFAULT 1          -- marks in a row without a delivery between
) STRICT, WITHOUT ROWID;

CREATE TABLE sts_policy (
    domain      TEXT    NOT NULL PRIMARY KEY,
    expires     REAL    NOT NULL,
    policy      TEXT    NOT NULL                    -- as JSON, for whoever fetched it
) STRICT, WITHOUT ROWID;

CREATE INDEX sts_policy_expires ON sts_policy (expires);

CREATE TABLE known_login (
    login       TEXT    NOT NULL,                   -- came in rightly
    address     TEXT    NOT NULL,                   -- from here
    at          REAL    NOT NULL,                   -- the last time that was noted
    PRIMARY KEY (login, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX known_login_at ON known_login (at);

CREATE TABLE suppressed (                           -- addresses to which no new mail is taken
    address     TEXT    NOT NULL PRIMARY KEY,       -- all in lower case
    since       REAL    NOT NULL,
    until       REAL,                               -- NULL: until an operator takes it off
    "by"        TEXT    NOT NULL,
    reply       TEXT    NOT NULL,                   -- what was said when it failed
    note        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX suppressed_since ON suppressed (since) WHERE "by" = 'engine';
CREATE INDEX suppressed_until ON suppressed (until) WHERE until IS NOT NULL;

CREATE TABLE operation (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT    NOT NULL,                   -- kind of the event that tells of it
    verb        TEXT    NOT NULL,
    filter      TEXT    NOT NULL,
    "by"        TEXT    NOT NULL,
    note        TEXT    NOT NULL,
    at          REAL    NOT NULL,
    messages    INTEGER NOT NULL DEFAULT 0,         -- what it touched so far
    recipients  INTEGER NOT NULL DEFAULT 0,
    skipped     INTEGER NOT NULL DEFAULT 0,
    last        INTEGER NOT NULL DEFAULT 0,         -- the last message it touched
    finished    INTEGER NOT NULL DEFAULT 0,
    gone_messages   INTEGER NOT NULL DEFAULT 0,     -- of a bounce or drop: what it has been carried out on so far
    gone_recipients INTEGER NOT NULL DEFAULT 0,
    released    INTEGER NOT NULL DEFAULT 0,         -- of a bounce or drop: what was released before that
    due         REAL                                -- of a bounce or drop: when it is done; NULL: not whole yet, or over
) STRICT;

CREATE INDEX operation_due ON operation (due) WHERE due IS NOT NULL;

CREATE TABLE event (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    at          REAL    NOT NULL,
    kind        TEXT    NOT NULL,
    "by"        TEXT    NOT NULL,
    message     INTEGER NOT NULL,
    entry       INTEGER NOT NULL,
    sender      TEXT    NOT NULL,
    recipient   TEXT    NOT NULL,
    destination TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    outcome     TEXT,                               -- Outcome as JSON
    text        TEXT    NOT NULL
) STRICT;

CREATE INDEX event_message ON event (message) WHERE message > 0;

-- Of moves from one store to another: see engine.queue.moving.

CREATE TABLE leaving (                              -- one row at the most: no engine opens this queue while it is there
    move        TEXT    NOT NULL PRIMARY KEY,       -- names the move at both ends
    source      TEXT    NOT NULL,                   -- this queue and the other one, as an operator has named them
    target      TEXT    NOT NULL,
    agreed      INTEGER NOT NULL                    -- 1: the other end knows of it, and may have some of the mail
) STRICT, WITHOUT ROWID;

CREATE TABLE coming (
    move        TEXT    NOT NULL PRIMARY KEY,
    shifts      TEXT    NOT NULL,                   -- what is added to numbers, by table, as JSON; {}: all has come
    batch       TEXT    NOT NULL                    -- the messages that came last, by the numbers they had, as JSON
) STRICT, WITHOUT ROWID;
