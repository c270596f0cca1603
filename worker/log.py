"""Configure logging once at start: our log lines and those of Celery and kombu use the same structlog chain."""

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
from worker.settings.masks import secrets_in

REDACTED = "[redacted]"
SECRET_NAMES = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "password", "secret", "api_key"}
)
# A Bearer value, keys in the form of known providers, and a password inside a URL.
SHAPES = re.compile(
    r"(?i)(bearer\s+)[\w.~+/=-]{6,}|\b(?:sk|rk|pk|xai|gsk)-[\w-]{8,}|(?<=://)([^\s/@:\"']*):[^\s/@\"']+(?=@)"
)
# The logger of refused and failed control commands.
CONTROL = "kombu.pidbox"
# Below WARNING the libraries log addresses or pieces of requests and answers. Celery's two lines per task (received,
# succeeded) repeat our line of each attempt.
TALKATIVE = (
    "httpx", "httpcore", "aiohttp", "asyncio", "sqlalchemy", "alembic", "kombu", "amqp",
    "celery.app.trace", "celery.worker.strategy",
)  # fmt: skip


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error), as text or JSON; the last call wins."""
    target = stream if stream is not None else sys.stderr
    console = settings.log_format == "console" or (settings.log_format is None and target.isatty())
    sink = logging.StreamHandler(target)
    sink.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_render(console=console, colours=target.isatty()),
                redactor(secrets_of(settings)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [sink]
    root.setLevel(settings.log_level.upper())
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger(CONTROL).addFilter(_make_warning)
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


def _make_warning(record: logging.LogRecord) -> bool:
    """Turn kombu's error with a traceback into a warning, because any client of Redis can cause it by a command."""
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


def _render(*, console: bool, colours: bool) -> list[Processor]:
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
    """Return the last step of the chain: it removes these secrets, and texts that look like secrets, from a line.

    It works on the finished line, because a traceback or a foreign logger can have a secret anywhere.
    """
    forms = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}
    known = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) or r"(?!)")

    def redact(_: object, __: str, line: Any) -> str:
        return SHAPES.sub(_redact_shape, known.sub(REDACTED, line))

    return redact


def _redact_shape(match: re.Match[str]) -> str:
    if match[1]:
        return f"{match[1]}{REDACTED}"
    return f"{match[2]}:{REDACTED}" if match[2] is not None else REDACTED


def secrets_of(settings: Settings) -> list[str]:
    """Return the secrets in the settings, without short ones, because those would also match normal words."""
    texts: list[str] = []
    for endpoint in settings.endpoints.values():
        texts += [endpoint.key or "", *secrets_in(endpoint.proxy), *secrets_in(endpoint.url)]
        # A header may hold a key, or only a team's name; short values are often words that log lines need.
        texts += [text for text in endpoint.headers.values() if len(text) >= 16]
    for url in (settings.database_url, settings.redis_url, settings.webhook_egress_proxy):
        texts += secrets_in(url)
    # Each secret as in the settings, decoded, and quoted again as libraries do when they build a URL.
    decoded = {unquote(text) for text in texts}
    quoted = {quote(text, safe=safe) for text in decoded for safe in ("", "/")}
    return [form for form in {*texts, *decoded, *quoted} if len(form) >= 6]
