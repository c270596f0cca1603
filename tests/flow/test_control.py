"""Remote control of real workers: each has its own node name, and a refused command is one line of the log."""

from celery import Celery

from tests.flow.system import System, request
from tests.pool.workers import until


def control_of(system: System) -> Celery:
    app = Celery(broker=system.redis_url, set_as_current=False)
    app.conf.control_exchange = "afterword"
    return app


def test_two_workers_of_one_host_are_both_inspected(sqlite_system: System) -> None:
    system = sqlite_system
    system.start("-c", "2")
    system.start("-c", "2")
    jobs = [system.send(request("hello", model="fake-stall", stream=True)) for _ in range(4)]
    for job in jobs:
        system.await_status(job, "in_progress")

    with control_of(system) as app:
        active = until(lambda: app.control.inspect(timeout=2).active(), what="the workers' answers")

    assert len(active) == 2
    assert all(name.startswith("afterword-") for name in active)
    assert sorted(task["args"][0] for tasks in active.values() for task in tasks) == sorted(jobs)


def test_a_refused_control_command_is_one_warning_without_a_traceback(sqlite_system: System) -> None:
    system = sqlite_system
    worker = system.start()
    with control_of(system) as app:
        until(lambda: app.control.ping(timeout=1), what="an answer to ping")
        for command, arguments in (("shutdown", {}), ("pool_grow", {"n": 5}), ("query_task", {"wrong": 1})):
            app.control.broadcast(command, arguments=arguments)
        until(lambda: len(refusals(system)) == 3, what="three warnings")
        assert app.control.ping(timeout=2)

    assert {line["level"] for line in refusals(system)} == {"warning"}
    assert "Traceback" not in worker.text()


def refusals(system: System) -> list[dict[str, str]]:
    return [line for line in system.parsed_lines() if line.get("logger") == "kombu.pidbox"]
