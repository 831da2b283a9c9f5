-- What follows from a change of the entries, and how a transaction ends. Made anew with each version of the tables.
--
-- A destination's counts and edge follow its entries. Were they written where entries are, two nodes with mail for the
-- same destinations would wait for each other, and in no order: so each transaction first notes what changes, in a table
-- of its session (`change`, see engine.queue.postgres.writer), and all of it is written in its very end, in `conclude`,
-- which one transaction of all nodes is in at a time.

CREATE OR REPLACE FUNCTION entries_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO change (destination, waiting, held, relaying, edge)
    SELECT destination, count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'held'),
           count(*) FILTER (WHERE state = 'relaying'), min(due) FILTER (WHERE state = 'waiting')
    FROM added GROUP BY destination;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION entries_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO change (destination, waiting, held, relaying, edge, vacated)
    SELECT b.destination,
           sum((a.state = 'waiting')::int - (b.state = 'waiting')::int),
           sum((a.state = 'held')::int - (b.state = 'held')::int),
           sum((a.state = 'relaying')::int - (b.state = 'relaying')::int),
           min(a.due) FILTER (WHERE a.state = 'waiting'), min(b.due) FILTER (WHERE b.state = 'waiting')
    FROM before b JOIN after a ON a.message = b.message AND a.number = b.number
    WHERE a.state <> b.state OR a.due <> b.due
    GROUP BY b.destination;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION entries_left() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO change (destination, waiting, held, relaying, vacated)
    SELECT destination, -count(*) FILTER (WHERE state = 'waiting'), -count(*) FILTER (WHERE state = 'held'),
           -count(*) FILTER (WHERE state = 'relaying'), min(due) FILTER (WHERE state = 'waiting')
    FROM gone GROUP BY destination;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER entries_added AFTER INSERT ON entry REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION entries_added();
CREATE OR REPLACE TRIGGER entries_changed AFTER UPDATE ON entry REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION entries_changed();
CREATE OR REPLACE TRIGGER entries_left AFTER DELETE ON entry REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION entries_left();

-- Wait until no other transaction of any node is about to end; what is committed then is seen by the next statement.
CREATE OR REPLACE FUNCTION alone() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock(1936548212) $$;

-- End a transaction of the node with this epoch: alone from here to the commit, so that what is numbered here is
-- committed in the order of its numbers. Refused where another life of the node has begun, or others have taken over;
-- epoch 0 is of who moves the queue, beside whom there is no node.
-- Writes what changed of destinations, and the events; gives the numbers of these.
CREATE OR REPLACE FUNCTION conclude(
    of_epoch bigint, news text[], ats float8[], kinds text[], bys text[], messages bigint[], entries int[],
    senders text[], recipients text[], destinations text[], hosts text[], outcomes text[], texts text[], nodes text[]
) RETURNS SETOF bigint LANGUAGE plpgsql AS $$ BEGIN
    PERFORM alone();
    IF of_epoch <> 0 AND NOT EXISTS (SELECT 1 FROM node WHERE epoch = of_epoch AND NOT is_lost) THEN
        RAISE EXCEPTION 'epoch % is over', of_epoch USING ERRCODE = 'SH001';
    END IF;
    UPDATE destination d SET
        waiting = d.waiting + c.waiting, held = d.held + c.held, relaying = d.relaying + c.relaying,
        -- The first may have left: then who is first now is looked up.
        edge = CASE WHEN c.vacated <= least(d.edge, c.edge)
                    THEN (SELECT min(e.due) FROM entry e WHERE e.destination = d.name AND e.state = 'waiting')
                    ELSE least(d.edge, c.edge) END,
        turn = greatest(d.turn, c.turn), touched = greatest(d.touched, c.touched),
        last = coalesce(c.last, d.last), last_at = coalesce(c.last_at, d.last_at),
        took_at = greatest(d.took_at, c.took_at)
    FROM (SELECT destination, coalesce(sum(waiting), 0) AS waiting, coalesce(sum(held), 0) AS held,
                 coalesce(sum(relaying), 0) AS relaying, min(edge) AS edge, min(vacated) AS vacated,
                 max(turn) AS turn, max(touched) AS touched, max(took_at) AS took_at, max(last_at) AS last_at,
                 (array_agg(last ORDER BY place DESC) FILTER (WHERE last IS NOT NULL))[1] AS last
          FROM change GROUP BY destination) c
    WHERE d.name = c.destination;
    PERFORM pg_notify('smarthost', of_epoch || ' ' || told) FROM unnest(news) AS told;
    RETURN QUERY INSERT INTO event
        (at, kind, by, message, entry, sender, recipient, destination, host, outcome, text, node)
        SELECT * FROM unnest(ats, kinds, bys, messages, entries, senders, recipients, destinations, hosts, outcomes,
                             texts, nodes)
        RETURNING seq;
END $$;
