"""The bounds that every store keeps: how much it remembers, and how much is done, or said, at once."""

# -- what is remembered ---------------------------------------------------------------------------------------------
LOGINS_KEPT = 10_000  # pairs of a login and an address; those not seen for longest are let go
POLICIES_KEPT = 10_000  # of MTA-STS; a domain beyond that has its policy fetched anew when mail goes there
TIDY_EVERY = 3600.0  # seconds between two looks for what is idle
IDLE_SECONDS = 86400.0  # a destination with nothing in it, and a mark that has ended, are forgotten after
FORGET_AT_ONCE = 1000  # destinations, and marks, forgotten in one transaction
KEEP_OPERATIONS = 30 * 86400.0  # seconds
PROVED_SECONDS = 8 * 86400.0  # for so long what took mail has proved itself; a week's letter finds it so
PROVED_KEPT = 50_000  # destinations with nothing in them that are remembered for it, those that took mail last
TOOK_EVERY = 3600.0  # seconds; when a destination took mail is kept to the hour, since it is in an index

# -- what is done at once -------------------------------------------------------------------------------------------
MAX_GROUP = 256  # operations in one transaction
MAX_GROUP_WEIGHT = 32 * 2**20  # bytes of content in one transaction
DROPS_AT_ONCE = 500  # entries dropped in one transaction
SKIPPED_AT_MOST = 5000  # entries passed over to find messages
# Destinations due; of fewer each is looked at and they are sorted, of more they are walked in order of their turns.
FEW = 1000
# Of those in doubt, so many destinations are looked at together (those of two messages that have as many as one may
# have), and turns shared out among so many of them: of those that were never tried, and of those that have failed.
DOUBTFUL_SEEN = 20_000
DOUBTFUL_AT_ONCE = 500

# -- what senders are told ------------------------------------------------------------------------------------------
LATE_AT_ONCE = 1000  # recipients in all that `late` gives; a message with more is told of in parts
# Recipients in one notification: as many as one message has by SMTP, so that what came as one goes back as one.
RECIPIENTS_TOLD = 1000
# Seconds. Each further notification of one message gathers for twice as long, up to this: what fails at times of its
# destinations' choosing costs the sender 7 notifications, and then one an hour.
LONGEST_GATHER = 3600.0

# -- what is counted for operators ----------------------------------------------------------------------------------
# However big the queue and however many look, what is found for them takes no more than a twentieth of a core: what was
# costly is given again for RESTS times as long as it took.
COSTLY = 0.05  # seconds for an answer
BIG = 50_000  # entries due of one destination, or in all: to count so many is costly
RESTS = 20
ANSWERS_KEPT = 8  # windows that consoles look at

# -- what operators are shown ---------------------------------------------------------------------------------------
EXAMPLES = 3  # of the mail that an order names
BUSIEST = 3  # destinations named of one reason
NEIGHBOURS = 20  # other destinations of a site that are named
NAMED = 100  # destinations of a bad host
ALTERNATES_NAMED = 20  # hosts
TRIED_FIRST = 10  # destinations of a bad host that may be tried first
