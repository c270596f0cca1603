"""The contracts are well-formed, and the schemas accept and refuse the same values as the code."""

import json

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from openapi_spec_validator.readers import read_from_filename

from tests.contracts.mutants import MESSAGE_VALUES, NAMES, VALUES, mutants
from tests.contracts.schemas import CONTRACTS, REQUESTS, SCHEMAS, load, schema, validator
from worker.chat.request import validate as faults_of
from worker.chat.request_fields import RULES
from worker.core.endpoint import Endpoint
from worker.jobs.core.message import DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, Job, Refusal, read_job
from worker.jobs.core.message_fields import FIELDS

ENDPOINTS = {"default": Endpoint("default", url="https://one.example/v1/chat/completions")}
ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"

CHAT = validator("chat_request")
MESSAGE = validator("job_message")

# Part of the code's message for the only rule between fields that JSON Schema cannot express.
BEYOND_SCHEMA = "it must name a function of tools"


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_a_schema(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_the_openapi_document_is_valid():
    spec, url = read_from_filename(str(CONTRACTS / "openapi.yaml"))
    validate(spec, base_uri=url, cls=OpenAPIV31SpecValidator)


def test_the_openapi_document_shows_values_its_schemas_accept():
    spec = yaml.safe_load((CONTRACTS / "openapi.yaml").read_text())
    post = spec["paths"]["/v1/chat/completions"]["post"]
    request = post["requestBody"]["content"]["application/json"]
    response = post["responses"]["200"]["content"]["application/json"]
    CHAT.validate(request["examples"]["minimal"]["value"])
    validator("chat_completion").validate(response["examples"]["document"]["value"])


def test_schema_and_code_know_the_same_fields():
    assert list(schema("chat_request")["properties"]) == list(RULES["document"])
    assert list(schema("job_message")["properties"]) == list(FIELDS)
    assert set(RULES["openai"]) == set(RULES["shape"]) == set(RULES["document"])


def test_schema_and_code_have_the_same_defaults():
    fields = schema("job_message")["properties"]
    assert fields["priority"]["default"] == DEFAULT_PRIORITY
    assert fields["max_attempts"]["default"] == DEFAULT_MAX_ATTEMPTS


RICH = [load(path)["request"] for path in REQUESTS]
RICH.append(
    {
        **load(CONTRACTS / "examples/requests/all_roles.json")["request"],
        "stream": True, "stream_options": {"include_usage": True}, "stop": ["a"], "n": 1, "seed": 1, "user": "u",
        "temperature": 1, "top_p": 1, "max_tokens": 1, "max_completion_tokens": 1, "presence_penalty": 0,
        "frequency_penalty": 0, "logit_bias": {"1": 1}, "tool_choice": "auto", "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}, "modalities": ["text", "audio"],
        "audio": {"voice": "a", "format": "wav"},
    }
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(mutants(RICH, NAMES, VALUES))
def test_schema_and_validator_give_the_same_verdict_on_requests(request):
    seen = [fault for fault in faults_of(request, "document") if BEYOND_SCHEMA not in fault.message]
    errors = [error.message for error in CHAT.iter_errors(request)]
    assert bool(seen) == bool(errors), (seen, errors)


MESSAGES = [load(path) for path in REQUESTS]
MESSAGE_NAMES = [*(name for name in FIELDS if name != "request"), "prio", "to", "a"]


FIELDS_ALONE = [{name: value for name, value in job.items() if name != "request"} for job in MESSAGES]


def is_beyond_schema(fault):
    """Return True for faults about settings or the order of two times: a schema cannot check these."""
    return "not configured" in fault.message or "before the deadline" in fault.message


@settings(max_examples=300, deadline=None)
@given(mutants(FIELDS_ALONE, MESSAGE_NAMES, MESSAGE_VALUES))
def test_schema_and_reader_give_the_same_verdict_on_messages(fields):
    job = {**fields, "request": {"model": "m", "messages": [{"role": "user", "content": "x"}]}}
    outcome = read_job(json.dumps(job), default_id=ID, endpoints=ENDPOINTS, max_request_bytes=10_000)
    passes = isinstance(outcome, Job) or (
        isinstance(outcome, Refusal) and all(is_beyond_schema(fault) for fault in outcome.faults)
    )
    errors = [error.message for error in MESSAGE.iter_errors(job)]
    assert passes == (not errors), (outcome, errors)
