"""What a policy would have earned on a partial log, on which another one decided what is known.

A query can be used as far as everything was seen that the policy wants on the way; what was seen with chance P counts
1 / P times.  The policy's own decision graph is the model: a node is worth q, what the queries that come to it and
were seen further go on to earn.  With r what a step earns, u the share of a query at a node that no query stands for,
and m = (1 - u) q + u · fill,

    V = m(root) + Σ_steps 1{seen so far} / P · (r + m(next) - q(node))

is doubly robust (Robins, Rotnitzky & Zhao 1994; Jiang & Li 2016): right where the chances are, whatever q is.  With one
q for each fold, learnt on the others, it is unbiased, and its interval is that of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.graph import Ask, Node, Poll, Read, Stop, successors
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import LEVEL, Estimate, mean_with_interval, student_quantile
from metaverify.simulators.partial import PartialLog, whole
from metaverify.simulators.replay import check_match
from metaverify.simulators.walks import Step, walks

__all__ = [
    "ESTIMATORS",
    "Appraisal",
    "Finding",
    "Support",
    "Valuation",
    "appraise",
    "robust_values",
    "surpluses",
    "untried",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Kind = Literal["quality", "cost"]

ESTIMATORS = ("dr", "switch-dr", "direct", "snips", "ips")
"""By name, the one to trust first."""

MODELLED = ("dr", "switch-dr", "direct")
"""Those that have an interval for what was never tried."""

WEIGHTED = ("ips", "snips")

FOLDS = 5
PSEUDO = 1.0  # queries that are counted with those that were drawn: half a one at either end (Jeffreys)
FAR = 4.0 / 1.645  # half widths of a 90 % interval: four standard errors
SCARCE = 30  # queries that were drawn; with fewer the interval is told to rest on them
ONE_ROW = 1.0  # of what nodes are worth elsewhere, beside a node's own rows
FINE = 10  # parts of a node's queries that are looked at for themselves
FEWEST = 30  # queries in such a part
ERRORS = 4.0  # standard errors by which fewer were seen than the chances say, where some had none
HARDLY = 5e-4  # the chance that a part in which all had a chance was never seen


@dataclass(frozen=True, slots=True)
class Finding:
    """A mean and its 90 % interval by groups; where it is not identified there is no mean, and the interval holds
    whatever was never tried."""

    mean: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Valuation:
    """What one estimator finds."""

    quality: Finding
    cost: Finding


@dataclass(frozen=True, slots=True)
class Support:
    """What the log knows of one thing that the policy wants: to see a tier's answer, a reading, or how good an answer
    is.

    ``rows`` come to it and ``seen`` of them show it; ``least`` is the smallest chance of those, None where there are
    none.  ``share`` is that of all traffic that comes to it, ``untried`` the part of it of which nothing is known.
    """

    wanted: str
    where: str
    rows: int
    seen: int
    least: float | None
    share: float
    untried: float


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What a policy would have earned on a partial log of n queries.

    ``effective`` is the number of equally likely queries that would tell as much as those that were seen to the end
    (Kish), ``largest`` the largest weight of one; ``cap`` is that of switch-dr.  Of what was never tried weights alone
    say nothing: where something is not identified there are no ``ips`` and ``snips``.  ``notes`` say what makes the
    figures doubtful.
    """

    n: int
    groups: int
    estimators: Mapping[str, Valuation]
    effective: float
    largest: float
    cap: float
    support: tuple[Support, ...]
    notes: tuple[str, ...] = ()

    @property
    def identified(self) -> bool:
        """Whether the log has seen whatever the policy does."""
        return all(each.untried == 0.0 for each in self.support)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**asdict(self), "identified": self.identified}


def appraise(policy: Policy, partial: PartialLog, *, seed: int = 0, cap: float | None = None) -> Appraisal:
    """What the policy would have earned, by every estimator, in expectation over the draw between its two graphs.

    Args:
        policy: at its operating point.
        partial: the log.
        seed: of the folds.
        cap: weights above which switch-dr takes the model alone; the root of the number of queries where not given.
            Where there are none above it there is no switch-dr, which would be the doubly robust estimate.

    Raises:
        LogError: the log lacks a tier, a reading or the context that the policy uses; or the policy asks for votes one
            by one, or buys samples.
    """
    check_match(policy, partial.log)
    cap = math.sqrt(len(partial)) if cap is None else cap
    point = policy.point
    ends = [(point.low, 1.0 - point.share), (point.high, point.share)]
    parts = [(_Walked.of(policy, partial, vertex), share) for vertex, share in ends if share > 0.0]
    identified = all(walked.identified("quality") for walked, _ in parts)
    cut = any((step.inverse > cap).any() for walked, _ in parts for step in walked.steps)
    names = [name for name in (ESTIMATORS if identified else MODELLED) if cut or name != "switch-dr"]
    found: dict[Kind, dict[str, Finding]] = {}
    notes: list[str] = []
    for kind in ("quality", "cost"):
        sides = [_estimates(walked, kind, share, names, seed, cap) for walked, share in parts]
        said = {name: [_sum([of[name][side] for of in sides]) for side in (0, 1)] for name in names}
        known = all(walked.identified(kind) for walked, _ in parts)
        found[kind] = {name: _finding(said[name], partial.log, kind, known) for name in names}
        if cut:
            found[kind]["switch-dr"] = _no_surer(found[kind]["switch-dr"], found[kind]["dr"])
        if kind == "quality":
            notes += _rests_on(said["dr"][0], partial.log)
        if identified:
            notes += _apart({name: low for name, (low, _) in said.items()}, partial.log, kind)
    weight = partial.log.weights * np.sum([share * walked.final("quality")[0] for walked, share in parts], axis=0)
    return Appraisal(
        len(partial),
        partial.log.group_count,
        {name: Valuation(found["quality"][name], found["cost"][name]) for name in names},
        _kish(weight),
        float((weight / partial.log.weights).max()),
        cap,
        _support(parts),
        tuple(notes),
    )


def _no_surer(found: Finding, than: Finding) -> Finding:
    """The finding with an interval that holds another's: what the model is off by only that one knows."""
    return Finding(found.mean, min(found.low, than.low), max(found.high, than.high))


def _rests_on(said: _Said, log: ReplayLog) -> list[str]:
    """A note where an interval rests on few queries that were drawn, and would else be half as wide.

    Queries count by their shares of what is uncertain, so that many of little weight do not hide a few of large weight.
    """
    part = _Drawn.of(said, log).part
    scatter = float(((log.weights * (said.values - log.mean(said.values))) ** 2).sum()) / log.weights.sum() ** 2
    unsure = np.sum([(log.weights * doubt) ** 2 for _, _, doubt in said.draws.values()], axis=0)
    queries = _kish(np.atleast_1d(unsure))
    if not part or queries >= SCARCE or part < scatter / 2.0:
        return []
    return [
        f"the quality rests on {queries:.0f} queries that were seen by chance where most were not: its interval is "
        "rough, explore or label more"
    ]


def _apart(said: Mapping[str, _Said], log: ReplayLog, kind: Kind) -> list[str]:
    """A note where an estimator differs from the doubly robust one by far more than chance: where the chances are
    right, all of them estimate the same."""
    robust = said["dr"]
    explained = np.sqrt(np.sum([surprise**2 for _, surprise, _ in robust.draws.values()], axis=0))
    for name in WEIGHTED:
        ((weight, surprise, doubt),) = said[name].draws.values()
        draws = {"": np.stack([weight, surprise - explained, doubt])}
        found = _interval(_Said(said[name].values - robust.values, draws), log)
        allowed = FAR * (found.high - found.mean) + 1e-9 * abs(log.mean(robust.values))
        if abs(found.mean) > allowed:
            return [
                f"by {name} the {kind} is {found.mean:+.4g} from the doubly robust one, which chance explains to "
                f"{allowed:.2g}: the propensities are not right, or something is that they leave out"
            ]
    return []


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    """What an estimator says of each query.

    The mean of ``values`` is the estimate.  ``draws`` say how much of its scatter is from the draw of each thing that
    was seen for some queries only, [3, n]: a query's weight for that (`Step.drawn`), that times what the query earned
    more than expected, and times what queries that were not seen might have.
    """

    values: Floats  # [n]
    draws: Mapping[str, Floats]

    def times(self, share: float) -> _Said:
        """That of a share of all traffic."""
        return _Said(share * self.values, {thing: share * of for thing, of in self.draws.items()})


def _sum(said: Sequence[_Said]) -> _Said:
    things = {thing: None for of in said for thing in of.draws}
    return _Said(
        np.sum([of.values for of in said], axis=0),
        {thing: np.sum([of.draws[thing] for of in said if thing in of.draws], axis=0) for thing in things},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Walked:
    """The steps of one graph over a log, and which of its queries nothing stands for."""

    policy: Policy
    log: ReplayLog
    vertex: int
    steps: tuple[Step, ...]
    untried: tuple[Floats, ...]  # a step: [m], in [0, 1]
    fill: Mapping[Kind, tuple[tuple[float, ...], tuple[float, ...]]]  # the least and the most that a node can be worth

    @classmethod
    def of(cls, policy: Policy, partial: PartialLog, vertex: int) -> _Walked:
        steps = tuple(walks(policy, partial, vertex))
        nodes = len(policy.nodes)
        fill: dict[Kind, tuple[tuple[float, ...], tuple[float, ...]]] = {
            "quality": ((0.0,) * nodes, (1.0,) * nodes),
            "cost": (_path(policy, min), _path(policy, max)),
        }
        return cls(policy, partial.log, vertex, steps, tuple(map(untried, steps)), fill)

    def of_kind(self, kind: Kind) -> list[tuple[Step, Floats]]:
        """The steps that matter to quality or to cost: that does not ask how good an answer is."""
        pairs = zip(self.steps, self.untried, strict=True)
        return [(step, part) for step, part in pairs if kind == "quality" or step.quality is None]

    @property
    def root(self) -> int:
        """The node with the widest range of what can be earned and cost."""
        return self.policy.vertices[self.vertex].root

    def identified(self, kind: Kind) -> bool:
        return not any(part.any() for _, part in self.of_kind(kind))

    def earned(self, step: Step, kind: Kind) -> Floats:
        """What a step earns or costs, [m]; 0 where it was not seen."""
        values = step.quality if kind == "quality" else step.cost
        return np.zeros(len(step.rows)) if values is None else np.where(step.seen, values, 0.0)

    def final(self, kind: Kind, side: int = 0) -> tuple[Floats, Floats]:
        """The weight of each query that was seen to the end, or of which nothing is known from some point on, [n]; and
        what it earned, which is then filled up."""
        weight, total = np.ones(len(self.log)), np.zeros(len(self.log))
        for step, part in self.of_kind(kind):
            weight[step.rows] = np.where(step.seen, step.inverse, part / step.before)
            total[step.rows] += np.where(step.seen, self.earned(step, kind), self.fill[kind][side][step.node])
        return weight, total


def _support(parts: Sequence[tuple[_Walked, float]]) -> tuple[Support, ...]:
    """What is known of everything that some graph wants."""
    policy, log = parts[0][0].policy, parts[0][0].log
    labels = _places(policy, [walked.vertex for walked, _ in parts])
    traffic = float(log.weights.sum())
    found: dict[int, list[tuple[Step, Floats, float]]] = {}
    for walked, share in parts:
        for step, part in zip(walked.steps, walked.untried, strict=True):
            if step.quality is None or not (step.seen.all() and (step.through == step.before).all()):
                found.setdefault(step.node, []).append((step, part, share))  # a label that is always there goes unsaid
    rows = []
    for node, of in sorted(found.items()):
        came = np.concatenate([step.rows for step, _, _ in of])
        showed = np.concatenate([step.rows[step.seen] for step, _, _ in of])
        least = [float((step.through / step.before)[step.seen].min()) for step, _, _ in of if step.seen.any()]
        weight = [share * log.weights[step.rows] / step.before for step, _, share in of]
        rows.append(
            Support(
                _wanted(policy, node),
                labels[node],
                len(np.unique(came)),
                len(np.unique(showed)),
                min(least, default=None),
                sum(float(each.sum()) for each in weight) / traffic,
                sum(float(each @ part) for each, (_, part, _) in zip(weight, of, strict=True)) / traffic,
            )
        )
    return tuple(rows)


def _estimates(
    walked: _Walked, kind: Kind, share: float, names: Sequence[str], seed: int, cap: float
) -> dict[str, tuple[_Said, _Said]]:
    """What each estimator says of each query, with the least and with the most that what is not known may be worth."""
    sides = [_side(walked, kind, names, seed, cap, side) for side in ((0,) if walked.identified(kind) else (0, 1))]
    return {name: (sides[0][name].times(share), sides[-1][name].times(share)) for name in names}


def _side(walked: _Walked, kind: Kind, names: Sequence[str], seed: int, cap: float, side: int) -> dict[str, _Said]:
    log = walked.log
    folds = log.folds(min(FOLDS, log.group_count), seed=seed)
    weight, total = walked.final(kind, side)
    mean = log.total(weight * total) / log.total(weight)
    usual = log.mean(weight)
    drawn = np.sqrt(np.maximum(weight**2 - weight, 0.0))
    least, most = (walked.fill[kind][end][walked.root] for end in (0, 1))
    how: dict[str, Callable[[], _Said]] = {
        "dr": lambda: _modelled(walked, kind, side, folds),
        "switch-dr": lambda: _modelled(walked, kind, side, folds, cap),
        "direct": lambda: _modelled(walked, kind, side, None),
        "snips": lambda: _Said(
            mean + weight * (total - mean) / usual,
            {"": _draws(drawn / usual, total - mean, _doubt(mean, least, most))},
        ),
        "ips": lambda: _Said(weight * total, {"": _draws(drawn, total, _doubt(0.0, least, most))}),
    }
    return {name: how[name]() for name in names}


def _draws(drawn: Floats, surprise: Floats, doubt: Floats | float) -> Floats:
    return np.stack([drawn, drawn * surprise, drawn * doubt])


def _doubt(mean: Floats | float, least: float, most: float) -> Any:
    """How far a value is from what is expected, as a root mean square, if it is the least or the most that it can be
    with equal chance."""
    return np.sqrt((np.maximum(most - mean, 0.0) ** 2 + np.maximum(mean - least, 0.0) ** 2) / 2.0)


def _modelled(walked: _Walked, kind: Kind, side: int, folds: Ints | None, cap: float = math.inf) -> _Said:
    """What the doubly robust estimator says of each query, weights above ``cap`` being left to the model.

    Each fold has a model of its own, from the bottom to the top learnt on the others, so that no query says anything of
    what it is compared with.  Where there are no folds, a node is worth what its own rows earned: what is then added to
    the model sums to nothing, so that the mean is the model's, and the values are its influence.
    """
    n = len(walked.log)
    member = np.zeros(n, dtype=np.int64) if folds is None else folds
    count = int(member.max()) + 1
    known = np.ones((1, n), dtype=bool) if folds is None else member != np.arange(count)[:, None]  # [folds, n]
    ahead = np.zeros((count, n))  # by the model of each fold
    added, draws = np.zeros(n), dict[str, Floats]()
    everywhere = np.zeros((2, count))  # of this node and all further on: weights, and what was earned
    for step, part in reversed(walked.of_kind(kind)):
        rows, own = step.rows, (member[step.rows], np.arange(len(step.rows)))
        inverse = step.inverse
        target = walked.earned(step, kind) + ahead[:, rows]  # [folds, m]
        weight = walked.log.weights[rows] * inverse * known[:, rows]
        here = np.stack([weight.sum(axis=1), (weight * target).sum(axis=1)])
        everywhere = everywhere + here
        mean = float(walked.log.weights[rows] @ inverse) / max(int(step.seen.sum()), 1)
        worth = _worth(here, everywhere, 0.0 if folds is None else ONE_ROW * mean)
        surprise = target[own] - worth[own[0]]
        doubt = _doubt(worth[own[0]], *(walked.fill[kind][end][step.node] for end in (0, 1)))
        counts = step.seen & (inverse <= cap)
        added[rows] += inverse * surprise * counts
        if (drawn := step.drawn * counts).any():
            mine = draws.setdefault(_wanted(walked.policy, step.node), np.zeros((3, n)))
            mine[:, rows] += _draws(drawn, surprise, doubt)
        ahead[:, rows] = (1.0 - part) * worth[:, None] + part * walked.fill[kind][side][step.node]
    return _Said(added + ahead[member, np.arange(n)], draws)


def _worth(here: Floats, everywhere: Floats, row: float) -> Floats:
    """What a node is worth by the model of each fold, [folds]: what was earned there, and with the weight of one row
    what was earned there and further on."""
    usual = np.divide(everywhere[1], everywhere[0], out=np.zeros(here.shape[1]), where=everywhere[0] > 0.0)
    total = here[0] + row
    return np.asarray(np.divide(here[1] + row * usual, total, out=usual.copy(), where=total > 0.0))


def _finding(said: Sequence[_Said], log: ReplayLog, kind: Kind, identified: bool) -> Finding:
    least, most = (_interval(of, log) for of in said)
    low, high = max(least.low, 0.0), most.high
    return Finding(
        least.mean if identified else None, *((min(low, 1.0), min(high, 1.0)) if kind == "quality" else (low, high))
    )


def _interval(said: _Said, log: ReplayLog) -> Estimate:
    """The mean of the values and its interval by groups, in which the draw of what was seen has a part of its own, with
    Satterthwaite's (1946) degrees of freedom."""
    estimate, count = mean_with_interval(said.values, log), log.group_count
    drawn = _Drawn.of(said, log)
    if count < 2 or not drawn.part:
        return estimate
    half = estimate.high - estimate.mean
    whole = (half / student_quantile(0.5 + LEVEL / 2, count - 1)) ** 2 + drawn.more
    part = min(drawn.part, whole)
    freedom = whole**2 / max((whole - part) ** 2 / (count - 1) + part**2 / drawn.freedom, 1e-300)
    half = student_quantile(0.5 + LEVEL / 2, max(freedom, 1.0)) * math.sqrt(whole)
    return Estimate(estimate.mean, estimate.mean - half, estimate.mean + half)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The part of an estimate's variance that is from the draw of what was seen: ``more`` of it than queries scatter.

    It stands on few queries where weights are large, and where all of these were right their scatter says that none
    could have been wrong.  So with what was drawn half a query is counted that earned the least that it could, and half
    a one that earned the most, as Jeffreys' prior of a proportion does.  That is done for each thing that is drawn:
    many labels of little weight say nothing of a tier of which few calls were seen.
    """

    part: float
    more: float
    freedom: float

    @classmethod
    def of(cls, said: _Said, log: ReplayLog) -> _Drawn:
        part = more = unsure = 0.0
        for draws in said.draws.values():
            drawn, surprise, doubt = log.weights * draws / log.weights.sum()
            if not drawn.any():
                continue
            queries = _kish(drawn)
            added = PSEUDO / queries * float(doubt @ doubt)
            own = float(surprise @ surprise) + added
            part, more, unsure = part + own, more + added, unsure + own**2 / (queries + PSEUDO - 1)
        return cls(part, more, part**2 / max(unsure, 1e-300))


def _kish(weight: Floats) -> float:
    """How many equally weighted queries tell as much (Kish 1965); 0 of none."""
    return float(weight.sum() ** 2 / max((weight**2).sum(), 1e-300))


def robust_values(policy: Policy, partial: PartialLog, vertex: int, folds: Ints) -> tuple[tuple[Floats, Floats], ...]:
    """The doubly robust quality and cost of each query by one graph, [n], nodes being valued on the other folds.

    Twice: where something was never tried its quality counts as 0, and its cost as that of the dearest walk; then as 1,
    and as that of the cheapest.  Both are the same where everything was tried.
    """
    walked = _Walked.of(policy, partial, vertex)

    def value(kind: Kind, side: int) -> Floats:
        return _modelled(walked, kind, side, folds).values

    careful = value("quality", 0), value("cost", 1)
    known: list[Kind] = [kind for kind in ("quality", "cost") if walked.identified(kind)]
    if len(known) == 2:
        return careful, careful
    return careful, (
        careful[0] if "quality" in known else value("quality", 1),
        careful[1] if "cost" in known else value("cost", 0),
    )


def surpluses(policy: Policy, log: ReplayLog, vertex: int) -> list[tuple[Step, Floats, str]]:
    """What each step's queries earned more than was to be expected before it, [m], on a full log; and where it is."""
    walked = _Walked.of(policy, whole(log), vertex)
    places, ahead, found = _places(policy, [vertex]), np.zeros(len(log)), []
    for step in reversed(walked.steps):
        target = walked.earned(step, "quality") + ahead[step.rows]
        weight = log.weights[step.rows]
        worth = float(weight @ target) / float(weight.sum())
        found.append((step, target - worth, f"{_wanted(policy, step.node)}, {places[step.node]}"))
        ahead[step.rows] = worth
    return found[::-1]


def untried(step: Step, place: Ints | None = None) -> Floats:
    """The share of each query that none stands for, [m]: 1 where it had no chance to be seen, or none was seen at all.

    Where the chances of those that were not seen are not known, they must at least fit the number that was: in each
    part of the queries the inverse chances of those that were seen sum to all of them, but for an error that the
    smallest chance tells.  What is missing beyond four errors had no chance.

    Args:
        step: a purchase, or an end.
        place: the part that each query is in, [m]; told apart by their last reading where it is not given.
    """
    seen = step.seen
    if not seen.any():
        return np.ones(len(seen))
    part = np.where(~seen & (step.through == 0.0), 1.0, 0.0)
    unknown = ~seen & np.isnan(step.through)
    if not unknown.any():
        return part
    inverse = np.divide(step.before, step.through, out=np.zeros(len(seen)), where=seen)  # exactly 1 where it is certain
    least = 1.0 / float(inverse.max())
    odds = (1.0 - least) / least
    rows = np.flatnonzero(part == 0.0)
    of = np.unique(_parts(step.last, part == 0.0) if place is None else place, return_inverse=True)[1]
    here, stood, shown, blank = (
        np.bincount(of[rows], weights=column[rows], minlength=int(of.max()) + 1)
        for column in (np.ones(len(seen)), inverse, seen, unknown)
    )
    lacking = here - stood
    some = lacking > ERRORS * np.sqrt(here * odds) + 1e-9 * here
    never = np.where(shown > 0.0, some, (1.0 - least) ** here < HARDLY)
    share = np.divide(np.minimum(lacking, blank), blank, out=np.zeros(len(here)), where=never & (blank > 0.0))
    part[unknown] = share[of[unknown]]
    return part


def _parts(last: Floats, kept: NDArray[np.bool_]) -> Ints:
    """Which of up to `FINE` parts of the queries each one is in, by its last reading, [m]."""
    known = np.sort(last[kept & ~np.isnan(last)])
    count = min(FINE, len(known) // FEWEST)
    cuts = np.unique(known[[len(known) * k // count for k in range(1, count)]]) if count > 1 else np.zeros(0)
    return np.where(np.isnan(last), len(cuts) + 1, np.searchsorted(cuts, last, side="right")).astype(np.int64)


def _path(policy: Policy, choose: Callable[[Sequence[float]], float]) -> tuple[float, ...]:
    """What the cheapest or the dearest walk from each node costs, at the prices in the policy."""
    price = {tier.name: tier.price for tier in policy.tiers}
    listed = {(tier.name, r.name): r.price for tier in policy.tiers for r in tier.readings}
    ahead = [0.0] * len(policy.nodes)
    for at in range(len(policy.nodes) - 1, -1, -1):
        node = policy.nodes[at]
        if isinstance(node, Stop):
            continue
        own = price[node.tier] if isinstance(node, Ask) else listed[node.tier, node.reading]
        ahead[at] = own + choose([ahead[child] for child in successors(node)])
    return tuple(ahead)


def _wanted(policy: Policy, at: int) -> str:
    match policy.nodes[at]:
        case Ask(tier, _):
            return tier
        case Read(tier, reading, _, _, _) | Poll(tier, reading, _, _):
            return f"{reading} of {tier}"
        case Stop(action):
            return f"quality of {getattr(action, 'tier', 'nothing')}"


def _places(policy: Policy, vertices: Sequence[int]) -> list[str]:
    """For each node, the readings that lead to it by these graphs, adjacent intervals as one."""
    roots = {
        root for at in vertices for root in (policy.vertices[at].root, *policy.vertices[at].context_roots.values())
    }
    came: list[dict[str, list[tuple[float, float]]] | None] = [
        {} if at in roots else None for at in range(len(policy.nodes))
    ]
    for at, node in enumerate(policy.nodes):
        before = came[at]
        if before is None:
            continue
        for child, name, interval in _ways(node):
            after = came[child] = came[child] or {}
            for known, intervals in ({name: [interval]} if name else before).items():
                after.setdefault(known, []).extend(intervals)
    return [" or ".join(_told(n, i) for n, i in (of or {}).items()) or "every query" for of in came]


def _ways(node: Node) -> Iterator[tuple[int, str, tuple[float, float]]]:
    """The nodes that can follow, each with the reading and its interval; no name where nothing is read."""
    match node:
        case Read(tier, reading, cuts, then, missing):
            name = f"{reading} of {tier}"
            yield from ((child, name, edges) for child, edges in zip(then, pairwise((0.0, *cuts, 1.0)), strict=True))
            if missing not in then:
                yield missing, f"{name} missing", (0.0, 0.0)
        case _:
            yield from ((child, "", (0.0, 0.0)) for child in successors(node))


def _told(name: str, intervals: Sequence[tuple[float, float]]) -> str:
    joined: list[tuple[float, float]] = []
    for low, high in sorted(intervals):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    ends = (f"[{low:.4g}, {high:.4g}{']' if high == 1.0 else ')'}" for low, high in joined)
    return name if name.endswith(" missing") else f"{name} in {' and '.join(ends)}"
