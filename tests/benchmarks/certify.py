"""Do budgets and floors hold?  Certificates, and what others do, in worlds whose truth is known.

python -m tests.benchmarks.certify [--trials 500] [--rows 100,300,1000,5000] [--worlds token_prices-3] [--resume FILE]

In each trial a log of n labelled queries is drawn, and ten times as many without labels.  Policies are learnt at a
budget 10, 20, 40, 60 or 80 % of the way from the cheapest tier to the dearest, in turn, and valued exactly: expected
cost and quality over every combination of readings.  An *overrun* is an expected cost above the budget, *lost* the
quality below the true frontier's at the budget, in points.  Where nothing is certified that is counted apart; there is
never another policy in its place.  Prices by token are cut off at four times a tier's mean, as a limit on tokens does.

Floors: 60 % of the way from the cheapest tier's quality to the dearest one's; a true quality below is a miss, and
*lost* is the cost above the least that it takes, in per cent.  Last come 10 rows a prompt, with groups
told and not told, and how many rows it is said to take where a budget is not certified.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from joblib import Parallel, delayed, parallel_config
from rich.console import Console
from rich.progress import track
from scipy.special import gammainc
from threadpoolctl import threadpool_limits

from metaverify import CertificateError, FloorError, LogError, Policy, ReplayLog, Terms, certify, fit
from metaverify.fitting.certify import certify_quality
from metaverify.fitting.fit import FITTED
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.models.zoo import default_model
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import OperatingPoint, Vertex
from metaverify.policies.tiers import Tier
from metaverify.report import table
from metaverify.simulators.log import LoggedTier
from metaverify.simulators.replay import route
from metaverify.simulators.worlds import WORLDS, World, tier_cost
from tests.benchmarks.regret import LEVELS, SHARES, census

WORLDS_TRIED = ("shared_difficulty-2", "shared_difficulty-3", "token_prices-3")
ROWS = (100, 300, 1000, 5000)
DELTAS = (0.05, 0.1)
TRAFFIC = 10  # queries without labels for each with
CUT_OFF = 4.0  # times a tier's mean price
OPTUNA_TRIALS = 60
PER_GROUP = 10
LEARNER = TableLearner(default_model(), "chain")
"""The first that `fit` tries; certificates do not depend on how a policy was learnt, only the quality does."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A world, every combination of readings in it, and what the best policies cost and earn."""

    world: World
    caps: np.ndarray  # [N], of a tier's price
    log: ReplayLog
    costs: np.ndarray
    qualities: np.ndarray

    @property
    def dearest(self) -> float:
        """What always calling the dearest tier costs."""
        return self.log.mean(self.log.tiers[-1].cost)

    def budget(self, seed: int) -> float:
        """The budget of a trial."""
        low = self.log.mean(self.log.tiers[0].cost)
        return low + SHARES[seed % len(SHARES)] * (self.dearest - low)

    @property
    def floor(self) -> float:
        worst, best = (self.log.mean(tier.correct) for tier in (self.log.tiers[0], self.log.tiers[-1]))
        return 0.4 * worst + 0.6 * best

    def best(self, cost: float) -> float:
        return float(np.interp(cost, self.costs, self.qualities))

    def draw(self, n: int, seed: int, per_group: int = 1) -> ReplayLog:
        """A log of the world, its prices cut off."""
        log = self.world.draw(n, seed, per_group=per_group)
        cap = dict(zip(self.world.tiers, self.caps.tolist(), strict=True))
        return replace(log, tiers=tuple(replace(t, cost=np.minimum(t.cost, cap[t.name])) for t in log.tiers))

    def value(self, policy: Policy) -> tuple[float, float]:
        """What the policy really costs and earns."""
        point = policy.point
        parts = [(1.0 - point.share, route(policy, self.log, point.low))]
        parts += [(point.share, route(policy, self.log, point.high))] if point.share > 0.0 else []
        cost, quality = (sum(s * self.log.mean(getattr(r, name)) for s, r in parts) for name in ("cost", "quality"))
        return float(cost), float(quality)


@cache
def truth(name: str) -> Truth:
    """The world of a name such as "token_prices-3"."""
    kind, tiers = name.rsplit("-", 1)
    world = WORLDS[kind](int(tiers), LEVELS)
    caps = CUT_OFF * tier_cost(world) if world.spread else np.full(len(world.tiers), np.inf)
    cut = replace(world, price=cut_mean(world.price, world.spread, caps)) if world.spread else world
    log = census(cut)
    best = trace_frontier(TableLearner(Counts(), bins=LEVELS).study(log).lattice, gap=1e-5)
    return Truth(world, caps, log, np.array(best.costs), np.array(best.qualities))


def cut_mean(price: np.ndarray, spread: float, caps: np.ndarray) -> np.ndarray:
    """The mean of gamma-distributed prices of these means, each cut off at its tier's cap, [Z, N]."""
    shape = spread**-2
    at = caps * shape / price  # the cap in units of the gamma's scale
    return np.asarray(price * gammainc(shape + 1, at) + caps * (1.0 - gammainc(shape, at)))


# One trial -----------------------------------------------------------------------------------------------------------


def trial(name: str, n: int, seed: int, others: bool) -> Row:
    """What every method came to: (cost, quality), or "refused"; ``others`` asks for Optuna and floors too."""
    with threadpool_limits(1):
        true = truth(name)
        log, traffic = true.draw(n, 10_000 + seed), true.draw(TRAFFIC * n, 5_000_000 + seed)
        budget, learner = true.budget(seed), LEARNER
        whole = fit(log, budget=budget, learner=learner, compare=False).policy
        part_log, held = log.split(FITTED)
        part = fit(part_log, budget=budget, learner=learner, compare=False).policy
        held, traffic = fresh(held, f"h{seed}"), fresh(traffic, f"t{seed}")
        found: Row = {"plug-in": true.value(whole)}
        for delta in DELTAS:
            terms = Terms(delta=delta)
            ways: dict[str, Callable[[], Policy]] = {
                "traffic": lambda terms=terms: certify(whole, traffic, budget=budget, terms=terms),
                "split": lambda terms=terms: certify(part, held, budget=budget, terms=terms),
                "split, bentkus": lambda terms=terms: certify(
                    part, held, budget=budget, terms=replace(terms, method="hoeffding-bentkus")
                ),
                "split, e-process": lambda terms=terms: certify(
                    part, held, budget=budget, terms=replace(terms, looks=True)
                ),
                "approximate": lambda delta=delta: (
                    fit(
                        log,
                        budget=budget,
                        learner=learner,
                        compare=False,
                        certify=Terms(delta=delta, level="approximate"),
                    ).policy
                ),
            }
            for way, made in ways.items():
                found[f"{way} {delta:g}"] = certified(true, made)
        if others:
            found["optuna"] = best_feasible(true, log, budget, seed)
            found |= floors(true, log, part_log, held)
        return {"world": name, "n": n, "seed": seed, "found": found}


def fresh(log: ReplayLog, mark: str) -> ReplayLog:
    """The queries under names of their own: draws of a world all have the same, and hashes of them settle draws."""
    ids = np.array([f"{mark} {query}" for query in log.query_ids], dtype=object)
    return replace(log, query_ids=ids, group_ids=ids)


def certified(true: Truth, made: Callable[[], Policy]) -> Any:
    """The value of a certified policy, or why there is none."""
    try:
        policy = made()
    except (CertificateError, FloorError):
        return "refused"
    except LogError as error:
        return error.code
    assert policy.certificate is not None, "a policy without a certificate was passed off as certified"
    return true.value(policy)


def floors(true: Truth, log: ReplayLog, known: ReplayLog, held: ReplayLog) -> Row:
    """Policies that are to reach a quality at least cost."""
    learner, floor = LEARNER, true.floor
    found = {
        "floor plug-in": certified_or_not(true, log, floor),
    }
    dearest = true.dearest
    part = fit(known, budget=dearest, learner=learner, compare=False).policy
    for delta in DELTAS:
        found[f"floor {delta:g}"] = certified(
            true, lambda delta=delta: certify_quality(part, held, floor=floor, delta=delta, binary=True)
        )
    return found


def certified_or_not(true: Truth, log: ReplayLog, floor: float) -> Any:
    try:
        return true.value(fit(log, quality_floor=floor, learner=LEARNER, compare=False).policy)
    except FloorError:
        return "refused"


def best_feasible(true: Truth, log: ReplayLog, budget: float, seed: int) -> tuple[float, float]:
    """What the best trial within the budget really costs and earns, of an Optuna study of one threshold a tier."""
    names = [tier.name for tier in log.tiers[:-1]]

    def objective(one: optuna.Trial) -> float:
        cost, quality = walk(log, [one.suggest_float(name, 0.0, 1.0) for name in names])
        one.set_constraint("budget", cost - budget)
        return quality

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(dict.fromkeys(names, 0.0))  # the cheapest tier always
    study.optimize(objective, n_trials=OPTUNA_TRIALS)
    return walk(true.log, [study.best_trial.params[name] for name in names])


def walk(log: ReplayLog, cuts: list[float]) -> tuple[float, float]:
    """Mean cost and quality where a query goes on from a tier whose reading is below its cut."""
    going, cost, quality = np.ones(len(log), dtype=bool), np.zeros(len(log)), np.zeros(len(log))
    for at, tier in enumerate(log.tiers):
        cost[going] += tier.cost[going]
        stay = going if at == len(cuts) else going & (tier.readings[0].confidence >= cuts[at])
        quality[stay] = tier.correct[stay]
        going = going & ~stay
    return log.mean(cost), log.mean(quality)


# Ten rows a prompt ---------------------------------------------------------------------------------------------------


def grouped(seed: int) -> Row:
    """Certificates on 300 prompts asked ten times each, told and not told."""
    with threadpool_limits(1):
        true = truth("token_prices-3")
        budget = true.budget(seed)
        policy = fit(true.draw(300, 20_000 + seed), budget=budget, learner=LEARNER, compare=False).policy
        log = true.draw(3000, 7_000_000 + seed, PER_GROUP)
        groups = np.array([f"g{seed} {group}" for group in log.group_ids], dtype=object)
        told, alone = replace(fresh(log, f"t{seed}"), group_ids=groups), fresh(log, f"t{seed}")
        found = {
            f"{name} {delta:g}": certified(
                true, lambda rows=rows, delta=delta: certify(policy, rows, budget=budget, terms=Terms(delta=delta))
            )
            for name, rows in (("told", told), ("not told", alone))
            for delta in DELTAS
        }
        return {"world": "groups", "n": 3000, "seed": seed, "found": found}


# How many rows it is said to take ------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, int], np.ndarray]

COSTS: Mapping[str, Draw] = {
    "one price": lambda rng, n: np.full(n, 1.0),
    "two prices": lambda rng, n: np.where(rng.random(n) < 0.2, 3.0, 0.5),
    "gamma": lambda rng, n: np.minimum(rng.gamma(4.0, 0.25, n), 1.9),
    "lognormal": lambda rng, n: np.minimum(rng.lognormal(-0.5, 1.0, n), 10.0),
    "rare": lambda rng, n: np.where(rng.random(n) < 0.02, 20.0, 0.6),
}
"""Costs of about 1 in the mean."""

NEEDS = (
    ("one price", 1.5, 2), ("one price", 1.2, 20), ("one price", 1.5, 200), ("two prices", 1.3, 3), ("gamma", 1.1, 2),
    ("gamma", 1.3, 50), ("lognormal", 1.3, 10), ("lognormal", 1.5, 100), ("rare", 1.5, 20), ("two prices", 1.2, 200),
)  # fmt: skip
"""Costs, the budget, and the dearest query in units of it."""


def needed(draw: Draw, budget: float, most: float, tries: int = 60) -> tuple[int, list[float]]:
    """How many rows certify the budget in half of all tries, and what a quarter of so many say that it takes."""

    def told(n: int, seed: int) -> float:
        """0 where it is certified, otherwise how many rows it is said to take."""
        try:
            certify(always_one(), rows_of(draw, n, seed), budget=budget, terms=Terms(dearest=most))
        except CertificateError as error:
            return error.rows
        return 0.0

    low, high = 2, 4
    while sum(told(high, seed) == 0.0 for seed in range(tries)) < tries / 2:
        low, high = high, 2 * high
    while high - low > max(low // 16, 1):
        middle = (low + high) // 2
        enough = sum(told(middle, seed) == 0.0 for seed in range(tries)) >= tries / 2
        low, high = (low, middle) if enough else (middle, high)
    said = [told(max(high // 4, 2), 1000 + seed) for seed in range(tries)]
    return high, [rows for rows in said if rows > 0.0]


def always_one() -> Policy:
    """A single tier, always called, whose price varies."""
    vertex = Vertex(0.0, 1.0, 0.5, 0)
    return Policy(
        (Tier("only", 1.0),),
        (Ask("only", 1), Stop(Accept("only"))),
        (vertex,),
        OperatingPoint(0, 0, 0.0),
        provenance={"dearest": [["only", None, 1.0]]},
    )


def rows_of(draw: Draw, n: int, seed: int) -> ReplayLog:
    """A log of one tier with such costs."""
    ids = np.array([f"r{seed}-{at}" for at in range(n)], dtype=object)
    return ReplayLog(
        ids, (LoggedTier("only", np.full(n, np.nan), draw(np.random.default_rng(seed), n)),), np.ones(n), ids
    )


# All of it -----------------------------------------------------------------------------------------------------------


def sweep(tasks: list[tuple[Any, ...]], resume: Path | None) -> list[Row]:
    """The rows of all tasks; those that the file has are not made again, and each is added to it once made."""
    done = (
        {}
        if resume is None or not resume.exists()
        else {
            (row["world"], row["n"], row["seed"]): row
            for row in map(json.loads, resume.read_text("utf-8").splitlines())
        }
    )
    todo = [task for task in tasks if task[:3] not in done]
    jobs = (delayed(grouped)(seed) if name == "groups" else delayed(trial)(name, n, seed, others)
            for name, n, seed, others in todo)  # fmt: skip
    console = Console(stderr=True)
    with parallel_config(n_jobs=2):
        made = Parallel(return_as="generator", batch_size=4)(jobs)
        for row in track(made, "trials", total=len(todo), console=console, disable=not console.is_terminal):
            row = json.loads(json.dumps(row))
            done[row["world"], row["n"], row["seed"]] = row
            if resume is not None:
                with resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    return [done[task[:3]] for task in tasks]


@dataclass(frozen=True, slots=True)
class Summary:
    """A method in one cell of the table."""

    world: str
    n: int
    way: str
    tried: int
    refused: int
    broken: int  # promises
    lost: float  # points of quality below the frontier at the budget; of floors, cost above it in per cent

    @property
    def upper(self) -> float:
        """The upper 95 % limit of the share that is broken."""
        from scipy.stats import beta

        return 1.0 if self.broken == self.tried else float(beta.ppf(0.95, self.broken + 1, self.tried - self.broken))


def summaries(rows: list[Row]) -> Iterator[Summary]:
    """A line a world, number of rows and method."""
    cells: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["world"], row["n"]), []).append(row)
    for (name, n), tried in cells.items():
        true = truth("token_prices-3" if name == "groups" else name)
        for way in dict.fromkeys(way for row in tried for way in row["found"]):
            values = [(row["seed"], row["found"][way]) for row in tried if way in row["found"]]
            had = [(seed, *value) for seed, value in values if not isinstance(value, str)]
            if way.startswith("floor"):
                broken = sum(quality < true.floor - 1e-9 for _, _, quality in had)
                least = float(np.interp(true.floor, true.qualities, true.costs))
                losses = [cost / least - 1 for _, cost, _ in had]
            else:
                broken = sum(cost > true.budget(seed) * (1 + 1e-9) for seed, cost, _ in had)
                losses = [true.best(true.budget(seed)) - quality for seed, _, quality in had]
            lost = 100 * float(np.mean(losses)) if losses else math.nan
            yield Summary(name, n, way, len(values), len(values) - len(had), broken, lost)


def main() -> None:
    """Print the tables."""
    options = _parser().parse_args()
    worlds, sizes = options.worlds.split(","), [int(n) for n in options.rows.split(",")]
    tasks = [(w, n, seed, seed < options.others) for n, w, seed in product(sizes, worlds, range(options.trials))]
    tasks += [("groups", 3000, seed, False) for seed in range(options.trials if options.groups else 0)]
    rows = sweep(tasks, options.resume)
    print_summaries(rows)
    if options.needs:
        lines = []
        for costs, budget, ratio in NEEDS:
            n, said = needed(COSTS[costs], budget, ratio * budget)
            middle = float(np.median(said))
            lines.append([costs, f"{budget:g}", str(ratio), f"{n:,}", f"{middle:,.0f}", f"{middle / n:.2f}"])
        print(table(["costs", "budget", "M / B", "rows it takes", "said, median", "ratio"], lines))


def print_summaries(rows: list[Row]) -> None:
    """The table of all that was tried."""
    lines = [
        [s.world, f"{s.n:,}", s.way, str(s.tried), f"{s.refused / s.tried:.1%}", f"{s.broken / s.tried:.1%}",
         f"{s.upper:.1%}", f"{s.lost:.2f}"]
        for s in summaries(rows)
    ]  # fmt: skip
    print(table(["world", "rows", "way", "trials", "refused", "broken", "at most", "lost"], lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--others", type=int, default=400, help="trials in which Optuna and floors are tried too")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--worlds", default=",".join(WORLDS_TRIED))
    parser.add_argument("--no-groups", dest="groups", action="store_false")
    parser.add_argument("--no-needs", dest="needs", action="store_false")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="trials that are done, one a line")
    return parser


if __name__ == "__main__":
    from tests.benchmarks import certify as found_by_name  # whose functions other processes can find

    found_by_name.main()
