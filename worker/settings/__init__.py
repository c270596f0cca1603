"""Reads all settings, the AFTERWORD_ variables, and checks them together before anything starts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from worker.core.endpoint import Endpoint
from worker.settings import values
from worker.settings.endpoints import DEFAULT, environment_names, read_endpoints
from worker.settings.sources import PREFIX, Environment, nearest, toml, unknown_names
from worker.settings.tenants import ANY, read_weights
from worker.settings.values import Reader

# The sections of the TOML file.
SECTIONS = ("endpoints", "tenants")


class BadSettings(ValueError):
    """The settings are invalid. `errors` has a sentence for each fault."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def _setting(default: Any, reader: Reader, text: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"reader": reader, "text": text, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. The variable of `lease_s` is AFTERWORD_LEASE_S, and so on; ops/settings.md lists them."""

    database_url: str | None = _setting(None, values.DATABASE_URL, "The database for jobs and results.", secret=True)
    database_schema: str | None = _setting(
        None, values.SCHEMA_NAME, "PostgreSQL only: the schema for our tables; not set: the connection's first schema."
    )
    redis_url: str | None = _setting(None, values.REDIS_URL, "The Redis server for Celery's queues.", secret=True)
    config: Path | None = _setting(None, values.FILE, "A TOML file with named endpoints and tenants.")  # noqa: RUF009  a field
    concurrency: int = _setting(
        100, values.whole(1, 100_000), "Maximum number of calls in flight in one worker process."
    )
    webhook_slots: int = _setting(
        100,
        values.whole(1, 10_000),
        "Maximum number of deliveries in flight in one worker process; one tenant gets at most half of them.",
    )
    lease_s: float = _setting(
        30.0,
        values.seconds(0.05, 3600),
        "A worker without a heartbeat for this long is dead; its jobs are queued again.",
    )
    beat_s: float = _setting(1.0, values.seconds(0.01, 60), "A worker renews its lease this often.")
    tick_s: float = _setting(1.0, values.seconds(0.01, 60), "The dispatcher looks for due jobs this often.")
    window_s: float = _setting(
        2.0,
        values.seconds(0.01, 600),
        "Seconds of deliveries to keep ready in Redis for the workers; of jobs usually half a second, at most this.",
    )
    drain_s: float = _setting(
        30.0, values.seconds(0, 86400), "A stopping worker waits this long for its calls, then queues their jobs again."
    )
    job_ttl_s: float = _setting(
        86400.0,
        values.seconds(1, 10 * 365 * 86400),
        "Time from acceptance to the deadline of jobs that set no deadline.",
    )
    max_request_bytes: int = _setting(16 * 2**20, values.whole(1024, 2**30), "The largest accepted request.")
    intake_batch: int = _setting(256, values.whole(1, 1000), "Maximum number of messages accepted in one transaction.")
    writer_batch: int = _setting(
        100, values.whole(1, 1000), "Maximum number of writes of running jobs in one transaction."
    )
    http_transport: Literal["aiohttp", "httpx"] = _setting(
        "aiohttp", values.choice("aiohttp", "httpx"), "The HTTP library for calls; `httpx` is slower and simpler."
    )
    loop: Literal["asyncio", "uvloop"] = _setting(
        "asyncio", values.choice("asyncio", "uvloop"), "The event loop; install the package `uvloop` to use it."
    )
    log_format: Literal["console", "json"] | None = _setting(
        None, values.choice("console", "json"), "The format of log lines; not set: console on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", values.choice("debug", "info", "warning", "error"), "The lowest level that is logged."
    )
    data_dir: Path | None = _setting(  # noqa: RUF009  a field
        None, values.FOLDER, "The data folder of `afterword dev`; not set: a temporary folder, deleted at the end."
    )
    secret_keys: tuple[str, ...] = _setting(
        (),
        values.SECRET_KEYS,
        "Keys that encrypt receivers' secrets: the first encrypts, all decrypt. Required once there is a secret.",
        secret=True,
    )
    webhook_allow_cidrs: tuple[values.Network, ...] = _setting(
        (), values.NETWORKS, "Private networks to allow for webhooks; not set: none."
    )
    webhook_deny_cidrs: tuple[values.Network, ...] = _setting(
        (), values.NETWORKS, "Networks to forbid for webhooks, such as your own public ones; not set: none."
    )
    webhook_ports: tuple[int, ...] = _setting(
        (),
        values.PORTS,
        "More ports to allow for webhooks to public addresses, besides 443 and (without TLS) 80; not set: none.",
    )
    webhook_nat64: bool = _setting(
        False, values.FLAG, "This host uses NAT64: a 64:ff9b::/96 address is checked as the IPv4 address inside it."
    )
    webhook_ca_file: str | None = _setting(
        None, values.FILE, "The only CA certificates to trust for webhooks, PEM; not set: the system's."
    )
    webhook_egress_proxy: str | None = _setting(
        None,
        values.EGRESS_PROXY,
        "A forward proxy for all webhooks. It resolves the host names, and must itself block forbidden addresses.",
        secret=True,
    )
    webhook_allow_http: bool = _setting(False, values.FLAG, "Allow webhooks without TLS (http://).")
    webhook_allow_urls: bool = _setting(
        False, values.FLAG, 'Allow a job to name a webhook URL, `"webhook": {"url": …}`.'
    )
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def weight(self, tenant: str) -> float:
        """Return a tenant's part of the tokens, in relation to the parts of other tenants."""
        return self.weights.get(tenant, self.weights.get(ANY, 1.0))

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint `default`, for jobs without an endpoint."""
        return self.endpoints.get(DEFAULT)


PLAIN = tuple(setting for setting in fields(Settings) if "reader" in setting.metadata)


def read(environ: Mapping[str, str]) -> Settings:
    """Return the settings from environment variables; raise BadSettings with all faults at once."""
    environment = Environment(environ)
    given: dict[str, Any] = {}
    for setting in PLAIN:
        name, secret = variable(setting.name), setting.metadata["secret"]
        text = environment.text(name, secret=secret)
        given[setting.name] = environment.value(name, text, setting.metadata["reader"], secret=secret)
    given["config"] = Path(given["config"]) if given["config"] else None
    document = toml(environment, given["config"]) if given["config"] is not None else {}
    for name in sorted(document.keys() - set(SECTIONS)):
        section = f"[{name}] in {given['config']}"
        environment.errors.append(f"{section} is not a known section; {nearest(name, list(SECTIONS))}")
    given["endpoints"] = read_endpoints(environment, given["config"], document.get("endpoints", {}))
    given["weights"] = read_weights(environment, document.get("tenants", {}))
    unknown_names(environment, known_names())
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    errors = (*environment.errors, *_cross_checks(settings))
    if errors:
        raise BadSettings(errors)
    return settings


def load() -> Settings:
    """Return the settings of this process; raise BadSettings with all faults at once."""
    return read(os.environ)


def need(settings: Settings, *names: str) -> None:
    """Raise BadSettings if any of these fields is None: `need(settings, "database_url", "endpoint")`."""
    missing = [name for name in names if getattr(settings, name) is None]
    if not missing:
        return
    texts = ["AFTERWORD_ENDPOINT_URL" if name == "endpoint" else variable(name) for name in missing]
    verb = "is" if len(texts) == 1 else "are"
    listed = " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)
    raise BadSettings((f"{listed} {verb} not set; set what is missing, or try `afterword dev`.",))


def variable(name: str) -> str:
    """Return the environment variable of a field: `lease_s` gives `AFTERWORD_LEASE_S`."""
    return f"{PREFIX}{name.upper()}"


def known_names() -> list[str]:
    """Return all AFTERWORD_ variables, with the `_FILE` variables of secrets."""
    secrets = [f"{variable(setting.name)}_FILE" for setting in PLAIN if setting.metadata["secret"]]
    return [variable(setting.name) for setting in PLAIN] + secrets + environment_names()


def child_environment(changes: Mapping[str, str], *, keep: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the environment for a child process: ours without AFTERWORD_ variables, plus `changes`.

    AFTERWORD_ variables that start with one of `keep` stay. PYTHONPATH gets the folders of our packages, so the child
    also runs from a checkout that is not installed.
    """
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    inherited |= {name: text for name, text in os.environ.items() if name.startswith(keep)}
    root = Path(__file__).resolve().parent.parent.parent
    folders = [str(root), str(root / "api_contracts" / "python"), os.environ.get("PYTHONPATH", "")]
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, folders))} | dict(changes)


def _cross_checks(settings: Settings) -> tuple[str, ...]:
    lease_s, beat_s, tick_s, window_s = settings.lease_s, settings.beat_s, settings.tick_s, settings.window_s
    found = []
    if lease_s <= 2 * beat_s:
        found.append(f"lease_s is {lease_s:g} but beat_s is {beat_s:g}; the lease must outlive two heartbeats.")
    if lease_s <= 2 * tick_s:
        found.append(f"lease_s is {lease_s:g} but tick_s is {tick_s:g}; the lease must outlive two ticks.")
    if window_s < tick_s:
        found.append(f"window_s is {window_s:g} but tick_s is {tick_s:g}; the window must last at least one tick.")
    if settings.database_schema and (settings.database_url or "").startswith("sqlite"):
        found.append(f"database_schema is {settings.database_schema!r} but SQLite has no schemas; leave it out.")
    if settings.webhook_allow_urls and not settings.secret_keys:
        found.append(
            "webhook_allow_urls is true but secret_keys is not set; webhooks to these URLs are signed and need a key: "
            "make one with `afterword secrets new-key`."
        )
    if settings.loop == "uvloop" and find_spec("uvloop") is None:
        found.append("loop is 'uvloop' but uvloop is not installed; run `pip install uvloop` or leave it out.")
    return tuple(found)
