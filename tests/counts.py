"""Today's costs in numbers that do not depend on the machine: statements, transactions, Redis commands, requests.

tests/store/test_counts.py and tests/flow/test_counts.py compare these tables for equality. A change of a number edits
the table, and the message of the same commit gives the reason.

A *statement* is one call of the driver; the statement that opens the transaction (`BEGIN IMMEDIATE` on SQLite, `SET
LOCAL` on PostgreSQL) counts too. A statement with a list of parameters is one statement with as many *sets*: one round
trip, and work for the database in proportion.
"""

from typing import Final, NamedTuple

MANY: Final = 100


class Cost(NamedTuple):
    """Statements and parameter sets of one transaction."""

    statements: int
    sets: int


class Step(NamedTuple):
    """The cost of a store function with one item, and with a hundred items in one call."""

    alone: Cost
    many: Cost


# The same on SQLite and PostgreSQL.
STEPS: Final = {
    #                                            alone: statements, sets   a hundred: statements, sets
    "accept": Step(Cost(5, 5), Cost(5, 5)),
    "accept duplicates": Step(Cost(6, 6), Cost(6, 6)),
    "take the inbox": Step(Cost(3, 3), Cost(3, 3)),
    "claim": Step(Cost(3, 3), Cost(3, 102)),
    "record completed": Step(Cost(7, 7), Cost(7, 304)),
    "record completed, a receiver listens": Step(Cost(11, 11), Cost(11, 506)),
    # Each retry has its own random delay, so each job is moved by its own statement.
    "record retries": Step(Cost(4, 4), Cost(103, 202)),
    "cancel": Step(Cost(6, 6), Cost(6, 105)),
    "take back": Step(Cost(6, 6), Cost(6, 105)),
    "dispatcher's tick": Step(Cost(12, 12), Cost(12, 12)),
    "claim deliveries": Step(Cost(9, 9), Cost(9, 108)),
    # Each delivery is moved by its own statement.
    "record delivered": Step(Cost(8, 8), Cost(107, 206)),
    "record refused deliveries": Step(Cost(8, 8), Cost(107, 206)),
    "dispatcher's tick for deliveries": Step(Cost(9, 9), Cost(9, 9)),
}


class Life(NamedTuple):
    """The costs in a real worker, from a message in Redis to the last commit."""

    transactions: int
    statements: int
    redis: dict[str, int]
    requests: int


# TAKE, PUSH and POP are our scripts. BLMOVE and BRPOP are doorbells: each waits again after every entry.
_TO_THE_JOB: Final = {
    "TAKE intake": 2, "DEL intake": 1, "BLMOVE intake": 1, "PUSH chat.run": 1, "POP chat.run": 1, "BRPOP chat.run": 1,
}  # fmt: skip
_TO_THE_DELIVERY: Final = {"PUSH webhooks": 1, "POP webhooks": 1, "BRPOP webhooks": 1}

# One job alone, without a receiver: accept, claim, record.
JOB: Final = Life(transactions=3, statements=15, redis=_TO_THE_JOB, requests=1)
# One job alone and its one delivery: claim and record of the delivery too.
JOB_AND_DELIVERY: Final = Life(transactions=5, statements=36, redis=_TO_THE_JOB | _TO_THE_DELIVERY, requests=2)

# A hundred jobs in one push cost Redis no more than one job, up to the calls. The writer's transactions depend on the
# times of the answers: at most a hundred times those of one job. Each is one of these steps, or a claim and a record
# together.
WRITES: Final = ("claim", "record completed, a receiver listens", "claim deliveries", "record delivered")
# Parameter sets for each job, in any grouping by the writer.
SETS: Final = {
    "INSERT INTO afterword_attempts": 1,
    "UPDATE afterword_attempts": 1,
    "INSERT INTO afterword_answers": 1,
    "INSERT INTO afterword_finished": 1,
    "INSERT INTO afterword_events": 1,
    "INSERT INTO afterword_deliveries": 1,
    "INSERT INTO afterword_delivery_attempts": 1,
    "UPDATE afterword_delivery_attempts": 1,
}

# `Afterword.submit` on an open connection.
PRODUCER: Final = {"LPUSH intake": 1}
