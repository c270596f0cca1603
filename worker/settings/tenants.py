"""Reads the weights of tenants from the TOML file of AFTERWORD_CONFIG."""

from collections.abc import Mapping
from typing import Any

from worker.settings.masks import mask_secrets
from worker.settings.sources import Environment, nearest

LEAST_WEIGHT, MOST_WEIGHT = 0.01, 1000.0
# The section of all tenants without their own.
ANY = "*"
FIELDS = ("weight",)


def read_weights(environment: Environment, tables: object) -> dict[str, float]:
    """Return the weights by tenant from the sections `[tenants.NAME]`; each fault adds a sentence."""
    if not isinstance(tables, Mapping):
        environment.errors.append("tenants is not a section; write [tenants.NAME].")
        return {}
    weights: dict[str, float] = {}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            environment.errors.append(f"tenants.{name} is not a section; write [tenants.{name}].")
            continue
        for field, content in table.items():
            if field not in FIELDS:
                environment.errors.append(
                    f"{field} in [tenants.{name}] is not a setting of a tenant; {nearest(field, list(FIELDS))}"
                )
            elif (weight := _weight(content)) is not None:
                weights[name] = weight
            else:
                environment.errors.append(
                    f"[tenants.{name}] weight is {_text(content)}; it must be from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}."
                )
    return weights


def _weight(content: Any) -> float | None:
    is_number = type(content) in (int, float)
    return float(content) if is_number and LEAST_WEIGHT <= content <= MOST_WEIGHT else None


def _text(content: Any) -> str:
    return mask_secrets(content) if isinstance(content, str) else str(content)
