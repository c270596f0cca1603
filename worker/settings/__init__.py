"""The one reader of the environment: every AFTERWORD_ setting, checked together before anything starts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from worker.core.endpoint import Endpoint
from worker.settings import values
from worker.settings.endpoints import DEFAULT, environment_names, read_endpoints
from worker.settings.sources import PREFIX, Environment, unknown_names
from worker.settings.values import Reader


class BadSettings(ValueError):
    """Settings nothing can start with; `errors` holds every fault, a sentence each."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def _setting(default: Any, reader: Reader, text: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"reader": reader, "text": text, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; a field's name in capitals after AFTERWORD_ is its variable. ops/settings.md is the full page."""

    database_url: str | None = _setting(
        None, values.DATABASE_URL, "The database that holds jobs and results.", secret=True
    )
    database_schema: str | None = _setting(
        None, values.SCHEMA_NAME, "PostgreSQL only: the schema that holds our tables instead of the connection's first."
    )
    redis_url: str | None = _setting(None, values.REDIS_URL, "The Redis that Celery's queues live in.", secret=True)
    config: Path | None = _setting(None, values.FILE, "A TOML file that adds named endpoints.")  # noqa: RUF009  a field
    concurrency: int = _setting(100, values.whole(1, 100_000), "Calls in flight in one worker process.")
    webhook_slots: int = _setting(
        100,
        values.whole(1, 10_000),
        "Webhook deliveries in flight in one worker process; a tenant is given half of them at most.",
    )
    lease_s: float = _setting(
        30.0, values.seconds(0.05, 3600), "A worker silent for this long is dead: its jobs are queued again."
    )
    beat_s: float = _setting(1.0, values.seconds(0.01, 60), "How often a worker renews its lease.")
    tick_s: float = _setting(1.0, values.seconds(0.01, 60), "How often the dispatcher looks for due jobs.")
    window_s: float = _setting(2.0, values.seconds(0.01, 600), "How much work, in time, stands ready in Redis.")
    drain_s: float = _setting(
        30.0, values.seconds(0, 86400), "How long a stopping worker lets its calls finish before it gives them back."
    )
    job_ttl_s: float = _setting(
        86400.0, values.seconds(1, 10 * 365 * 86400), "The deadline of a job that names none, from its acceptance."
    )
    max_request_bytes: int = _setting(16 * 2**20, values.whole(1024, 2**30), "The largest request that is accepted.")
    intake_batch: int = _setting(256, values.whole(1, 1000), "Messages accepted in one transaction.")
    writer_batch: int = _setting(100, values.whole(1, 1000), "Writes of running jobs committed in one transaction.")
    http_transport: Literal["aiohttp", "httpx"] = _setting(
        "aiohttp", values.choice("aiohttp", "httpx"), "What carries the calls; `httpx` is the slower, plainer one."
    )
    loop: Literal["asyncio", "uvloop"] = _setting(
        "asyncio", values.choice("asyncio", "uvloop"), "The event loop; `uvloop` must be installed beside us."
    )
    log_format: Literal["console", "json"] | None = _setting(
        None, values.choice("console", "json"), "How log lines look; not set: console on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", values.choice("debug", "info", "warning", "error"), "The least level that is logged."
    )
    data_dir: Path | None = _setting(  # noqa: RUF009  a field
        None, values.FOLDER, "Where `afterword dev` keeps its parts; not set: a temporary folder, deleted at the end."
    )
    secret_keys: tuple[str, ...] = _setting(
        (),
        values.SECRET_KEYS,
        "What receivers' secrets are sealed with: the first key seals, every key opens. Needed once one exists.",
        secret=True,
    )
    webhook_allow_cidrs: tuple[values.Network, ...] = _setting(
        (), values.NETWORKS, "Private networks that webhooks may be sent to all the same; not set: none."
    )
    webhook_deny_cidrs: tuple[values.Network, ...] = _setting(
        (), values.NETWORKS, "Networks that webhooks are never sent to, such as your own public ones; not set: none."
    )
    webhook_ports: tuple[int, ...] = _setting(
        (),
        values.PORTS,
        "Ports of public addresses that webhooks may be sent to, beside 443 and (without TLS) 80; not set: none.",
    )
    webhook_nat64: bool = _setting(
        False, values.FLAG, "Whether this host reaches IPv4 through NAT64: 64:ff9b::/96 is judged as what it carries."
    )
    webhook_ca_file: str | None = _setting(
        None, values.FILE, "The only certificates that webhooks trust, PEM; not set: the system's."
    )
    webhook_egress_proxy: str | None = _setting(
        None,
        values.EGRESS_PROXY,
        "A forward proxy for all webhooks; it resolves their names, and must itself refuse what they may not reach.",
        secret=True,
    )
    webhook_allow_http: bool = _setting(False, values.FLAG, "Whether a webhook may be sent without TLS.")
    webhook_allow_urls: bool = _setting(
        False, values.FLAG, 'Whether a job may bring its own address, `"webhook": {"url": …}`.'
    )
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint of jobs that name none."""
        return self.endpoints.get(DEFAULT)


PLAIN = tuple(one for one in fields(Settings) if "reader" in one.metadata)


def read(environ: Mapping[str, str]) -> Settings:
    """Return the settings of an environment; raise BadSettings with every fault at once."""
    environment = Environment(environ)
    given: dict[str, Any] = {}
    for one in PLAIN:
        name, secret = variable(one.name), one.metadata["secret"]
        text = environment.text(name, secret=secret)
        given[one.name] = environment.value(name, text, one.metadata["reader"], secret=secret)
    given["config"] = Path(given["config"]) if given["config"] else None
    given["endpoints"] = read_endpoints(environment, given["config"])
    unknown_names(environment, known_names())
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    errors = (*environment.errors, *_cross_checks(settings))
    if errors:
        raise BadSettings(errors)
    return settings


def load() -> Settings:
    """Return the settings of this process's environment; raise BadSettings with every fault at once."""
    return read(os.environ)


def need(settings: Settings, *names: str) -> None:
    """Raise BadSettings with one sentence when any of these settings is missing; `endpoint` is the default one."""
    missing = [name for name in names if getattr(settings, name) is None]
    if not missing:
        return
    texts = ["AFTERWORD_ENDPOINT_URL" if name == "endpoint" else variable(name) for name in missing]
    verb = "is" if len(texts) == 1 else "are"
    listed = " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)
    raise BadSettings((f"{listed} {verb} not set; set what is missing, or try `afterword dev`.",))


def variable(name: str) -> str:
    """Return the environment variable of a field of Settings."""
    return f"{PREFIX}{name.upper()}"


def known_names() -> list[str]:
    """Return every AFTERWORD_ variable there is."""
    secrets = [f"{variable(one.name)}_FILE" for one in PLAIN if one.metadata["secret"]]
    return [variable(one.name) for one in PLAIN] + secrets + environment_names()


def child_environment(changes: Mapping[str, str], *, keep: tuple[str, ...] = ()) -> dict[str, str]:
    """Return a child's environment: ours, of our settings those whose name begins with one of `keep`, and `changes`.

    The folders that hold our packages are on its path, also where we run from a checkout that nobody installed.
    """
    ours = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    ours |= {name: text for name, text in os.environ.items() if name.startswith(keep)}
    root = Path(__file__).resolve().parent.parent.parent
    folders = [str(root), str(root / "api_contracts" / "python"), os.environ.get("PYTHONPATH", "")]
    return ours | {"PYTHONPATH": os.pathsep.join(filter(None, folders))} | dict(changes)


def _cross_checks(settings: Settings) -> tuple[str, ...]:
    lease_s, beat_s, tick_s, window_s = settings.lease_s, settings.beat_s, settings.tick_s, settings.window_s
    found = []
    if lease_s <= 2 * beat_s:
        found.append(f"lease_s is {lease_s:g} but beat_s is {beat_s:g}; the lease must outlive two heartbeats.")
    if lease_s <= 2 * tick_s:
        found.append(f"lease_s is {lease_s:g} but tick_s is {tick_s:g}; the lease must outlive two ticks.")
    if window_s < tick_s:
        found.append(f"window_s is {window_s:g} but tick_s is {tick_s:g}; the window must last from tick to tick.")
    if settings.database_schema and (settings.database_url or "").startswith("sqlite"):
        found.append(f"database_schema is {settings.database_schema!r} but SQLite has no schemas; leave it out.")
    if settings.webhook_allow_urls and not settings.secret_keys:
        found.append(
            "webhook_allow_urls is true but secret_keys is not set, and what goes to these addresses is signed; make a "
            "key with: afterword secrets new-key"
        )
    if settings.loop == "uvloop" and find_spec("uvloop") is None:
        found.append("loop is 'uvloop' but uvloop is not installed; run `pip install uvloop` or leave it out.")
    return tuple(found)
