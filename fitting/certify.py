"""Certificates: an operating point whose promise is kept with a stated chance, or a refusal that says what would be.

The points of a policy's own dial are tested in an order that was fixed when it was fitted, from the safest on, each at
the whole level, and the first that fails ends it (fixed-sequence testing): the chance that any point is accepted which
breaks the promise is that of accepting the first such one, at most delta.  What a point spends can be seen without
knowing what was correct, so traffic without labels will do, and as a rule there is most of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, takewhile

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.bounds import TESTS, least, mean_kept_by_the_next, units_needed
from metaverify.policies.certificate import BEYOND, Certificate, Level, Promise
from metaverify.policies.graph import Ask, Poll, Read, Stop, successors
from metaverify.policies.policy import OperatingPoint, Policy, Vertex, point_at_budget
from metaverify.simulators.counts import Counts, rows_of
from metaverify.simulators.log import LogError, ReplayLog, fingerprint_queries
from metaverify.simulators.overlap import overlapping, shared_rows
from metaverify.simulators.replay import check_match, route
from metaverify.simulators.traffic import varying

__all__ = ["FEWEST_GROUPS", "CertificateError", "Terms", "certify", "certify_crossed", "certify_quality"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_GROUPS = 300
FEWEST_BATCHES = 30  # of a counted log
"""Below which what holds in large samples is not relied on."""

POINTS = 200  # of the dial, beside its vertices
NEAR = (0.6, 1.1)  # of the budget: where most of them lie; the dial is tried to `BEYOND`, as far as expectations err
MARGIN = 2.0
"""How many times the largest price on the fitting rows no price is taken to exceed, where no cap is given; half of all
samples have a larger one than another of their size."""

SLACK = 1e-6  # relative, between a logged price and the file's


class CertificateError(ValueError):
    """Nothing can be promised at this limit: ``limit`` is the nearest that can be, ``rows`` about how many rows like
    these the one asked for would take (infinite where these do not say that any would do), and ``between`` from how
    few to how many that may be, as far as so few rows can tell."""

    code = "E_CERTIFICATE"

    def __init__(self, message: str, limit: float, rows: float, between: tuple[float, float] = (0.0, math.inf)) -> None:
        super().__init__(message, limit, rows, between)
        self.message = message
        self.limit = limit
        self.rows = rows
        self.between = between

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a certificate is to be made; all of it is settled before the rows are looked at.

    Args:
        delta: the chance with which the promise may be broken.
        level: "finite-sample", or "approximate" (Student's test by groups, from 300 groups on).
        method: "auto" is Clopper-Pearson where a point of the dial is a single graph that costs one of two amounts, and
            betting otherwise: of a mixture it sees what is expected before the draw, which varies less.
        dearest: the most that a query can cost, where the run time keeps it to that (`Guard`).
        next: promise the mean cost of so many new queries instead of their expectation.
        looks: by an e-process, so that a log that grows by whole groups may be looked at again and again.

    Raises:
        ValueError: a value that is none, or two that do not go together.
    """

    delta: float = 0.1
    level: Level = "finite-sample"
    method: str = "auto"
    dearest: float | None = None
    next: int = 0
    looks: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 0.5:
            raise ValueError(f"delta is {self.delta:g}; give a chance above 0 and below 0.5")
        if self.level not in ("approximate", "finite-sample"):
            raise ValueError(f"level is {self.level!r}; there are 'approximate' and 'finite-sample'")
        known = ("auto", "clopper-pearson", "hoeffding-bentkus", "betting")
        if self.method not in known:
            raise ValueError(f"method is {self.method!r}; there are {', '.join(known)}")
        if self.dearest is not None and not 0.0 < self.dearest < math.inf:
            raise ValueError(f"dearest is {self.dearest}; give the most that a query can cost, above 0")
        if self.next < 0:
            raise ValueError(f"next is {self.next}; give a number of queries")
        if self.method != "auto" and (self.looks or self.level == "approximate"):
            way = "an e-process" if self.looks else "Student's test"
            raise ValueError(f"method {self.method!r} does not go with {way}; leave it out")
        if self.looks and self.level == "approximate":
            raise ValueError("looks are kept apart by an e-process, which is finite-sample; leave the level out")


def certify(policy: Policy, *given: ReplayLog | Counts, budget: float, terms: Terms = Terms()) -> Policy:
    """The policy with its dial at the dearest point that certainly keeps the budget, and the certificate.

    Args:
        policy: as `fit` made it.
        given: logs, or their counts, of queries that it was not fitted on; what was correct is not looked at, and
            need not be known.
        budget: what the expected cost of a query must not exceed, or the mean cost of the next ones.
        terms: how surely, and by which test.

    Raises:
        CertificateError: not even the cheapest point can be promised to keep the budget.
        LogError: the policy was fitted on some of these rows, one costs more than any query can, or there are fewer
            groups than the approximation needs.
        ValueError: terms that do not fit the policy.
    """
    if not 0.0 < budget < math.inf:
        raise ValueError(f"budget is {budget}; give a finite mean cost above 0")
    logs = [rows_of(log) for log in given]
    for log in logs:
        check_match(policy, log)
        _check_unseen(policy, log)
        _check_rows(log, terms)
        _check_read(policy, log)
    for first, second in combinations(logs, 2):
        _check_apart(policy, first, second)
    path = _upwards(policy.vertices, budget)
    used = sorted({at for point in path for at in (point.low, point.high)})
    logged = _Rows.of(logs)
    spent = {at: np.concatenate([route(policy, log, at).cost for log in logs]) for at in used}
    if terms.level == "finite-sample":
        ranges = _ranges(policy, _prices(policy, terms.dearest), terms.dearest)
        for at, values in spent.items():
            _check_range(values, ranges[at], logged, terms)
    else:
        usual = _ranges(policy, _usual_prices(policy), terms.dearest)
        ranges = tuple(_seen(spent[at], usual[at]) if at in spent else usual[at] for at in range(len(usual)))
    before = _look_before(policy, logged, terms)
    trial = _Trial(logged, _Spent(spent, ranges, logged), terms, before)
    source = "cap" if terms.dearest is not None else "fitting rows" if varying(policy) else "prices"
    return _cost_certificate(policy, trial, path, budget, source)


def certify_crossed(policy: Policy, log: ReplayLog, costs: Costs, *, budget: float, terms: Terms) -> Policy:
    """The same at the approximate level, from what every query cost when it was routed by a policy that did not see it:
    ``costs`` gives them for points of the dial, [points, n], in the order of the log's rows."""
    path, rows = _upwards(policy.vertices, budget), _Rows.of([log])
    usual = _ranges(policy, _usual_prices(policy), None)
    trial = _Trial(rows, _Values(cache(lambda point: np.asarray(costs([point])[0])), usual), terms, None)
    return _cost_certificate(policy, trial, path, budget, "")


def certify_quality(policy: Policy, log: ReplayLog, *, floor: float, delta: float, binary: bool) -> Policy:
    """The policy with its dial at the cheapest point whose expected quality is certainly at least ``floor``.

    Points are tried from the dearest downwards.  ``binary`` says that every answer is right or wrong, so that the
    exact binomial test holds of a single graph; it must be known without looking at these rows.

    Raises:
        CertificateError: not even the dearest point can be promised to reach the floor.
        LogError: the policy was fitted on some of these rows.
    """
    check_match(policy, log)
    _check_unseen(policy, log)
    terms = Terms(delta=delta)
    _check_rows(log, terms)
    _check_read(policy, log)
    path = _points(policy.vertices, np.linspace(0.0, policy.vertices[-1].cost, 2 * POINTS))[::-1]
    rows = _Rows.of([log])
    missed = {at: 1.0 - route(policy, log, at).quality for at in range(len(policy.vertices))}
    coin = _Range(0.0, 1.0, frozenset({0.0, 1.0}) if binary else None)
    trial = _Trial(rows, _Spent(missed, (coin,) * len(policy.vertices), rows), terms, None)
    last = trial.last_accepted(path, 1.0 - floor)
    if last is None:
        highest, needed = 1.0 - trial.bound(path[0]), trial.rows_needed(path[0], 1.0 - floor)
        raise CertificateError(
            f"a quality of {floor:g} is not certified on these {rows.told}: at the dearest point of the dial the bound "
            f"is {_outward(highest, -1)}, the highest floor that can be had here; "
            f"{_rows_text(needed, 'the quality at the dearest point is lower')}",
            highest,
            needed.about,
            (needed.least, needed.most),
        )
    certificate = Certificate(
        "expected quality",
        floor,
        delta,
        "finite-sample",
        trial.method(last),
        1.0 - trial.bound(last),
        _cost_at(policy.vertices, last),
        rows.count,
        rows.groups,
        rows.largest,
    )
    return replace(policy, point=last, certificate=certificate)


# What is tested ------------------------------------------------------------------------------------------------------


def _upwards(vertices: Sequence[Vertex], budget: float) -> tuple[OperatingPoint, ...]:
    """Points of the dial by expected cost, the cheapest first and most of them near the budget."""
    near, wide = np.linspace(*NEAR, POINTS), np.linspace(0.0, BEYOND, POINTS // 4)
    return _points(vertices, budget * np.concatenate([near, wide]))


def _points(vertices: Sequence[Vertex], costs: Floats) -> tuple[OperatingPoint, ...]:
    """The points of the dial at these costs, as far as it goes, and every vertex up to the dearest, the first in any
    case: between two neighbours costs and qualities are linear, so that what holds at both holds between."""
    ends = [vertex.cost for vertex in vertices]
    most = max(float(costs.max()), ends[0])
    every = np.union1d(np.clip(costs, ends[0], ends[-1]), [end for end in ends if end <= most])
    return tuple(replace(point_at_budget(vertices, cost), budget=None) for cost in every.tolist())


def _cost_at(vertices: Sequence[Vertex], point: OperatingPoint) -> float:
    return (1.0 - point.share) * vertices[point.low].cost + point.share * vertices[point.high].cost


@dataclass(frozen=True, slots=True)
class _Range:
    """Between what a query's figure lies, and the only values that it takes, where these are few."""

    low: float
    high: float
    values: frozenset[float] | None = None

    @property
    def two(self) -> bool:
        return self.values is not None and len(self.values) <= 2


def _mixed(low: _Range, high: _Range, share: float) -> _Range:
    """The range in expectation over the draw between two graphs; the values are those without that expectation."""
    if share == 0.0:
        return low
    values = None if low.values is None or high.values is None else low.values | high.values
    least_of, most_of = ((1.0 - share) * a + share * b for a, b in ((low.low, high.low), (low.high, high.high)))
    return _Range(least_of, most_of, values)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Queries by group, groups in the order of a keyed hash of their ids: an order that nobody chose."""

    ids: tuple[str, ...]
    weights: Floats  # [n]
    member: Ints  # [n], the group's place in that order
    sizes: Floats  # [groups], summed weights
    draws: Floats  # [n], uniform, for the draw between two graphs
    alone: bool  # whether every query is a group of its own, and counts once
    count: int  # queries
    batches: int  # of counted logs; 0 where rows are queries

    @classmethod
    def of(cls, logs: Sequence[ReplayLog]) -> _Rows:
        if not logs:
            raise TypeError("give at least one log to certify on")
        marks = [at if log.ungrouped else -1 for at, log in enumerate(logs)]  # ids of two files are not the same query
        names = [f"{mark} {name}" for mark, log in zip(marks, logs, strict=True) for name in log.group_ids]
        place = np.concatenate([log.group_draws("certify", 0) for log in logs])
        _, first, member = np.unique(np.array(names, dtype=object), return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(place[first], kind="stable"), kind="stable")
        weights = np.concatenate([log.weights for log in logs])
        member = rank[member].astype(np.int64)
        return cls(
            tuple(str(i) for log in logs for i in log.query_ids),
            weights,
            member,
            np.asarray(np.bincount(member, weights=weights), dtype=np.float64),
            np.concatenate([log.group_draws("graph", 0) for log in logs]),
            len(first) == len(weights) and bool((weights == 1.0).all()),
            sum(log.queries for log in logs),
            min(0 if log.counted is None else log.counted.batches for log in logs),
        )

    @property
    def many(self) -> bool:
        """Whether there are groups enough for Student's test: so many, or batches of them (a mean of many groups is
        near normal by itself), none of which is empty, as some of 32 would be with fewer than a hundred groups."""
        return self.groups >= FEWEST_GROUPS or self.groups >= self.batches >= FEWEST_BATCHES

    @property
    def groups(self) -> int:
        return len(self.sizes)

    @property
    def independent(self) -> int:
        """How many draws these are; of counted logs, whose groups are not told, as many as queries."""
        return self.count if self.batches else self.groups

    @property
    def largest(self) -> float:
        return float(self.sizes.max())

    @property
    def told(self) -> str:
        return f"{self.count:,} rows" + ("" if self.groups == self.count else f" in {self.groups:,} groups")


Costs = Callable[[Sequence[OperatingPoint]], Floats]
"""What every query costs at points of the dial, [points, n]."""


@dataclass(frozen=True, slots=True, eq=False)
class _Spent:
    """Figures of every query at every vertex, and so at every point of the dial."""

    of_vertex: Mapping[int, Floats]  # [n]
    ranges: Sequence[_Range]
    rows: _Rows

    def range(self, point: OperatingPoint) -> _Range:
        return _mixed(self.ranges[point.low], self.ranges[point.high], point.share)

    def realised(self, point: OperatingPoint) -> _Range:
        """The range of what a query really costs, by the graph that was drawn for it."""
        pair = [self.ranges[at] for at in ((point.low, point.high) if point.share > 0.0 else (point.low,))]
        values = [each.values for each in pair]
        every = None if None in values else frozenset[float]().union(*(v for v in values if v is not None))
        return _Range(min(each.low for each in pair), max(each.high for each in pair), every)

    def expected(self, point: OperatingPoint) -> Floats:
        low, high = self.of_vertex[point.low], self.of_vertex[point.high]
        return low if point.share == 0.0 else np.asarray((1.0 - point.share) * low + point.share * high)

    def drawn(self, point: OperatingPoint) -> Floats:
        low, high = self.of_vertex[point.low], self.of_vertex[point.high]
        return np.where(self.rows.draws < point.share, high, low)


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """Figures that are had for points of the dial and not for vertices."""

    of_point: Callable[[OperatingPoint], Floats]  # [n]
    usual: Sequence[_Range]  # of each vertex, by usual prices

    def range(self, point: OperatingPoint) -> _Range:
        return _seen(self.of_point(point), _mixed(self.usual[point.low], self.usual[point.high], point.share))

    realised = range

    def expected(self, point: OperatingPoint) -> Floats:
        return self.of_point(point)

    drawn = expected


@dataclass(frozen=True, slots=True)
class _Needed:
    """How many rows a certificate would take: about so many, and from how few to how many."""

    about: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """A test of points of the dial, "the mean is at least the limit", one after another."""

    rows: _Rows
    spent: _Spent | _Values
    terms: Terms
    before: Certificate | None  # of the look before

    def method(self, point: OperatingPoint) -> str:
        if self.terms.level == "approximate":
            return "student"
        if self.terms.looks:
            return "e-process"
        if self.terms.method != "auto":
            return self.terms.method
        exact = self.rows.alone and point.share == 0.0 and self.spent.realised(point).two
        return "clopper-pearson" if exact else "betting"

    @property
    def largest(self) -> float:
        """Rows of the largest group that there can be."""
        return self.rows.largest if self.before is None else self.before.largest_group

    def last_accepted(self, path: Sequence[OperatingPoint], limit: float) -> OperatingPoint | None:
        """The last point of the path before the first that fails."""
        accepted = list(takewhile(lambda point: self.accepts(point, limit), path))
        return accepted[-1] if accepted else None

    def accepts(self, point: OperatingPoint, limit: float) -> bool:
        """Whether the mean at the point is certainly below the limit."""
        method, ends = self.method(point), self._range(point)
        tested, delta = self._tested(point, limit)
        if not ends.low < tested < ends.high * (1 - 1e-12):
            return ends.high * (1 - 1e-12) <= tested
        units, share = self._units(point, tested)
        if method == "student" and math.log1p(-share) * self.rows.independent > math.log(delta):
            return False  # what is rare and dear may well not be among so few
        return TESTS[method](units, share, delta)

    def bound(self, point: OperatingPoint) -> float:
        """The lowest limit that the point is accepted at."""
        ends = self.spent.realised(point)
        return least(lambda limit: self.accepts(point, limit), ends.low, ends.high)

    def rows_needed(self, point: OperatingPoint, limit: float) -> _Needed:
        """How many rows like these the point would be accepted on: by their own mean, and by means that are as far from
        it as it may well be from the true one (1.64 standard errors)."""
        tested, delta = self._tested(point, limit)
        if tested <= self._range(point).low:
            return _Needed(math.inf, math.inf, math.inf)
        units, share = self._units(point, tested)
        error = 1.64 * float(units.std()) / math.sqrt(len(units))
        per_group = self.rows.count / self.rows.groups

        rare = math.log(delta) / math.log1p(-share) if self.method(point) == "student" else 0.0
        rare *= self.rows.count / self.rows.independent

        def rows(mean: float) -> float:
            some = units_needed(self.method(point), units, mean, delta) if 0.0 < mean < 1.0 else math.inf
            return max(some * per_group, rare, self.rows.count + 1.0)  # so many were not enough

        return _Needed(rows(share), rows(min(share + error, (1.0 + share) / 2.0)), rows(share - error))

    def _range(self, point: OperatingPoint) -> _Range:
        return self.spent.realised(point) if self._draws(point) else self.spent.range(point)

    def _draws(self, point: OperatingPoint) -> bool:
        """Whether what was drawn is tested, and not what is expected before the draw."""
        return self.method(point) == "clopper-pearson"

    def _tested(self, point: OperatingPoint, limit: float) -> tuple[float, float]:
        """The mean that is tested, and at which level, so that the promise is kept."""
        if not self.terms.next:
            return limit, self.terms.delta
        ends = self.spent.realised(point)
        if ends.high <= limit or ends.high == ends.low:
            return limit, self.terms.delta
        share, delta = (limit - ends.low) / (ends.high - ends.low), self.terms.delta / 2
        kept = mean_kept_by_the_next(share, self.terms.next / max(self.largest, 1.0), delta)
        return ends.low + kept * (ends.high - ends.low), delta

    def _units(self, point: OperatingPoint, tested: float) -> tuple[Floats, float]:
        """A number in [0, 1] of each group, in their order, and the mean of it that stands for the one tested.

        Of a group of w rows that spent c it is (c - w x low + (L - w) x (tested - low)) / (L x (high - low)), with L
        rows in the largest: above (tested - low) / (high - low) in the mean just where the mean cost is above tested.
        """
        ends, rows = self._range(point), self.rows
        values = self.spent.drawn(point) if self._draws(point) else self.spent.expected(point)
        width = ends.high - ends.low
        above = np.bincount(rows.member, weights=rows.weights * (values - ends.low), minlength=rows.groups)
        filled = above + (self.largest - rows.sizes) * (tested - ends.low)
        return np.clip(filled / (self.largest * width), 0.0, 1.0), (tested - ends.low) / width


def _cost_certificate(
    policy: Policy, trial: _Trial, path: Sequence[OperatingPoint], budget: float, source: str
) -> Policy:
    terms, rows = trial.terms, trial.rows
    if terms.level == "approximate" and not rows.many:
        raise LogError(
            "E_FEW",
            f"the log has {rows.groups} groups; below {FEWEST_GROUPS} an approximate certificate is wrong too often: "
            "log more, or take the finite-sample level",
        )
    if terms.method == "clopper-pearson":
        _check_two(trial, path)
    last = trial.last_accepted(path, budget)
    if last is None:
        least_budget, needed = trial.bound(path[0]), trial.rows_needed(path[0], budget)
        cheapest = "the cheapest point of the dial does not cost less"
        raise CertificateError(
            f"budget {budget:g} is not certified on these {rows.told}: at the cheapest point of the dial, expected to "
            f"cost {policy.vertices[0].cost:.4g}, the bound is {_outward(least_budget, 1)}, the lowest budget that can "
            f"be had here; {_rows_text(needed, cheapest)}",
            least_budget,
            needed.about,
            (needed.least, needed.most),
        )
    ends = trial.spent.realised(last)
    promise: Promise = "realised cost" if terms.next else "expected cost"
    certificate = Certificate(
        promise,
        budget,
        terms.delta,
        terms.level,
        trial.method(last),
        trial.bound(last),
        _cost_at(policy.vertices, last),
        rows.count,
        rows.groups,
        trial.largest,
        ends.high if terms.level == "finite-sample" else None,
        source if terms.level == "finite-sample" else "",
        1 if trial.before is None else trial.before.looks + 1,
        terms.next,
    )
    return replace(policy, point=replace(last, budget=budget), certificate=certificate)


def _rows_text(needed: _Needed, hopeless: str) -> str:
    """How many rows it would take, as far as these can tell."""
    about, least, most = (f"{float(f'{rows:.2g}'):,.0f}" for rows in (needed.about, needed.least, needed.most))
    if math.isinf(needed.least):
        return f"more rows like these would not help: {hopeless}"
    if math.isinf(needed.about):
        return f"on these rows {hopeless}; should that be chance, it would still take more than {least} rows like these"
    if math.isinf(needed.most):
        return f"the one asked for would take about {about} rows like these, or far more, which so few cannot tell"
    return f"the one asked for would take about {about} rows like these, {least} to {most} as far as these can tell"


def _outward(limit: float, side: int) -> str:
    """A limit in four digits, rounded to the side on which it can be had: up (1) or down (-1)."""
    step = 10.0 ** (math.floor(math.log10(abs(limit))) - 3) if limit else 1.0
    return f"{(math.ceil if side > 0 else math.floor)(limit / step * (1.0 + side * 1e-12)) * step:.4g}"


# What is taken for granted -------------------------------------------------------------------------------------------


Prices = Mapping[tuple[str, str | None], tuple[float, float]]
"""Between what each purchase lies."""


def _prices(policy: Policy, cap: float | None) -> Prices:
    """Between what each purchase lies; a cap is kept by the run time, which has no need of prices.  A reading that is
    missing may have cost nothing."""
    seen = varying(policy)
    found: dict[tuple[str, str | None], tuple[float, float]] = {}
    for tier in policy.tiers:
        bought: list[tuple[str | None, float]] = [(r.name, r.price) for r in tier.readings]
        for name, price in [(None, tier.price), *bought] if tier.answer else bought:
            fixed = (seen is None and cap is None) or (seen is not None and (tier.name, name) not in seen)
            most = math.inf if cap is not None else MARGIN * (seen or {}).get((tier.name, name), price)
            least = price if fixed and name is None else 0.0
            found[tier.name, name] = (least, price if fixed else max(most, price))
    return found


def _usual_prices(policy: Policy) -> Prices:
    """The mean prices of the file; a reading that is missing may have cost nothing."""
    found: dict[tuple[str, str | None], tuple[float, float]] = {}
    for tier in policy.tiers:
        found |= {(tier.name, reading.name): (0.0, reading.price) for reading in tier.readings}
        found |= {(tier.name, None): (tier.price, tier.price)} if tier.answer else {}
    return found


def _ranges(policy: Policy, prices: Prices, cap: float | None) -> tuple[_Range, ...]:
    """What a query can cost at each vertex."""
    walks = _walks(policy, prices, cap)
    return tuple(_range(walks, vertex) for vertex in policy.vertices)


def _walks(policy: Policy, prices: Prices, cap: float | None) -> tuple[_Range, ...]:
    """What a walk from each node can cost, and the only amounts where prices are fixed and few are possible."""
    listed = {(tier.name, reading.name): reading for tier in policy.tiers for reading in tier.readings}
    walks = [_Range(0.0, 0.0, frozenset({0.0}))] * len(policy.nodes)
    for at in range(len(policy.nodes) - 1, -1, -1):
        node = policy.nodes[at]
        match node:
            case Stop(_):
                continue
            case Ask(tier, _):
                own = [prices[tier, None]]
            case Read(tier, reading, _, _, _):
                own = [prices[tier, name] for name in (reading, *(p.reading for p in listed[tier, reading].parts))]
            case Poll(tier, reading, tallies, _):
                low, high = (price / listed[tier, reading].votes for price in prices[tier, reading])
                own = [(low, high * len(tallies))]
        ahead = [walks[child] for child in successors(node)]
        low, high = (sum(price[end] for price in own) for end in (0, 1))
        values = _few([walk.values for walk in ahead], low) if low == high else None
        walks[at] = _Range(low + min(w.low for w in ahead), high + max(w.high for w in ahead), values)
    most = math.inf if cap is None else cap
    return tuple(replace(walk, high=min(walk.high, most)) for walk in walks)


def _few(values: Sequence[frozenset[float] | None], more: float) -> frozenset[float] | None:
    """All these amounts with ``more`` added, where there are two at most."""
    every: set[float] = set()
    for each in values:
        if each is None:
            return None
        every |= {float(f"{value + more:.12g}") for value in each}
    return frozenset(every) if len(every) <= 2 else None


def _range(walks: Sequence[_Range], vertex: Vertex) -> _Range:
    roots = [walks[root] for root in (vertex.root, *vertex.context_roots.values())]
    return _Range(min(r.low for r in roots), max(r.high for r in roots), _few([r.values for r in roots], 0.0))


def _seen(values: Floats, usual: _Range) -> _Range:
    """From the least that was seen to the most, or to the dearest walk at usual prices where none was so dear."""
    return _Range(float(values.min()), max(float(values.max()), usual.high))


def _check_range(values: Floats, ends: _Range, rows: _Rows, terms: Terms) -> None:
    """Make sure that no query costs what none can."""
    beyond = (values > ends.high * (1 + SLACK)) | (values < ends.low * (1 - SLACK))
    if beyond.any():
        at = int(beyond.argmax())
        way_out = "a higher --dearest, and a guard with that cap" if terms.dearest else "--dearest, the run time's cap"
        raise LogError(
            "E_DEAREST",
            f"query {rows.ids[at]!r} costs {values[at]:.6g}, outside [{ends.low:.6g}, {ends.high:.6g}], between which "
            f"it is to lie by the policy's prices: give {way_out}",
        )


def _check_two(trial: _Trial, path: Sequence[OperatingPoint]) -> None:
    if trial.rows.alone and all(trial.spent.realised(point).two for point in path):
        return
    raise ValueError(
        "method 'clopper-pearson' is for rows without groups and weights, on a dial whose points cost one of two "
        "amounts (two tiers at fixed prices); leave it out"
    )


def _check_rows(log: ReplayLog, terms: Terms) -> None:
    """Make sure that a finite-sample certificate, which bounds what single queries cost, has them."""
    if log.counted is not None and terms.level == "finite-sample":
        raise LogError(
            "E_OPTION",
            "a counted log does not hold what single queries cost, which a finite-sample certificate needs: certify on "
            "rows, or at the approximate level",
        )


def _check_unseen(policy: Policy, log: ReplayLog) -> None:
    """Make sure that the policy was not fitted on these rows, as far as its file can tell."""
    seen = overlapping(policy, log)
    if policy.provenance.get("queries") == fingerprint_queries(log) or seen:
        raise LogError(
            "E_INSAMPLE",
            "the policy was fitted on rows of this log, which says nothing certain of new ones: give rows that were "
            "held out, traffic without labels (--traffic), or let `fit --certify` hold some out",
        )


def _check_apart(policy: Policy, first: ReplayLog, second: ReplayLog) -> None:
    """Make sure that no query is counted twice."""
    if again := shared_rows(first, second, policy.tiers):
        raise LogError(
            "E_DUPID",
            f"query {again!r} and others are in the log and in the traffic, with the same readings: give each query "
            "once, since what is counted twice looks twice as sure",
        )


def _check_read(policy: Policy, log: ReplayLog) -> None:
    """Make sure that readings are not missing of queries whose tiers were simply not called: a router's trace says
    nothing of what the policy would have spent there."""
    total = float(log.weights.sum())
    for tier in policy.tiers:
        of = {reading.name: reading for reading in log.source(tier.name).readings}
        for reading in tier.readings:
            before = sum(reading.counts)
            if reading.parts or reading.name not in of or not before:
                continue
            gone = log.total(np.isnan(of[reading.name].confidence).astype(np.float64)) / total
            known = reading.counts[-1] / before
            pooled = (known * before + gone * len(log)) / (before + len(log))
            chance = math.sqrt(pooled * (1.0 - pooled) * (1.0 / before + 1.0 / len(log)))
            if gone > known + 0.02 + 4.0 * chance:
                raise LogError(
                    "E_MISSING",
                    f"{reading.name!r} of {tier.name!r} is missing in {gone:.1%} of these rows, and was in {known:.1%} "
                    "of those that the policy was fitted on: where a tier was not called nothing says what the policy "
                    "would have spent; give rows of which every tier was read, such as explored ones",
                )


def _look_before(policy: Policy, rows: _Rows, terms: Terms) -> Certificate | None:
    """The certificate of the look before, where a growing log is looked at again.

    Raises:
        ValueError: it was not made for that, or the log is no longer the same.
    """
    before = policy.certificate
    if not terms.looks or before is None:
        return None
    if before.method != "e-process":
        raise ValueError("the file's certificate was made for a single look; begin with --looks, on a file without one")
    if rows.count < before.rows:
        raise ValueError(f"the log has {rows.count:,} rows, fewer than the {before.rows:,} of the look before")
    if rows.largest > before.largest_group:
        raise ValueError(
            f"a group has {rows.largest:g} rows, more than the {before.largest_group:g} of the largest one at the look "
            "before: what was promised took for granted that none has; begin again on a file without a certificate"
        )
    return before
