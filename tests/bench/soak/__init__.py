"""Whether the relay bears all of it at once: mail of every kind, those who would spoil it, consoles and operators

An engine in a process of its own, in the sandbox internet. At the same time
    senders     several connections, letters small and large, some to fifty recipients, one login, the drop folder;
                healthy domains, greylisting, refusals, failures, hosts that hang up, 20 tarpits, and every minute one
                message to 300 subdomains of a domain whose name server is silent
    strangers   idle, half-sent, guessing passwords, at every door
    consoles    every view polled, and the stream of events
    operators   retry, hold, release, bounce, drop, suspend, mark, override and close at random
It says each minute how things are. The end is judged; the exit status is 1 where a criterion fails:
    nothing lost      each recipient that was answered with 250 (or whose file was taken) is delivered, returned,
                      waiting, or removed by a named operator: by what exchanges took, the events, and the store
    nothing damaged   what was delivered is what was sent
    twice on record   of each copy beyond the first an event tells: interrupted, or that it may arrive twice
    doors             p95 of what a sender waits for its 250 is at most 2 s; the login that is guessed at can be used
    healthy mail      p95 from its 250 to that of its exchange is at most 2 s; what never came counts with its age
    memory flat       a line through the second half of the measurements rises by no more than a tenth of what they
                      are, or 24 MiB; of a run under five minutes it is not judged, for it is still warming up
    descriptors, threads   as many at the end of the second half as at its beginning, give or take a few
    views             each was answered in 10 s at the most, with 200
    tables bounded, dead rows   where the queue is in PostgreSQL: through the second half a line through the size of
                      each table rises by no more than a quarter of it, or 16 MiB, and no more of its rows are dead than
                      live, or 20,000
    no storm          autovacuum is at it for no more than a quarter of the time
    a good end        no fault in the engine's log, and it stops when it is told to

With `--store postgres` the queue is in a PostgreSQL of its own, which syncs, and whose autovacuum is set as usual; each
minute it says how large the tables are that churn. `--waiting` keeps so many recipients waiting beside all others, at
domains that cannot be reached or put everything off, until they are given up.

    uv run python -m tests.bench soak MINUTES [--rate LETTERS_A_SECOND] [--waiting N] [--store sqlite|postgres]
                                              [--seed N] [--without silent,tarpits,...]
"""
