"""Reads the endpoints: `default` from the environment, the others from the TOML file of AFTERWORD_CONFIG."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from worker.core.endpoint import Endpoint
from worker.settings import values
from worker.settings.sources import Environment, nearest
from worker.settings.values import Reader

DEFAULT = "default"
ENV = "AFTERWORD_ENDPOINT_"

# For each field of Endpoint except its name: the reader, and the description for ops/settings.md.
FIELDS: Mapping[str, tuple[Reader, str]] = {
    "url": (values.COMPLETIONS_URL, "The address for requests."),
    "key": (values.KEY, "The Bearer key. For `default`, `OPEAI_API_KEY` is used when this is not set."),
    "connect_s": (values.seconds(0.01, 300), "The longest wait for a connection."),
    "first_byte_s": (values.seconds(0.01, 86400), "The longest wait from the request to the answer's first byte."),
    "idle_s": (values.seconds(0.01, 86400), "The longest wait between two pieces of data; SSE comments do not count."),
    "total_s": (values.seconds(0.01, 86400), "The longest duration of a call; a job's `timeout_s` replaces it."),
    "max_response_bytes": (values.whole(1024, 2**31 - 1), "The largest accepted answer."),
    "proxy": (values.PROXY, "An HTTP proxy. Variables such as `HTTPS_PROXY` are ignored."),
    "ca_file": (values.FILE, "CA certificates to trust instead of the usual set, PEM."),
    "cert_file": (values.FILE, "Our client certificate, PEM."),
    "cert_key_file": (values.FILE, "The key of our client certificate, PEM."),
    "validation": (
        values.choice("document", "openai", "shape"),
        "The rules for requests: the endpoint's document, OpenAI's rules too, or the shape of the fields only.",
    ),
    "upstream": (
        values.choice("as_asked", "stream"),
        "`stream`: stream the answer of every job, because a long silence can end a connection.",
    ),
    "retry_partial": (values.FLAG, "Send the request again after a cut answer, although it was billed."),
    "retry_ambiguous": (values.FLAG, "Send the request again if no answer came, although it may have been billed."),
}
SECRETS = tuple(field.name for field in fields(Endpoint) if not field.repr and field.name in FIELDS)
DEFAULTS = {field.name: field.default for field in fields(Endpoint) if field.default is not MISSING}


def environment_names() -> list[str]:
    """Return all environment variables for the endpoint `default`."""
    names = [f"{ENV}{name.upper()}" for name in FIELDS]
    return names + [f"{ENV}{name.upper()}_FILE" for name in SECRETS]


def read_endpoints(environment: Environment, config: Path | None, sections: object) -> dict[str, Endpoint]:
    """Return the endpoints by name; `sections`: the TOML file's. For each field of `default` the environment wins."""
    tables = _tables(environment, config, sections)
    endpoints = {name: _from_table(environment, config, name, table) for name, table in tables.items()}
    default = endpoints.get(DEFAULT, {}) | _from_environment(environment)
    if default and "key" not in default and (key := environment.text("OPEAI_API_KEY")) is not None:
        default["key"] = environment.value("OPEAI_API_KEY", key, values.KEY, secret=True)
    if default:
        endpoints[DEFAULT] = default
    return {name: made for name, given in endpoints.items() if (made := _make(environment, name, given)) is not None}


def _make(environment: Environment, name: str, given: dict[str, Any]) -> Endpoint | None:
    where = "AFTERWORD_ENDPOINT" if name == DEFAULT else f"[endpoints.{name}]"
    if "url" not in given:
        environment.errors.append(f"{where} has settings but no url; set the address for its requests.")
        return None
    if given["url"] is None:  # its fault is already in `errors`
        return None
    made = Endpoint(name=name, **{field: value for field, value in given.items() if value is not None})
    if made.cert_key_file and not made.cert_file:
        environment.errors.append(f"{where} has a cert_key_file but no cert_file; a client certificate needs both.")
    return made


def _from_environment(environment: Environment) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for field, (reader, _) in FIELDS.items():
        name, secret = f"{ENV}{field.upper()}", field in SECRETS
        if (text := environment.text(name, secret=secret)) is not None:
            given[field] = environment.value(name, text, reader, secret=secret)
    return given


def _tables(environment: Environment, config: Path | None, tables: object) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    if not isinstance(tables, dict):
        environment.errors.append("endpoints is not a section; write [endpoints.NAME].")
        return found
    for name, table in tables.items():
        known = environment.value(f"[endpoints.{name}]", name, values.ENDPOINT_NAME)
        if known is not None and isinstance(table, dict):
            found[name] = table
        elif known is not None:
            environment.errors.append(f"endpoints.{name} in {config} is not a section; write [endpoints.{name}].")
    return found


def _from_table(environment: Environment, config: Path | None, name: str, table: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    folder = config.parent if config is not None else Path()
    for field, content in table.items():
        where = f"{field} in [endpoints.{name}]"
        if field == "headers":
            given[field] = _headers(environment, where, content)
        elif field == "key":
            environment.errors.append(f"{where} would put a secret into the file; use key_file or key_env instead.")
        elif (secret := field.rpartition("_")[0]) in SECRETS and field.endswith(("_file", "_env")):
            given[secret] = _secret(environment, where, folder, (field, str(content)))
        elif field in FIELDS:
            given[field] = environment.value(where, _plain(folder, field, content), FIELDS[field][0])
        else:
            known = [key for key in FIELDS if key != "key"] + ["key_file", "key_env", "headers"]
            environment.errors.append(f"{where} is not a setting of an endpoint; {nearest(field, known)}")
    return given


def _plain(folder: Path, field: str, content: object) -> str:
    if isinstance(content, bool):
        return str(content).lower()
    return str(folder / str(content)) if field.endswith("_file") else str(content)


def _secret(environment: Environment, where: str, folder: Path, source: tuple[str, str]) -> Any:
    field, text = source
    name = field.rpartition("_")[0]
    if field.endswith("_env"):
        found = environment.text(text)
        if found is None:
            environment.errors.append(f"{where} names the variable {text}, but {text} is not set; set it.")
    else:
        found = environment.read_secret(where, folder / text)
    return environment.value(where, found, FIELDS[name][0], secret=True)


def _headers(environment: Environment, where: str, content: object) -> dict[str, str] | None:
    if not isinstance(content, dict) or not all(isinstance(text, str) for text in content.values()):
        environment.errors.append(f'{where} must be a table of texts, as in headers = {{ "X-Team" = "search" }}.')
        return None
    for name, text in content.items():
        if not values.HEADER_NAME.fullmatch(name) or not values.HEADER_VALUE.fullmatch(text):
            environment.errors.append(
                f"{where} has {name!r}, but this header cannot be sent; use a name without spaces, and printable ASCII."
            )
    return content
