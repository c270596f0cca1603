"""Afterword's worker: takes jobs from Redis and SQL, calls the endpoint, stores the answer, sends webhooks.

The way of a job and of its webhook:

    Celery message ─▶ Redis chat.intake ─┐
    INSERT INTO submit_v1 ───────────────┴▶ jobs.intake ─▶ row: queued ─▶ nudge ─▶ Redis chat.run
                                                             ▲                         │
              jobs.dispatcher tops the window up from SQL ───┘                         ▼
    SQL views ◀── jobs.store.record ◀── run: claim, call, decide, record ◀── pool ◀── queue
                       │
                       └─ webhooks.store.emit ─▶ delivery: queued ─▶ nudge ─▶ Redis webhooks ─▶ deliver ─▶ receiver

The floors, top first. Every import goes down, or stays in its room; tests/test_layers.py reads this list:

    9  cli           the command `afterword`, one module for each command group
    9  celery        the entrance of `celery -A worker`
    8  app           the Celery application: settings, start and stop, the thin tasks
    7  process       one worker process: its parts, their start and stop, the checks of its database
    7  verify        `afterword verify`: the rules that every row must keep
    7  dev           embedded Redis, fake endpoint, webhook receiver: for the demo, development and tests
    6  run           the story of one attempt at a job: claim, call, decide, record
    6  deliver       the story of one attempt at a webhook: claim, send, decide, record
    5  jobs          a job's row and its whole life: intake, dispatch, claim, call, record
    4  webhooks      a delivery's row and its whole life: event, dispatch, claim, send, record
    3  store         SQL for both wings: engine, tables, guarded transitions, group commit, leases
    3  log           structlog, configured once
    3  celeryconfig  every Celery setting with its reason
    2  chat          the endpoint's wire format, pure: request, stream, answer, usage, errors
    2  queue         Redis: connections, nudges, Celery's consumer
    2  net           HTTP for both wings: transport, protocol, TLS
    2  settings      the one reader of the environment
    1  core          shared rules, pure: lifecycle, failures, exact JSON
    1  pool          Celery's task pool on one event loop

Both wings have the same three folders: `core/` decides and does no I/O, `store/` is SQL, `net/` is the wire.
The same step has the same file name in both: claim, record, due, dispatcher, retry, outcome, progress, listing.
The words of this code (nudge, lease, fence, claim, window …) are explained in ops/contributing.md.
"""
