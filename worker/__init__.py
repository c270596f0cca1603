"""Afterword's worker: takes jobs from Redis and SQL, calls the endpoint, stores what came. The map:

    Celery message ─▶ Redis chat.intake ─┐
    INSERT INTO submit_v1 ───────────────┴▶ intake ─▶ store.accept ─▶ row: queued ─▶ nudge ─▶ Redis chat.run
                                                                          ▲                        │
                        dispatcher ── tops the window up from SQL ────────┘                        ▼
    SQL views ◀── store.record ◀── closing ◀── net.endpoint.call ◀── store.claim ◀── run ◀── pool ◀── channel

    app           the Celery application: settings, steps, the thin tasks    celery     for `celery -A worker`
    celeryconfig  every Celery setting and its reason; what is refused       log        structlog, configured once
    pool          Celery's task pool on one event loop    loop    the loop's thread and its watchdog
    runner, call  one running task: tracer in a greenlet, coroutine on the loop, why it was cancelled
    errands       what other threads want done on Celery's thread
    channel       Celery's consumer without acknowledgements    window    reads nudges as far as slots are free
    nudge         the entries of chat.run: forty bytes that say a row may start
    intake        makes rows of chat.intake and the SQL inbox, in batches, in its own thread    taking    its Redis side
    run           the story of one attempt    closing    what came of it, as what is written of it
    host          what a process holds: lease, writer, dispatcher, intake, clients, running calls
    lease         the heartbeat    dispatcher    due rows into Redis, ended leases and deadlines
    settings/     the one reader of the environment
    core/         decides: lifecycle, message, chat, sse, assemble, usage, failure, retry, pace. No I/O, clock, chance
    store/        SQL: tables, moves, accept, claim, record, leases, dispatch. Sync, lists in, lists out
    net/          the wire: transport, endpoint call, deadlines, what can go wrong
    dev/          embedded Redis, fake endpoint, a whole stack: for demo, dev and tests
    cli/          the command `afterword`

`app → run, host → {store, net} → core`; everything may import core; tests/test_layers.py holds it.
"""
