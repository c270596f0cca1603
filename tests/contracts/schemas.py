"""Loads the contracts for the tests of this folder."""

import json
from pathlib import Path

import jsonschema
from jsonschema.protocols import Validator
from referencing import Registry, Resource

CONTRACTS = Path(__file__).parents[2] / "api_contracts"
SCHEMAS = ("chat_request", "job_message", "chat_completion", "webhook_event")
REQUESTS = sorted((CONTRACTS / "examples" / "requests").glob("*.json"))
RESPONSES = sorted((CONTRACTS / "examples" / "responses").glob("*.json"))
EVENTS = sorted((CONTRACTS / "examples" / "events").glob("*.json"))


def load(path):
    return json.loads(path.read_text())


def schema(name):
    return load(CONTRACTS / f"{name}.schema.json")


REGISTRY = Registry().with_resources((f"{name}.schema.json", Resource.from_contents(schema(name))) for name in SCHEMAS)


def _is_integer(_checker, value):
    return isinstance(value, int) and not isinstance(value, bool)


# JSON Schema calls 2.0 an integer; the validator does not, nor do gateways written in Go.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def validator(name) -> Validator:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return _Validator(schema(name), registry=REGISTRY, format_checker=checker)
