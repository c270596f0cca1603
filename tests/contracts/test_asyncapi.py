"""The AsyncAPI document has the queues and webhooks of the code, and its schemas accept the messages of the code."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from tests.contracts.event_examples import ENDED_AT, EXAMPLES
from tests.contracts.schemas import CONTRACTS, SCHEMAS, load, schema
from worker.celeryconfig import QUEUES
from worker.jobs.entries import TASK
from worker.queue.envelope import decode
from worker.queue.nudges import TASKS, Nudge, nudge, read
from worker.webhooks.core.event import EventType
from worker.webhooks.core.payload import convenience_headers, webhook_id

PAGE = CONTRACTS / "asyncapi.yaml"
ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"
# The parser of the AsyncAPI Initiative, because no Python package validates documents of version 3.
PARSER = "@asyncapi/parser@3.6.6"
VALIDATE = """
const {Parser} = require('@asyncapi/parser')
const path = process.argv[1]
new Parser().validate(require('fs').readFileSync(path, 'utf8'), {source: path})
  .then(found => console.log(JSON.stringify(found.filter(each => each.severity < 2).map(each => each.message))))
"""

DOCUMENT = yaml.safe_load(PAGE.read_text())
MESSAGES = DOCUMENT["components"]["messages"]
_WHOLE = Resource.from_contents(DOCUMENT, default_specification=DRAFT202012)
_REGISTRY = Registry().with_resources(
    [("asyncapi.yaml", _WHOLE)] + [(f"{name}.schema.json", Resource.from_contents(schema(name))) for name in SCHEMAS]
)
RESOLVER = _REGISTRY.resolver("asyncapi.yaml")


def references(value):
    """List every $ref of a document."""
    if isinstance(value, str):
        return []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    here = [value["$ref"]] if isinstance(value, dict) and "$ref" in value else []
    return here + [reference for item in inner for reference in references(item)]


def accepts(path, value):
    """Return True if the schema at `path` of the document accepts `value`."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    at = {"$ref": f"asyncapi.yaml#/components/{path}"}
    return jsonschema.Draft202012Validator(at, registry=_REGISTRY, format_checker=checker).is_valid(value)


def celery_message(task, argument):
    body = base64.b64encode(json.dumps([[argument], {}, {}]).encode()).decode()
    return {"headers": {"task": task, "id": ID}, "body": body}


def names_of(channel):
    keys = [reference["$ref"].split("/")[-1] for reference in DOCUMENT["channels"][channel]["messages"].values()]
    return {MESSAGES[key]["name"] for key in keys}


def test_every_reference_leads_somewhere():
    found = references(DOCUMENT)
    assert len(found) > 30
    for reference in found:
        RESOLVER.lookup(reference)
    with pytest.raises(Unresolvable):
        RESOLVER.lookup("#/components/messages/none")


def test_the_queues_are_those_of_the_code_with_their_tasks():
    queues = {channel["address"]: key for key, channel in DOCUMENT["channels"].items() if channel["address"]}
    assert set(queues) == set(QUEUES)
    assert {queue: names_of(key) for queue, key in queues.items()} == {
        "chat.intake": {TASK},
        **{queue: {task} for queue, task in TASKS.items()},
    }


def test_a_receiver_is_told_every_event_of_the_code_and_no_other():
    assert names_of("receiver") == {*EventType, "openai"}


def test_each_channel_is_used_and_each_message_sent_on_one():
    channels = {operation["channel"]["$ref"].split("/")[-1] for operation in DOCUMENT["operations"].values()}
    assert channels == set(DOCUMENT["channels"])
    sent = [each["$ref"] for channel in DOCUMENT["channels"].values() for each in channel["messages"].values()]
    assert sorted(sent) == sorted(f"#/components/messages/{key}" for key in MESSAGES)


EVENT_EXAMPLES = [
    (key, name) for key, each in MESSAGES.items() for name in each.get("x-examples", []) if "events" in name
]


def test_each_example_event_is_one_message():
    assert sorted(Path(name).stem for _, name in EVENT_EXAMPLES) == sorted(EXAMPLES)


@pytest.mark.parametrize(("key", "name"), EVENT_EXAMPLES, ids=[name for _, name in EVENT_EXAMPLES])
def test_an_example_event_is_its_own_message_and_no_other(key, name):
    event = load(CONTRACTS / name)
    matching = [each for each in MESSAGES if "traits" in MESSAGES[each] and accepts(f"messages/{each}/payload", event)]
    assert matching == [key]


def test_the_example_job_is_a_message_of_intake():
    entry = load(CONTRACTS / "examples" / "redis_message.json")
    assert accepts("messages/submit/payload", entry)
    assert accepts("schemas/job", json.loads(decode(json.dumps(entry).encode()).arguments_text))
    assert not accepts("messages/submit/payload", celery_message("chat.run", ID))


@pytest.mark.parametrize(("queue", "kind"), [("chat.run", "run"), ("webhooks", "deliver")])
def test_what_a_nudge_is_to_the_code_it_is_to_the_document(queue, kind):
    entry, message = nudge(ID, 3), celery_message(TASKS[queue], ID)
    for found in (read(queue, entry), read(queue, json.dumps(message).encode())):
        assert isinstance(found, Nudge) and found.row_id == ID
    assert accepts(f"messages/{kind}Nudge/payload", entry.decode())
    assert accepts(f"messages/{kind}Task/payload", message)
    assert not accepts(f"messages/{kind}Nudge/payload", ID)
    assert not accepts(f"messages/{kind}Task/payload", celery_message(TASK, ID))


def test_the_headers_of_a_webhook_are_those_of_the_code():
    ours = convenience_headers(EventType.failed, delivery_id=ID, attempt=3, first_attempt_at=ENDED_AT)
    signed = {
        "content-type": "application/json",
        "webhook-id": webhook_id("evt_1", "orders"),
        "webhook-timestamp": "1764040000",
        "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1a,aGVsbG8gZ29vZCB3b3JsZA==",
    }
    headers = MESSAGES["jobFailed"]["traits"][0]["$ref"].removeprefix("#/components/") + "/headers"
    assert set(RESOLVER.lookup(f"#/components/{headers}").contents["properties"]) == {*signed, *ours}
    assert accepts(headers, {**signed, **ours})
    for name in signed:
        assert not accepts(headers, {**signed, name: "msg.1"})


@pytest.fixture(scope="module")
def asyncapi_parser(tmp_path_factory):
    """Install the parser with npm. Skip the test if node, npm or the registry is missing."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("asyncapi")
    install = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", PARSER]
    done = subprocess.run(install, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"npm could not install {PARSER}: {done.stderr[-300:]}")
    return folder


def problems(folder, page):
    done = subprocess.run(
        ["node", "-e", VALIDATE, str(page)], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_document_is_valid_to_the_parser_of_asyncapi(asyncapi_parser, tmp_path):
    assert problems(asyncapi_parser, PAGE) == []
    damaged = tmp_path / "asyncapi.yaml"
    damaged.write_text(PAGE.read_text().replace("action: send", "action: shout", 1))
    assert problems(asyncapi_parser, damaged)
