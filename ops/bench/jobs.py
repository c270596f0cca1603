"""Measure the figures of whole jobs in one run: `python ops/bench/jobs.py [--peers VENV] [--only NAME ...]`.

ops/bench/README.md explains the figures and lists results.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import drain
import drain_peers
import intake
import latency
import repair
import scale
from drain import Drained
from parts import Parts, parts

DATABASES = ("postgresql", "sqlite")
IN_FLIGHT = (200, 500)
PREFORK_JOBS = 600  # it does 37 jobs/s


def drained(here: Parts, args: argparse.Namespace) -> Iterator[str]:
    """Run ours and the peers by turns, so other work on the machine disturbs all of them alike."""
    best: dict[str, Drained] = {}
    for _ in range(args.rounds):
        found = [drain.ours(here, kind, slots, jobs=args.jobs) for kind in DATABASES for slots in IN_FLIGHT]
        for peer in drain_peers.PEERS if args.peers else ():
            jobs = args.jobs if peer.in_flight > 8 else min(PREFORK_JOBS, args.jobs)
            found.append(drain_peers.run(here, peer, args.peers, jobs=jobs))
        for figure in found:
            if figure.name not in best or figure.cpu_ms < best[figure.name].cpu_ms:
                best[figure.name] = figure
    for figure in best.values():
        rate, memory = f"{figure.jobs_per_s:6.0f} jobs/s", f"{figure.resident_mb:5.0f} MB"
        yield f"{figure.name:40} {figure.cpu_ms:6.2f} ms CPU a job {rate} {memory}   {figure.loaded}"
    if args.peers:
        yield from _ratios(list(best.values()))


def _ratios(figures: list[Drained]) -> Iterator[str]:
    peers = [figure for figure in figures if not figure.name.startswith(drain.OURS)]
    cheapest, fastest = min(peer.cpu_ms for peer in peers), max(peer.jobs_per_s for peer in peers)
    for figure in figures:
        if figure not in peers:
            ratios = f"{figure.cpu_ms / cheapest:.2f} of its CPU, {figure.jobs_per_s / fastest:.1f} times its jobs/s"
            yield f"{figure.name:40} ÷ the best peer: {ratios}"


def idle(here: Parts, args: argparse.Namespace) -> Iterator[str]:
    for kind in DATABASES:
        found = latency.idle(here, kind, jobs=args.samples)
        for name, (p50, p99) in (("submit → wire", found.to_wire), ("last byte → row", found.to_row)):
            yield f"idle, {kind}, {name:20} p50 {p50:6.1f} ms, p99 {p99:6.1f} ms   {found.loaded}"


def taken_in(here: Parts, args: argparse.Namespace) -> Iterator[str]:
    for kind in DATABASES:
        rate, cpu_ms, loaded = intake.flood(here, kind, messages=args.messages)
        yield f"intake, {kind:32} {rate:8,.0f} messages/s, {cpu_ms:.3f} ms CPU each   {loaded}"
    rate, drained_rate, loaded = intake.enqueue_many(here, jobs=args.messages)
    rates = f"{rate:8,.0f} jobs/s enqueued, {drained_rate:,.0f} a second accepted"
    yield f"{'enqueue_many, postgresql':40} {rates}   {loaded}"


def repaired(here: Parts, args: argparse.Namespace) -> Iterator[str]:
    seconds, loaded = repair.flushall(here, rows=10_000)
    yield f"FLUSHALL, 10,000 rows queued → every slot busy       {seconds:5.2f} s   {loaded}"
    seconds, loaded = repair.sigkill(here)
    yield f"SIGKILL → queued again, beyond the lease             {seconds:5.2f} s   {loaded}"


def scaled(here: Parts, args: argparse.Namespace) -> Iterator[str]:
    base: scale.Costs | None = None
    for filling in scale.FILLINGS:
        found = scale.measure(here, filling)
        base = base or found
        claims = f"claim {found.claim_ms:.3f} ms ({found.claim_ms / base.claim_ms:.2f})"
        ticks = f"tick {found.tick_ms:.1f} ms ({found.tick_ms / base.tick_ms:.2f})"
        yield f"{filling.name:40} {claims}, {ticks}   {found.loaded}"


FIGURES = {"drain": drained, "idle": idle, "intake": taken_in, "repair": repaired, "scale": scaled}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, metavar="VENV", help="environment of the peers; runs them too")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--jobs", type=int, default=3000, help="jobs that each worker drains")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of draining; the best counts")
    parser.add_argument("--samples", type=int, default=100, help="jobs submitted one by one")
    parser.add_argument("--messages", type=int, default=20_000, help="messages of the intake figure")
    args = parser.parse_args()
    with parts() as here:
        for name in args.only:
            for line in FIGURES[name](here, args):
                print(line, flush=True)


if __name__ == "__main__":
    main()
