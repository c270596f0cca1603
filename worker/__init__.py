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
    errands       what other threads want done on Celery's thread
    channel       Celery's consumer without acknowledgements    window    reads nudges as far as slots are free
    nudge         the entries of chat.run and webhooks: a row may start    announce    those without a tick
    intake        makes rows of chat.intake and the SQL inbox, in batches    taking, inbox    how it hears of them
    run           the story of one attempt at a job    closing    what came of it, as what is written of it
    deliver       the story of one attempt at a webhook    keyring, vault, resealing    the receivers' secrets
    host          what a process holds: lease, writer, dispatcher, intake, clients, running calls
    webhooks      what it holds for webhooks    lease    the heartbeat    strays    rows that a worker has forgotten
    dispatcher    due rows into Redis, ended leases and deadlines    shares    which rows go next
    delivering    the same for deliveries    marks, rejects    cancelled ids and unusable nudges, put away
    health, probes    endpoints that rest, and how they come back
    settings/     the one reader of the environment
    core/         decides: lifecycle, message, chat, sse, assemble, usage, failure, retry, pace, health, breaker,
                  events, webhook, delivery, delivery_waits, receiver_health, places, signing. No I/O, clock, chance
    store/        SQL: tables, moves, accept, claim, record, leases, dispatch, weakness, orders, events, audience,
                  awaited, deliveries, webhook_lanes, webhook_figures, receivers, verify. Sync, lists in, lists out
    net/          the wire: transport, endpoint call, webhook send and its guard (own: this service's own servers),
                  redaction, deadlines, what can go wrong
    dev/          embedded Redis, fake endpoint, webhook receiver, a whole stack: for demo, dev and tests
    cli/          the command `afterword`

`app → run, deliver, host → {store, net} → core`; everything may import core; tests/test_layers.py holds it.
"""
