"""Afterword's worker: takes jobs from Redis and SQL, calls the endpoint, stores what came, tells who listens. The map:

    Celery message ─▶ Redis chat.intake ─┐
    INSERT INTO submit_v1 ───────────────┴▶ intake ─▶ store.accept ─▶ row: queued ─▶ nudge ─▶ Redis chat.run
                                                                          ▲                        │
                        dispatcher ── tops the windows up from SQL ───────┤                        ▼
    SQL views ◀── store.record ◀── closing ◀── net.endpoint.call ◀── store.claim ◀── run ◀── pool ◀── channel
                       │                                                  ▼
                       └─ store.events ─▶ delivery: queued ─▶ Redis webhooks ─▶ pool ─▶ deliver ─▶ net.webhook.send

    app           the Celery application: settings, steps, the thin tasks    celery     for `celery -A worker`
    celeryconfig  every Celery setting and its reason; what is refused       log        structlog, configured once
    pool          Celery's task pool on one event loop    loop    the loop's thread and its watchdog
    runner, call  one running task: tracer in a greenlet, coroutine on the loop, why it was cancelled
    errands       work that other threads ask of Celery's thread    process_limits, memory    open files, malloc
    channel       Celery's consumer without acknowledgements    window    reads nudges as far as slots are free
    control       kombu's channel of remote control, guarded    connections    one rule for connections to Redis
    keys          the names of ours in Redis    redis_check    a Redis that cannot serve us, lists nobody reads
    sentinel      the pool of connections to a Redis address; behind Sentinel each one opens to the present primary
    nudge         the entries of chat.run and webhooks: a row may start    announce    nudges without a tick
    intake        makes rows of chat.intake and the SQL inbox, in batches    taking, inbox    how it learns of entries
    entries       reads an entry of either door: job, refusal or dead letter    heads    the head of a huge entry
    run           the story of one attempt at a job    closing    its result, as the columns that are written
    deliver       the story of one attempt at a webhook    keyring, vault, resealing    the receivers' secrets
    host          the parts of a process: lease, writer, dispatcher, intake, clients, running calls
    webhooks      its parts for webhooks    lease    the heartbeat    strays    rows that a worker has forgotten
    ready         conditions of a start    served    whether the database serves this release    liveness    threads
    dispatcher    due rows into Redis, ended leases and deadlines    shares    which rows go next
    delivering    the same for deliveries    marks, rejects    cancelled ids and unusable nudges, put away
    health, probes    endpoints that rest, and how they come back
    settings/     the one reader of the environment (addresses: of databases and Redis)
    core/         decides: lifecycle, message, chat, sse, assemble, errors, meanings, usage, failure, retry, pace,
                  health, breaker, events, webhook, delivery, delivery_waits, receiver_health, places, signing, http1,
                  offset, quote, printable. No I/O, clock, chance
    store/        SQL: tables, moves, accept, claim, record, leases, dispatch, weakness, trouble, orders, events,
                  audience, awaited, deliveries, webhook_lanes, webhook_figures, receivers, verify, session, hopeless,
                  rights. Sync, lists in, lists out
    net/          the wire: transport, protocol, endpoint call, webhook send and its guard (own: this service's own
                  servers), redaction, deadlines, what can go wrong
    dev/          embedded Redis, fake endpoint, webhook receiver, a whole stack: for demo, dev and tests
    cli/          the command `afterword`

`app → run, deliver, host → {store, net} → core`; everything may import core; tests/test_layers.py holds it.
"""
