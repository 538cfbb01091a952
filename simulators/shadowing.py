"""What a candidate would have changed on logged queries: in all, by day, by context, and whether it is safe."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.policies.actions import Accept, Call, Verify
from metaverify.policies.guards import dearest_path, dearest_prices
from metaverify.policies.policy import Policy
from metaverify.policies.shadow import Shadowed, follow
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.offpolicy import Finding
from metaverify.simulators.outcome import LEVEL, student_quantile
from metaverify.simulators.replay import ABSTAINED, arms, check_match, route
from metaverify.simulators.steps import read_step

__all__ = [
    "Margins",
    "ShadowReport",
    "Side",
    "Slice",
    "compare_decisions",
    "compare_routes",
    "holm",
    "is_decision_log",
    "report_of",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Texts = NDArray[Any]  # of str

FEWEST = 30  # groups in a slice that is tested
ALPHA = 0.05  # the chance that any slice is called worse where none is
ABSTAINS, UNKNOWN = "handed over", "not identified"
NORMAL = NormalDist()

Kind = Literal["quality", "cost", "decisions"]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """What two policies did with n queries side by side.

    Of the candidate's cost, and of how much better its answer is, there is the least and the most that they can be;
    they are equal where that is known.
    """

    live: Texts  # [n], the tier that answered
    candidate: Texts  # [n], the tier that would have, ``UNKNOWN`` where that is not known
    live_cost: Floats  # [n]
    cost: tuple[Floats, Floats]  # [n] each
    gain: tuple[Floats, Floats]  # [n] each, the candidate's quality less that of the policy in use
    groups: Ints  # [n]
    weights: Floats  # [n]
    slices: Mapping[str, Texts]  # what queries are told apart by: a name, such as "day", and its values [n]
    left_out: int = 0  # requests in which something failed, or which are not whole

    @property
    def differs(self) -> Bools:
        """Whether another answer would have been returned, or is not known to be the same, [n]."""
        return np.asarray(self.live != self.candidate, dtype=bool)


@dataclass(frozen=True, slots=True)
class Margins:
    """By how much a candidate may be worse and still be safe: in quality, and in cost as a share of what is spent."""

    quality: float = 0.01
    cost: float = 0.05


@dataclass(frozen=True, slots=True)
class Slice:
    """Queries that have something in common, ``where`` says what, and what would have changed for them.

    ``worse`` has what is worse by more than the margin, and "decisions" where more of them differ than elsewhere, with
    Holm's correction for all slices that were tested; ``chance`` is the smallest of its corrected p-values, 1 where it
    was too small to be tested.
    """

    where: str
    n: int
    share: float
    cost: Finding
    quality: Finding
    differs: float
    worse: tuple[Kind, ...]
    chance: float


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What a candidate would have changed on n queries, with 90 % intervals by group.

    ``cost`` is the change of the mean cost and ``quality`` that of the mean quality; where something is not identified
    there is no mean, and the interval holds whatever it may be.  Shares are of queries: those whose ``decisions``
    differ, that are ``labelled`` (the change of quality is known) and not ``identified``, and by tier those answered
    by the policy in use and by the candidate.  ``slices`` are worst first.
    """

    n: int
    left_out: int
    live_cost: Finding
    cost: Finding
    quality: Finding
    differs: float
    labelled: float
    unidentified: float
    tiers: Mapping[str, tuple[float, float]]
    margins: Margins
    tested: int
    slices: tuple[Slice, ...]
    verdict: Literal["safe", "not safe", "not known"]
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


# --------------------------------------------------------------------------------------------- two policies, one log


def compare_routes(candidate: Policy, live: Policy, log: ReplayLog, slices: Mapping[str, Texts]) -> Side:
    """Both policies on a full log, each query by the graph that its id draws.

    Raises:
        LogError: the log lacks something that one of them uses.
    """
    (then, quality, cost), (now, before, spent) = (_routed(policy, log) for policy in (candidate, live))
    own = {"context": log.contexts} if log.contexts is not None else {}
    gain = quality - before
    groups = np.arange(len(log)) if log.ungrouped else log.groups[1]
    return Side(now, then, spent, (cost, cost), (gain, gain), groups, log.weights, {**slices, **own})


def _routed(policy: Policy, log: ReplayLog) -> tuple[Texts, Floats, Floats]:
    check_match(policy, log)
    drawn = arms(policy, log) if 0.0 < policy.point.share < 1.0 else np.full(len(log), policy.arm(""))
    names = np.array([*(tier.name for tier in policy.tiers), ABSTAINS], dtype=object)
    assert ABSTAINED == -1
    tier, quality, cost = np.empty(len(log), dtype=object), np.zeros(len(log)), np.zeros(len(log))
    for vertex in np.unique(drawn):
        rows = drawn == vertex
        routes = route(policy, log, int(vertex))
        tier[rows], quality[rows], cost[rows] = names[routes.accepted[rows]], routes.quality[rows], routes.cost[rows]
    return tier, quality, cost


def is_decision_log(path: str | os.PathLike[str]) -> bool:
    """Whether a file is what `DecisionLog` writes, and not a log of queries."""
    if not os.fspath(path).endswith(".jsonl"):
        return False
    with Path(path).open("rb") as file:
        line = file.readline(1 << 16)
    return b'"step"' in line and b'"propensity"' in line


def compare_decisions(candidate: Policy, path: str | os.PathLike[str], labels: pl.DataFrame | None = None) -> Side:
    """A candidate on what a router's decision log holds: what was bought, and what was done with it.

    Where the candidate wants what nobody bought it is not known what it would have cost or earned; its cost then lies
    between that purchase at its price and its dearest walk.  ``labels`` are as `join_labels` has them.

    Raises:
        LogError: it is no decision log, or nothing in it can be used; or the candidate buys samples, whose answers it
            does not tell apart.
    """
    name = Path(path).name
    if any(reading.sample for tier in candidate.tiers for reading in tier.readings):
        raise LogError("E_POLICY", f"{name}: the candidate buys samples; compare it on a full log")
    correct = _correct(labels)
    prices = dearest_prices(candidate)
    dearest = dearest_path(candidate, prices)
    rows, left_out = [], 0
    for steps in _requests(Path(path)):
        found = _followed(candidate, steps, name)
        if found is None:
            left_out += 1
            continue
        key, end = str(steps[-1]["key"]), steps[-1]
        low = found.cost + (prices[_purchase(found.then)] if not found.identified else 0.0)
        high = low if found.identified else max(low, dearest[_root(candidate, end)])
        rows.append((key, _day(end), end.get("context"), found, low, high, *_gain(candidate, found, key, correct)))
    if not rows:
        raise LogError(
            "E_EMPTY", f"{name} has no request that ended without a failure; give the log of a router in use"
        )
    keys, days, contexts, shadowed, lows, highs, least, most = map(list, zip(*rows, strict=True))
    slices = {"day": np.array(days, dtype=object)}
    if any(context is not None for context in contexts):
        slices["context"] = np.array([context or "none" for context in contexts], dtype=object)
    return Side(
        np.array([_end(found.live) for found in shadowed], dtype=object),
        np.array([_end(found.then) for found in shadowed], dtype=object),
        np.array([found.live_cost for found in shadowed], dtype=np.float64),
        (np.array(lows), np.array(highs)),
        (np.array(least), np.array(most)),
        np.unique(np.array(keys), return_inverse=True)[1],
        np.ones(len(rows)),
        slices,
        left_out,
    )


def _requests(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The whole requests of a decision log, each as its lines, in the order of their ends."""
    waiting: dict[str, list[dict[str, Any]]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            step = read_step(line, f"{path.name} line {number}")
            if step is None:
                continue
            key = str(step["key"])
            steps = [] if step["step"] == 0 else waiting.pop(key, None)
            if steps is None or len(steps) != step["step"]:
                continue  # its beginning was cut off
            steps.append(step)
            if step["action"] in ("accept", "abstain"):
                yield steps
            else:
                waiting[key] = steps


def _followed(policy: Policy, steps: Sequence[Mapping[str, Any]], name: str) -> Shadowed | None:
    try:
        return follow(policy, steps)
    except (ValueError, TypeError) as error:
        raise LogError("E_POLICY", f"{name}: request {steps[-1]['key']!r}: {error}") from None


def _correct(labels: pl.DataFrame | None) -> dict[tuple[str, str], float]:
    if labels is None:
        return {}
    known = labels.filter(pl.col("correct").is_not_null())
    return {(str(query), tier): value for query, tier, value in known.select("query_id", "tier", "correct").iter_rows()}


def _gain(policy: Policy, found: Shadowed, key: str, correct: Mapping[tuple[str, str], float]) -> tuple[float, float]:
    """The least and the most by which the candidate's answer may be better."""
    if not found.differs:
        return 0.0, 0.0
    before, after = (
        correct.get((key, end.tier)) if isinstance(end, Accept) else policy.abstain if found.identified else None
        for end in (found.live, found.then)
    )
    low = (0.0 if after is None else after) - (1.0 if before is None else before)
    high = (1.0 if after is None else after) - (0.0 if before is None else before)
    return low, high


def _purchase(action: Any) -> str | tuple[str, str]:
    assert isinstance(action, Call | Verify)
    return action.tier if isinstance(action, Call) else (action.tier, action.reading)


def _root(policy: Policy, end: Mapping[str, Any]) -> int:
    vertex = policy.vertices[policy.arm(end["key"])]
    return vertex.context_roots.get(str(end.get("context")), vertex.root)


def _end(action: Any) -> str:
    if isinstance(action, Accept):
        return action.tier
    return UNKNOWN if isinstance(action, Call | Verify) else ABSTAINS


def _day(step: Mapping[str, Any]) -> str:
    when = step.get("time")
    return datetime.fromtimestamp(when, UTC).date().isoformat() if isinstance(when, int | float) else "no time"


# ---------------------------------------------------------------------------------------------------- the report


def report_of(side: Side, margins: Margins = Margins()) -> ShadowReport:
    """What two policies did side by side, in all and in every slice, and whether the candidate is safe."""
    everything = np.ones(len(side.live), dtype=bool)
    total = float(side.weights.sum())

    def share(rows: Bools) -> float:
        return float(side.weights[rows].sum()) / total

    quality, cost = _finding(side, everything, side.gain), _cost(side, everything)
    tiers = sorted({*side.live.tolist(), *side.candidate.tolist()})
    tested, slices = _slices(side, margins)
    verdict, reasons = _verdict(side, margins, quality, slices)
    return ShadowReport(
        len(side.live),
        side.left_out,
        _finding(side, everything, (side.live_cost, side.live_cost)),
        cost,
        quality,
        share(side.differs),
        share(side.gain[0] == side.gain[1]),
        share(side.candidate == UNKNOWN),
        {name: (share(side.live == name), share(side.candidate == name)) for name in tiers},
        margins,
        tested,
        slices,
        verdict,
        reasons,
    )


def _cost(side: Side, rows: Bools) -> Finding:
    return _finding(side, rows, (side.cost[0] - side.live_cost, side.cost[1] - side.live_cost))


def _finding(side: Side, rows: Bools, ends: tuple[Floats, Floats]) -> Finding:
    """The mean over some queries of what lies between two ends, and its interval."""
    (low, below, count), (high, above, _) = (_mean(side, rows, values) for values in ends)
    reach = student_quantile(0.5 + LEVEL / 2, count - 1) if count > 1 else math.inf
    known = bool((ends[0][rows] == ends[1][rows]).all())
    spread = (reach * below if below else 0.0, reach * above if above else 0.0) if count > 1 else (math.inf, math.inf)
    return Finding(low if known else None, low - spread[0], high + spread[1])


def _mean(side: Side, rows: Bools, values: Floats) -> tuple[float, float, int]:
    """The weighted mean of some queries' values, its standard error by groups (as in `mean_with_interval`), and how
    many groups they are of."""
    weights = side.weights[rows]
    mean = float(weights @ values[rows]) / float(weights.sum())
    members = side.groups[rows]
    count = int(np.count_nonzero(np.bincount(members)))
    sums = np.bincount(members, weights=weights * (values[rows] - mean)) / weights.sum()
    return mean, math.sqrt(count / max(count - 1, 1) * float((sums**2).sum())), count


def _slices(side: Side, margins: Margins) -> tuple[int, tuple[Slice, ...]]:
    """How many tests there are, and every slice, those that are worse first and then by their evidence."""
    named = [*_named(side)]
    chances: dict[tuple[int, Kind], float] = {}
    for at, (_, rows) in enumerate(named):
        if np.count_nonzero(np.bincount(side.groups[rows])) >= FEWEST:
            chances |= {(at, kind): p for kind, p in _tests(side, rows, margins).items()}
    corrected = dict(zip(chances, holm([*chances.values()]), strict=True))
    total = float(side.weights.sum())
    found = []
    for at, (where, rows) in enumerate(named):
        own = {kind: p for (of, kind), p in corrected.items() if of == at}
        worse = tuple(kind for kind, p in own.items() if p <= ALPHA)
        weight = float(side.weights[rows].sum())
        raw = min((chances[at, kind] for kind in own), default=1.0)
        evidence = (not worse, "quality" not in worse, "cost" not in worse, raw, -len(where))
        slice_ = Slice(
            where,
            int(rows.sum()),
            weight / total,
            _cost(side, rows),
            _finding(side, rows, side.gain),
            float(side.weights[rows & side.differs].sum()) / weight,
            worse,
            min(own.values(), default=1.0),
        )
        found.append((evidence, at, slice_))
    return len(chances), tuple(each for _, _, each in sorted(found, key=lambda item: item[:2]))


def _named(side: Side) -> Iterator[tuple[str, Bools]]:
    """Every value of what queries are told apart by, then every pair of values, as far as they occur."""
    kinds = {name: values for name, values in side.slices.items() if len({*values.tolist()}) > 1}
    for size in (1, 2):
        for names in combinations(kinds, size):
            met = sorted({*zip(*(kinds[name].tolist() for name in names), strict=True)})
            for values in met:
                rows = np.logical_and.reduce([kinds[name] == value for name, value in zip(names, values, strict=True)])
                yield ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True)), rows


def _tests(side: Side, rows: Bools, margins: Margins) -> dict[Kind, float]:
    """The chance of what was seen, or worse, were the slice no worse than the margin, or as the others."""
    gain, error, _ = _mean(side, rows, side.gain[1])
    over, spread, _ = _mean(side, rows, side.cost[0] - (1.0 + margins.cost) * side.live_cost)
    found: dict[Kind, float] = {
        "quality": _beyond(-gain - margins.quality, error),
        "cost": _beyond(over, spread),
    }
    if not rows.all():
        here, own, _ = _mean(side, rows, side.differs.astype(np.float64))
        there, other, _ = _mean(side, ~rows, side.differs.astype(np.float64))
        found["decisions"] = _beyond(here - there, math.hypot(own, other))
    return found


def _beyond(excess: float, error: float) -> float:
    """The one-sided p-value of an excess above 0."""
    if error == 0.0:
        return 1.0 if excess <= 0.0 else 0.0
    return NORMAL.cdf(-excess / error)


def holm(chances: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method (1979): that below α any of them is wrongly so
    has a chance of at most α.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, highest = [1.0] * len(chances), 0.0
    for rank, at in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        highest = max(highest, min(1.0, chances[at] * (len(chances) - rank)))
        corrected[at] = highest
    return corrected


def points(value: float) -> str:
    """So many points of quality, in words.

    Example:
        >>> points(1.0), points(0.5)
        ('1 point', '0.5 points')
    """
    return f"{value:g} point{'' if value == 1.0 else 's'}"


def _verdict(
    side: Side, margins: Margins, quality: Finding, slices: Sequence[Slice]
) -> tuple[Literal["safe", "not safe", "not known"], tuple[str, ...]]:
    everything = np.ones(len(side.live), dtype=bool)
    allowed = tuple(cost - (1.0 + margins.cost) * side.live_cost for cost in side.cost)
    over = _finding(side, everything, (allowed[0], allowed[1]))
    bad = []
    if quality.high < -margins.quality:
        bad.append(f"quality falls by more than {points(100 * margins.quality)}")
    if over.low > 0.0:
        bad.append(f"cost rises by more than {margins.cost:.0%}")
    for each in slices:
        kinds = [kind for kind in each.worse if kind != "decisions"]
        if kinds:
            bad.append(f"worse in {' and '.join(kinds)}: {each.where}")
    if bad:
        return "not safe", tuple(bad)
    open_ = []
    if quality.low < -margins.quality:
        open_.append(f"quality may fall by up to {-100 * quality.low:.2f} points")
    if over.high > 0.0:
        open_.append(f"cost may rise by more than {margins.cost:.0%}")
    return ("not known", tuple(open_)) if open_ else ("safe", ())
