"""Logging, configured once at start: our lines and those of Celery and kombu leave through one structlog chain."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO
from urllib.parse import quote, unquote

import structlog
from structlog.types import EventDict, Processor

from worker.core.printable import printable_values
from worker.settings import Settings
from worker.settings.masking import secrets_in

REDACTED = "[redacted]"
SECRET_NAMES = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "password", "secret", "api_key"}
)
# A Bearer value, keys as providers write them, and a password inside an address.
SHAPES = re.compile(
    r"(?i)(bearer\s+)[\w.~+/=-]{6,}|\b(?:sk|rk|pk|xai|gsk)-[\w-]{8,}|(?<=://)([^\s/@:\"']*):[^\s/@\"']+(?=@)"
)
# The logger of refused and failed control commands.
CONTROL = "kombu.pidbox"
# Below WARNING the first ones log addresses or pieces of what was on the wire, and Celery's two lines a task
# (received, succeeded) repeat what `run` says once.
TALKATIVE = (
    "httpx", "httpcore", "aiohttp", "asyncio", "sqlalchemy", "alembic", "kombu", "amqp",
    "celery.app.trace", "celery.worker.strategy",
)  # fmt: skip


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error), as text or JSON; a second call replaces it."""
    target = stream if stream is not None else sys.stderr
    console = settings.log_format == "console" or (settings.log_format is None and target.isatty())
    sink = logging.StreamHandler(target)
    sink.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_last(console=console, colours=target.isatty()),
                redactor(secrets_of(settings)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [sink]
    root.setLevel(settings.log_level.upper())
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger(CONTROL).addFilter(_refused)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _refused(record: logging.LogRecord) -> bool:
    """Make a warning of the error that kombu logs with a traceback: anyone who reaches Redis can send a command."""
    record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
    return True


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
        _hide_named,
    ]


def _last(*, console: bool, colours: bool) -> list[Processor]:
    if console:
        rendered = structlog.dev.ConsoleRenderer(colors=colours, timestamp_key="at")
        return [structlog.processors.format_exc_info, _make_printable, rendered]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _make_printable(_: object, __: str, event: EventDict) -> EventDict:
    return {name: printable_values(value) for name, value in event.items()}


def _hide_named(_: object, __: str, event: EventDict) -> EventDict:
    for name in SECRET_NAMES.intersection(event):
        event[name] = REDACTED
    return event


def redactor(secrets: Iterable[str]) -> Callable[[object, str, Any], str]:
    """Return the last step of the chain: it takes these secrets, and all that looks like one, out of a finished line.

    It works on the line, not on its parts, because a traceback or a foreign logger can hold a secret anywhere.
    """
    written = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}
    known = re.compile("|".join(re.escape(form) for form in sorted(written, key=len, reverse=True)) or r"(?!)")

    def redact(_: object, __: str, line: Any) -> str:
        return SHAPES.sub(_shape, known.sub(REDACTED, line))

    return redact


def _shape(found: re.Match[str]) -> str:
    if found[1]:
        return f"{found[1]}{REDACTED}"
    return f"{found[2]}:{REDACTED}" if found[2] is not None else REDACTED


def secrets_of(settings: Settings) -> list[str]:
    """Return the settings' secrets that are long enough to be looked for without spoiling ordinary words."""
    texts: list[str] = []
    for endpoint in settings.endpoints.values():
        texts += [endpoint.key or "", *secrets_in(endpoint.proxy), *secrets_in(endpoint.url)]
        # A header may hold a key or just a team's name; the short ones are words that lines need.
        texts += [text for text in endpoint.headers.values() if len(text) >= 16]
    for url in (settings.database_url, settings.redis_url, settings.webhook_egress_proxy):
        texts += secrets_in(url)
    # As they are written, as they are read, and as a library that builds an address writes them.
    read = {unquote(text) for text in texts}
    written = {quote(text, safe=safe) for text in read for safe in ("", "/")}
    return [form for form in {*texts, *read, *written} if len(form) >= 6]
