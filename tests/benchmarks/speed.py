"""How fast metaverify is: ratios to what the same work takes by hand, and beside automix-llm.

Run as ``python -m tests.benchmarks.speed [section ...] [--json]`` from the root of the repository.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import timeit
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from metaverify.fitting.fit import fit
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.table import JointTable
from metaverify.policies.actions import Call
from metaverify.policies.graph import Ask, Read
from metaverify.policies.policy import OperatingPoint, Policy
from metaverify.simulators.log import Floats, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.replay import route
from metaverify.simulators.worlds import shared_difficulty
from tests.benchmarks.growth import counted, growing, random_table
from tests.benchmarks.peer import beside_automix
from tests.benchmarks.startup import starting
from tests.benchmarks.timing import Goal, Line, Section, compare, layout, turns

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = 9  # of a reading: 8 bins and "missing"


# Replay ---------------------------------------------------------------------------------------------------------------


def replaying() -> Section:
    """Replay of a solved policy against a cascade of two thresholds written by hand."""
    return _replaying(1_000_000)


def replaying_much() -> Section:
    """The same of a log that no cache holds."""
    return _replaying(10_000_000)


def _replaying(rows: int) -> Section:
    log = shared_difficulty(3, 16, missing=0.02).draw(rows, 0)
    policy = TableLearner(slack=0.0).policy(log.take(np.arange(20_000)))
    vertices = range(len(policy.vertices))
    once = [turns(lambda v=v: _routed(policy, log, v), count=2)[-1][0] for v in vertices]
    slowest, middle = int(np.argmax(once)), len(vertices) // 2
    whole = _at(policy, slowest)
    taken = turns(
        lambda: _by_hand(log),
        lambda: _routed(policy, log, middle),
        lambda: _routed(policy, log, slowest),
        lambda: replay(whole, log),
    )
    few = Goal(ratio=3.0)
    return Section(
        f"Replay, {rows:,} rows x 3 tiers, {len(vertices)} vertices, {len(policy.nodes)} nodes",
        "route at one vertex, then mean quality, mean cost and the shares called",
        "two fixed thresholds over the same columns in plain numpy: quality and cost of each row by np.where, the same "
        "means and shares",
        (
            compare("the middle vertex", taken, goal=few, ours=1, yardstick=0),
            compare("the slowest vertex", taken, goal=few, ours=2, yardstick=0),
            compare("replay there, with intervals and hull", taken, ours=3, yardstick=0),
        ),
    )


def _routed(policy: Policy, log: ReplayLog, vertex: int) -> tuple[float, float, list[float]]:
    routes = route(policy, log, vertex)
    total = float(log.weights.sum())
    return log.mean(routes.quality), log.mean(routes.cost), [calls / total for calls in routes.calls]


def _by_hand(log: ReplayLog) -> tuple[float, float, list[float]]:
    one, two, three = log.tiers
    first = one.readings[0].confidence >= 0.6
    second = two.readings[0].confidence >= 0.6
    quality = np.where(first, one.correct, np.where(second, two.correct, three.correct))
    below = one.cost + two.cost
    cost = np.where(first, one.cost, np.where(second, below, below + three.cost))
    return float(quality.mean()), float(cost.mean()), [1.0, float((~first).mean()), float((~(first | second)).mean())]


# The solver -----------------------------------------------------------------------------------------------------------


def solving() -> Section:
    """One solution at one price against one pass over the numbers that state the problem."""
    lines = []
    for tiers in (4, 5, 6):
        table = random_table(tiers)
        lattice, arrays = Lattice(table), stated(table)
        spare = np.empty(max(map(len, arrays)))
        price = 0.5 / 4.0 ** (tiers - 1)
        sides: list[Callable[[], object]] = [
            lambda arrays=arrays: [np.add.reduce(array) for array in arrays],
            lambda arrays=arrays, spare=spare: _copy_and_maximum(arrays, spare),
            lambda lattice=lattice, price=price: lattice.solve(price),
            lambda lattice=lattice, price=price: lattice._follow(price),
        ]
        taken = turns(*sides, count=15)
        back = [[*turn, turn[2] - turn[3]] for turn in taken]  # what a solution takes before it is followed
        name = f"{lattice.states:,} states"
        lines += [
            compare(f"{name}: solve / sum", back, goal=Goal(ratio=3.0), ours=2, yardstick=0),
            compare(f"{name}: solve / copy and maximum", back, goal=Goal(ratio=3.0), ours=2, yardstick=1),
            compare(f"{name}: backward pass / sum", back, ours=4, yardstick=0),
        ]
    return Section(
        "One solution at one price; 4, 5 and 6 tiers, 8 bins and missing, prices that vary",
        "Lattice.solve; its backward pass alone is that less Lattice._follow",
        "one pass over mass, worth of stopping, quality of each answer in hand and price of each tier to call in every "
        "information state: np.add.reduce, or np.copyto and np.maximum",
        tuple(lines),
    )


def stated(table: JointTable) -> list[Floats]:
    """The arrays that state the problem on the information states of tiers with one free reading each."""
    tiers = range(len(table.ladders))
    arrays = []
    for called in itertools.product((False, True), repeat=len(table.ladders)):
        rest = tuple(1 + k for k in tiers if not called[k])
        sums = [np.ascontiguousarray(leaf.sum(axis=rest)).reshape(-1) for leaf in (table.mass, *table.quality)]
        mass, hand = sums[0], [sums[1 + k] for k in tiers if called[k]]
        calls = [table.price[k][0].sum(axis=rest).reshape(-1) for k in tiers if not called[k]]
        arrays += [mass, np.max(hand, axis=0) if hand else np.zeros_like(mass), *hand, *calls]
    return arrays


def _copy_and_maximum(arrays: list[Floats], spare: Floats) -> None:
    for array in arrays:
        out = spare[: len(array)]
        np.copyto(out, array)
        np.maximum(out, array, out=out)


# The frontier ---------------------------------------------------------------------------------------------------------


def frontiers() -> Section:
    """The whole frontier, from a lattice that stands."""
    lines = []
    for tiers, seconds in ((4, 0.1), (5, 0.5)):
        drawn = TableLearner().lattice(shared_difficulty(tiers, 64).draw(5_000, 0))
        for name, lattice in (("copula of 5,000 drawn rows", drawn), ("random table", Lattice(random_table(tiers)))):
            found = len(trace_frontier(lattice, gap=1e-3).plans)
            taken = turns(lambda lattice=lattice: trace_frontier(lattice, gap=1e-3), count=7)
            lines.append(
                Line(
                    f"{tiers} tiers, {name}",
                    median(turn[0] for turn in taken),
                    goal=Goal(seconds=seconds),
                    note=f"{found} vertices, {lattice.states:,} states",
                )
            )
    return Section("The frontier, gap 1e-3, 9 outcomes a tier", "trace_frontier", "", tuple(lines))


# Deciding -------------------------------------------------------------------------------------------------------------


def deciding() -> Section:
    """One decision against a bisect and two look-ups."""
    log = shared_difficulty(3, 64).draw(6_000, 0)
    names = ("small", "medium", "large")
    labels = np.array(["code", "law", "chat"], dtype=object)[np.arange(len(log)) % 3]
    tiers = tuple(replace(tier, name=name) for tier, name in zip(log.tiers, names, strict=True))
    policy = TableLearner(slack=0.0).policy(replace(log, tiers=tiers, contexts=labels))
    vertex = next(v for v in range(len(policy.vertices)) if _climbs(_at(policy, v)))
    pure, mixed = _at(policy, vertex), replace(policy, point=OperatingPoint(vertex, vertex + 1, 0.5))
    known = {"pure": pure, "mixed": mixed, "bisect_right": bisect_right, "nodes": policy.nodes}
    for name, confidence in (("small", 0.42), ("medium", 0.37)):
        node = _read_next(pure, {"small": 0.42} if name == "medium" else {}, name)
        known |= {f"{name}_cuts": node.cuts, f"{name}_then": node.then, f"{name}_confidence": confidence}
    one, two = (f"nodes[{n}_then[bisect_right({n}_cuts, {n}_confidence)]]" for n in ("small", "medium"))
    codes = {
        'decide({"small": 0.42})': ('pure.decide({"small": 0.42})', one),
        'decide({"small": {"conf": 0.42}})': ('pure.decide({"small": {"conf": 0.42}})', one),
        "…, with a context": ('pure.decide({"small": 0.42}, context="law")', one),
        "…, a mixture, with a key": ('mixed.decide({"small": 0.42}, key="request-1")', one),
        "…, two tiers read / two bisects": ('pure.decide({"small": 0.42, "medium": 0.37})', f"{one}, {two}"),
    }
    best = _best_of([code for pair in codes.values() for code in pair], known)
    goal = Goal(ratio=10.0, seconds=1e-6)
    return Section(
        "Deciding",
        "Policy.decide at a vertex, the mapping of readings made anew each time",
        "nodes[branches[bisect_right(cuts, confidence)]] on the tuples of the node that the decision reads",
        tuple(
            Line(what, ours, bare, ours / bare, goal)
            for what, ours, bare in zip(codes, best[::2], best[1::2], strict=True)
        ),
        ("the best of 60 turns",),
    )


def _at(policy: Policy, vertex: int) -> Policy:
    return replace(policy, point=OperatingPoint(vertex, vertex, 0.0))


def _climbs(policy: Policy) -> bool:
    return policy.decide({}) == Call("small") and policy.decide({"small": 0.42}) == Call("medium")


def _read_next(policy: Policy, readings: Mapping[str, float], tier: str) -> Read:
    """The node that reads ``tier`` once ``readings`` are read and the tier has answered."""
    node = policy.nodes[policy.vertices[policy.point.low].root]
    while not (isinstance(node, Read) and node.tier == tier):
        match node:
            case Ask(_, then):
                node = policy.nodes[then]
            case Read(of, _, cuts, branches, _):
                node = policy.nodes[branches[bisect_right(cuts, readings[of])]]
            case _:
                raise LookupError(tier)
    return node


def _best_of(codes: list[str], known: Mapping[str, object], *, count: int = 60, calls: int = 2_000) -> list[float]:
    timers = [timeit.Timer(code, globals=dict(known)) for code in codes]
    taken = [[timer.timeit(calls) / calls for timer in timers] for _ in range(count)]
    return [min(turn[at] for turn in taken) for at in range(len(codes))]


# Fitting --------------------------------------------------------------------------------------------------------------


def fitting() -> Section:
    """A whole fit, by size."""
    lines = []
    for rows in (1_000, 10_000, 100_000):
        log = shared_difficulty(3, 64).draw(rows, 0)
        for what, compared in (("fit", True), ("fit(compare=False)", False)):
            taken = turns(lambda log=log, compared=compared: fit(log, budget=8.0, compare=compared), count=7, most=6.0)
            seconds = median(turn[0] for turn in taken)
            lines.append(Line(f"{rows:,} rows: {what}", seconds, note=f"{len(taken)} turns"))
    return Section(
        "Fitting, 3 tiers",
        "fit at a budget: 5 folds and the whole log; with references also thresholds and no readings, as often",
        "",
        tuple(lines),
    )


# ----------------------------------------------------------------------------------------------------------------------

SECTIONS: Mapping[str, Callable[[], Section]] = {
    "replay": replaying,
    "replay-much": replaying_much,
    "solve": solving,
    "frontier": frontiers,
    "decide": deciding,
    "startup": starting,
    "fit": fitting,
    "growth": growing,
    "counts": counted,
    "automix": beside_automix,
}


def main() -> None:
    """Run the sections and print them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all if none")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    machine = f"Python {platform.python_version()}, numpy {np.__version__}, {platform.system()} {platform.machine()}"
    results: dict[str, object] = {}
    if not options.json:
        print(f"{machine}; medians over turns of CPU seconds of one thread")
    with threadpool_limits(1):
        for name in options.sections or SECTIONS:
            section = SECTIONS[name]()
            results[name] = section.to_json()
            if not options.json:
                print(f"\n{layout(section)}", flush=True)
    if options.json:
        json.dump({"machine": machine, "sections": results}, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
