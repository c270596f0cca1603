"""Shows settings to people: the values in effect with masked secrets, and the reference page ops/settings.md."""

from dataclasses import fields
from typing import Any

from worker.core.endpoint import Endpoint
from worker.settings import PLAIN, Settings, variable
from worker.settings.endpoints import DEFAULTS, ENV, FIELDS, SECRETS
from worker.settings.masks import MASK, masked_url

HEAD = """\
# Settings

`afterword config --reference` prints this page; a test compares it with the code. `afterword config` shows the values
in effect.

Every setting is an environment variable. An empty variable counts as not set. An unknown variable that begins with
`AFTERWORD_` is an error. All errors are reported together. A setting marked *file* below can also be read from a file:
put the path into the variable with `_FILE` at the end, such as `AFTERWORD_DATABASE_URL_FILE`.
"""
ENDPOINTS = """
## Endpoints

Variables describe the endpoint `default`. The TOML file in `AFTERWORD_CONFIG` describes the other endpoints:

```toml
[endpoints.fast]
url = "https://llm.example.com/v1"
key_env = "FAST_KEY"            # or key_file = "/run/secrets/fast_key"; never the key itself
idle_s = 30
headers = { "X-Team" = "search" }
```

File names are relative to the folder of the TOML file. The file can also have a section `[endpoints.default]`; a
variable wins over its entry there.
"""
TENANTS = """
## Tenants

Tenants whose jobs wait for the same endpoint share it by tokens. A section of the TOML file in `AFTERWORD_CONFIG`
gives a tenant a larger or a smaller part:

```toml
[tenants.acme]
weight = 3                      # from 0.01 to 1000; three times the tokens of a tenant with weight 1
[tenants."*"]
weight = 1                      # all other tenants; 1 if not set
```

The worker that dispatches reads its own file, so give all workers the same file.
"""


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings by variable as JSON values: `{"AFTERWORD_LEASE_S": 30.0, …}`. Secrets are masked."""
    shown: dict[str, Any] = {}
    for setting in PLAIN:
        value = getattr(settings, setting.name)
        shown[variable(setting.name)] = _plain(value, secret=setting.metadata["secret"])
    shown["AFTERWORD_CONFIG"] = str(settings.config) if settings.config else None
    shown["AFTERWORD_DATA_DIR"] = str(settings.data_dir) if settings.data_dir else None
    shown["endpoints"] = {name: _endpoint(endpoint) for name, endpoint in settings.endpoints.items()}
    shown["tenants"] = {name: {"weight": weight} for name, weight in settings.weights.items()}
    return shown


def _plain(value: Any, *, secret: bool) -> Any:
    if isinstance(value, tuple):
        return [MASK if secret else str(element) for element in value]
    return masked_url(str(value)) if secret and value is not None else value


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    shown = {field.name: getattr(endpoint, field.name) for field in fields(Endpoint) if field.name != "name"}
    shown["url"] = masked_url(endpoint.url)
    shown["key"] = MASK if endpoint.key else None
    shown["proxy"] = masked_url(endpoint.proxy) if endpoint.proxy else None
    shown["headers"] = dict.fromkeys(endpoint.headers, MASK)
    return shown


def reference() -> str:
    """Return ops/settings.md, the page of all settings in Markdown."""
    plain = [
        _row(f"`{variable(setting.name)}`", setting.metadata["reader"].expects, setting.default, setting.metadata)
        for setting in PLAIN
    ]
    endpoint = [
        _row(f"`{ENV}{name.upper()}`", reader.expects, DEFAULTS.get(name), {"text": text, "secret": name in SECRETS})
        for name, (reader, text) in FIELDS.items()
    ]
    table = ["| setting | takes | default | meaning |", "|---|---|---|---|"]
    return "\n".join([HEAD, *table, *plain, ENDPOINTS, *table, *endpoint, TENANTS])


def _row(name: str, expects: str, default: object, notes: Any) -> str:
    shown = (
        "" if default in (None, ()) else f"`{str(default).lower() if isinstance(default, bool) else _number(default)}`"
    )
    return f"| {name} | {expects}{', *file*' if notes['secret'] else ''} | {shown} | {notes['text']} |"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and value < 1e5 else str(value)
