"""Do budgets and floors hold?  Certificates, and what others do, in worlds whose truth is known.

python -m tests.benchmarks.certify [--trials 500] [--rows 300,100,1000,5000] [--worlds token_prices-3] [--resume FILE]
    [--minutes 60]

In each trial a log of n labelled queries is drawn, and ten times as many without labels.  Policies are learnt at a
budget 10, 20, 40, 60 or 80 % of the way from the cheapest tier to the dearest, in turn, and valued exactly: expected
cost and quality over every combination of readings.  An *overrun* is an expected cost above the budget, *lost* the
quality below the true frontier's at the budget, in points.  Where nothing is certified that is counted apart; there is
never another policy in its place.  Prices by token are cut off at four times a tier's mean, as a limit on tokens does.

Floors: 60 % of the way from the cheapest tier's quality to the dearest one's; a true quality below is a miss, and
*lost* is the cost above the least that it takes, in per cent.  Then come 10 rows a prompt, with groups told and not
told; how far what `fit` reports is above the truth, with the learner given and with its choice of all; what the
certificate alone gives up, of a policy that nothing had to be learnt for; and how many rows it is said to take where a
budget is not certified.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from joblib import delayed, parallel_config
from rich.console import Console
from rich.progress import track
from scipy.special import gammainc
from scipy.stats import beta
from sklearn import config_context
from threadpoolctl import threadpool_limits

from metaverify import CertificateError, FloorError, LogError, Policy, ReplayLog, Terms, certify, fit
from metaverify.fitting.backends import in_turn
from metaverify.fitting.certify import certify_crossed, certify_quality
from metaverify.fitting.finish import finish
from metaverify.fitting.fit import FITTED
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.job import Job, Learnt
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.models.zoo import default_model
from metaverify.fitting.select import Candidate
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
ROWS = (300, 100, 1000, 5000)
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

    def luck(self, log: ReplayLog) -> list[float]:
        """How far the log's means of each tier's cost and quality are above the truth."""
        pairs = zip(log.tiers, self.log.tiers, strict=True)
        return [log.mean(a) - self.log.mean(b) for t, u in pairs for a, b in ((t.cost, u.cost), (t.correct, u.correct))]

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


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What `fit` learns of a log, so that several goals are had for one cross-fitting."""

    job: Job

    @classmethod
    def of(cls, log: ReplayLog) -> Lesson:
        folds = min(5, log.group_count)
        return cls(Job(log.by_id(), folds, 0, (Candidate("chain", LEARNER),), False, (), lambda what, share: None))

    def at(self, budget: float) -> tuple[Learnt, Policy]:
        """The policy at this budget, as it is learnt and as it goes into its file."""
        learnt = self.job.learn(self.job.tried[0], budget, None)
        return learnt, finish(learnt, self.job)

    def at_floor(self, floor: float) -> Policy:
        """The policy at this quality."""
        return self.at(self.job.budget_for(self.job.tried[0], floor))[1]


def trial(name: str, n: int, seed: int, others: bool) -> Row:
    """What every method came to: (cost, quality), or "refused"; ``others`` asks for what takes longer too: Optuna, and
    what `fit` reports where it has the choice of how to learn."""
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
        true = truth(name)
        log, traffic = true.draw(n, 10_000 + seed), true.draw(TRAFFIC * n, 5_000_000 + seed)
        budget = true.budget(seed)
        known, held = log.split(FITTED)
        held, traffic = fresh(held, f"h{seed}"), fresh(traffic, f"t{seed}")
        whole, part = Lesson.of(log), Lesson.of(known)
        learnt, plain = whole.at(budget)
        small = part.at(budget)[1]
        found: Row = {
            "plug-in": true.value(plain),
            "floor plug-in": valued(true, lambda: whole.at_floor(true.floor)),
        }
        at_floor = cache(lambda: part.at_floor(true.floor))
        for delta in DELTAS:
            terms = Terms(delta=delta)
            bentkus, looks = replace(terms, method="hoeffding-bentkus"), replace(terms, looks=True)
            rough = replace(terms, level="approximate")
            ways: dict[str, Callable[[], Policy]] = {
                "traffic": partial(certify, plain, traffic, budget=budget, terms=terms),
                "split": partial(certify, small, held, budget=budget, terms=terms),
                "split, bentkus": partial(certify, small, held, budget=budget, terms=bentkus),
                "split, e-process": partial(certify, small, held, budget=budget, terms=looks),
                "approximate": partial(certify_crossed, plain, learnt.rows, learnt.costs, budget=budget, terms=rough),
                "floor": lambda delta=delta: certify_quality(
                    at_floor(), held, floor=true.floor, delta=delta, binary=True
                ),
            }
            for way, made in ways.items():
                found[f"{way} {delta:g}"] = certified(true, made)
        told = {"chain": (learnt.outcome, plain)}
        if others:
            found["optuna"] = best_feasible(true, log, budget, seed)
            chosen = fit(log, budget=budget)
            told["chosen"] = chosen.outcome, chosen.policy
        reported = {way: (o.cost.mean, o.quality.mean, *true.value(p)) for way, (o, p) in told.items()}
        return {"world": name, "n": n, "seed": seed, "found": found, "reported": reported, "luck": true.luck(log)}


def fresh(log: ReplayLog, mark: str) -> ReplayLog:
    """The queries under names of their own: draws of a world all have the same, and hashes of them settle draws."""
    ids = np.array([f"{mark} {query}" for query in log.query_ids], dtype=object)
    return replace(log, query_ids=ids, group_ids=ids)


def certified(true: Truth, made: Callable[[], Policy]) -> Any:
    """The value of a certified policy, or why there is none."""

    def sure() -> Policy:
        policy = made()
        assert policy.certificate is not None, "a policy without a certificate was passed off as certified"
        return policy

    return valued(true, sure)


def valued(true: Truth, made: Callable[[], Policy]) -> Any:
    """The value of a policy, or why there is none."""
    try:
        return true.value(made())
    except (CertificateError, FloorError):
        return "refused"
    except LogError as error:
        return error.code


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


# What the certificate alone gives up ---------------------------------------------------------------------------------


def known(name: str, seed: int) -> Row:
    """The world's own best policies, certified approximately on a log of 300."""
    with threadpool_limits(1):
        true = truth(name)
        log, budget = fresh(true.draw(300, 10_000 + seed), f"b{seed}"), true.budget(seed)
        found = {
            f"best there is, approximate {delta:g}": certified(
                true,
                partial(certify, best_policy(name), log, budget=budget, terms=Terms(delta=delta, level="approximate")),
            )
            for delta in DELTAS
        }
        return {"world": name, "n": 300, "seed": seed, "found": found}


@cache
def best_policy(name: str) -> Policy:
    """The true frontier, as a policy."""
    return TableLearner(Counts(), bins=LEVELS).policy(truth(name).log)


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


def sweep(tasks: list[tuple[Any, ...]], resume: Path | None, minutes: float = math.inf) -> list[Row]:
    """The rows of all tasks, as many as there are after so many minutes; those that the file has are not made again,
    and each is added to it once made."""
    end = time.monotonic() + 60 * minutes
    lines = resume.read_text("utf-8").splitlines() if resume is not None and resume.exists() else []
    done = {(row["world"], row["n"], row["seed"]): row for row in map(json.loads, lines)}
    todo = [task for task in tasks if task[:3] not in done]
    made = in_turn(
        delayed(grouped)(seed) if name == "groups" else delayed(trial)(name, n, seed, others)
        for name, n, seed, others in todo
        if time.monotonic() < end
    )
    console = Console(stderr=True)
    for row in track(made, "trials", total=len(todo), console=console, disable=not console.is_terminal):
        row = json.loads(json.dumps(row))
        done[row["world"], row["n"], row["seed"]] = row
        if resume is not None:
            with resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return [done[task[:3]] for task in tasks if task[:3] in done]


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
    tasks = [(w, n, seed, seed < options.others) for n, seed, w in product(sizes, range(options.trials), worlds)]
    tasks += [("groups", 3000, seed, False) for seed in range(options.trials if options.groups else 0)]
    with parallel_config(n_jobs=options.jobs):
        rows = sweep(tasks, options.resume, options.minutes)
    print_summaries(rows)
    print_reported(rows)
    if options.known:
        with parallel_config(n_jobs=options.jobs):
            print_summaries(list(in_turn(delayed(known)(w, seed) for w in worlds for seed in range(options.trials))))
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


def print_reported(rows: list[Row]) -> None:
    """How far what is reported of a policy is above what is true of it, in the mean, with its standard error.

    Logs that were lucky with a tier make reports that are too high; that is no bias, and a regression takes it out.
    """
    cells: dict[tuple[str, int, str], list[tuple[list[float], list[float]]]] = {}
    for row in rows:
        for way, values in row.get("reported", {}).items():
            cells.setdefault((row["world"], row["n"], way), []).append((values, row["luck"]))
    lines = []
    for (name, n, way), both in cells.items():
        (cost, quality, true_cost, true_quality), luck = (np.array(part).T for part in zip(*both, strict=True))
        above = [100.0 * (quality - true_quality), 100.0 * (cost / true_cost - 1.0)]
        lines.append([name, f"{n:,}", way, str(len(both)), *(_intercept(values, luck) for values in above)])
    print(table(["world", "rows", "learner", "trials", "quality above truth", "cost above truth, %"], lines))


def _intercept(values: np.ndarray, luck: np.ndarray) -> str:
    """The mean of ``values`` [trials] where ``luck`` [kinds, trials] is none, and its standard error."""
    design = np.column_stack([np.ones(len(values)), luck[luck.std(axis=1) > 1e-12].T])
    found = np.linalg.lstsq(design, values, rcond=None)[0]
    error = np.linalg.pinv(design.T @ design)[0, 0] * np.sum((values - design @ found) ** 2)
    return f"{found[0]:+.2f} ± {math.sqrt(error / max(len(values) - design.shape[1], 1)):.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--others", type=int, default=100, help="trials in which Optuna and the whole of fit are tried")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--worlds", default=",".join(WORLDS_TRIED))
    parser.add_argument("--no-groups", dest="groups", action="store_false")
    parser.add_argument("--no-known", dest="known", action="store_false")
    parser.add_argument("--no-needs", dest="needs", action="store_false")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no trial is begun")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--resume", type=Path, metavar="FILE", help="trials that are done, one a line")
    return parser


if __name__ == "__main__":
    from tests.benchmarks import certify as found_by_name  # whose functions other processes can find

    found_by_name.main()
