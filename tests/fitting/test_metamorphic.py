"""Relations that hold whatever the right answer is: scale, order, names, copies, more choice, more knowledge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.compare import compare
from metaverify.fitting.export import policy_of
from metaverify.fitting.fit import fit
from metaverify.fitting.frontier import Frontier, InfeasibleBudgetError, trace_frontier
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice, Plan
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.reduce import reduce_plans
from metaverify.fitting.table import JointTable, back_off
from metaverify.policies.actions import Accept
from metaverify.policies.file import dump_policy
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import BudgetError, Policy
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.references import no_information_hull
from metaverify.simulators.worlds import WORLDS, World, hopeless, joint, shared_difficulty, useless_verifier
from tests.fitting.oracles import table_of_world
from tests.strategies import random_log, random_table, repeatable

EXACT = 1e-12
CLOSE = 1e-9
PRICES = (0.0, 0.005, 0.02, 0.1, 0.5)
CASCADE = (
    Ladder("a", (Rung("free", (0.5,)), Rung("paid", (0.5,)))),
    Ladder("b", (Rung(None), Rung("paid", (0.3, 0.7)))),
    Ladder("c", (Rung("free", (0.5,)),)),
)


CHAIN = TableLearner(policies="chain", bins=3)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param](3, 3, reading_prices=(0.0, 0.1), missing=0.1)


def value(table: JointTable, price: float, abstain: float | None = None) -> float:
    plan = Lattice(table, abstain=abstain).solve(price)
    return plan.quality - price * plan.cost


def frontier_of(table: JointTable) -> Frontier:
    return trace_frontier(Lattice(table), gap=1e-7)


def with_prices(table: JointTable, price: Sequence[Sequence[float | np.ndarray]]) -> JointTable:
    return replace(table, price=tuple(map(tuple, price)))


def count_policy(log: ReplayLog, bins: int = 3) -> Policy:
    lattice = Lattice(back_off(Counts().table(code_log(log, ladders_of(log, bins)))))
    return policy_of(lattice, trace_frontier(lattice, gap=1e-6), log)


def buys(plan: Plan, source: int, rung: int) -> bool:
    """Whether a plan ever climbs that rung."""
    return any(stage.depths[source] == rung and (stage.climb == source).any() for stage in plan.stages)


def with_costs(log: ReplayLog, factor: float) -> ReplayLog:
    def reading(r: LoggedReading) -> LoggedReading:
        return replace(r, price=factor * r.price)

    tiers = (replace(t, cost=factor * t.cost, readings=tuple(map(reading, t.readings))) for t in log.tiers)
    return replace(log, tiers=tuple(tiers))


# Scale --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0, 0.25, 2.0**-20])
def test_scaling_prices_and_budget_changes_no_decision_on_worlds(world: World, factor: float) -> None:
    table = table_of_world(world)
    dearer = with_prices(table, [[factor * p for p in rungs] for rungs in table.price])
    first, second = frontier_of(table), frontier_of(dearer)
    assert second.qualities == first.qualities
    assert second.costs == tuple(factor * cost for cost in first.costs)
    reductions = [reduce_plans(Lattice(t), f.plans) for t, f in ((table, first), (dearer, second))]
    assert reductions[0] == reductions[1]
    for budget in np.linspace(first.costs[0], first.costs[-1], 9):
        assert second.at(factor * budget) == first.at(budget)


@pytest.mark.parametrize("factor", [2.0, 0.25, 2.0**-20])
@pytest.mark.parametrize("varying", [False, True])
def test_scaling_the_costs_of_a_log_changes_no_decision(varying: bool, factor: float) -> None:
    log = random_log(200, 1, varying=varying)
    first, second = count_policy(log), count_policy(with_costs(log, factor))
    assert second.nodes == first.nodes
    assert [v.quality for v in second.vertices] == [v.quality for v in first.vertices]
    assert [v.cost for v in second.vertices] == [factor * v.cost for v in first.vertices]


@pytest.mark.parametrize("factor", [2.0, 0.25, 2.0**-20])
def test_scaling_the_costs_and_the_budget_of_a_fit_changes_no_decision(factor: float) -> None:
    log = random_log(240, 2, varying=True)
    learner = TableLearner(bins=4)
    first = fit(log, budget=4.0, learner=learner, compare=False)
    second = fit(with_costs(log, factor), budget=4.0 * factor, learner=learner, compare=False)
    assert second.policy.nodes == first.policy.nodes
    assert second.policy.point.share == pytest.approx(first.policy.point.share, abs=1e-8)
    assert second.outcome.quality == first.outcome.quality
    assert second.outcome.cost.mean == pytest.approx(factor * first.outcome.cost.mean, rel=CLOSE)


# Order, copies, names -------------------------------------------------------------------------------------------------


def test_the_order_of_rows_changes_no_byte_of_the_file() -> None:
    log = random_log(150, 3, varying=True, contexts=2, weighted=True, groups=True)
    texts = set()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(log)) if seed else np.arange(len(log))
        fitted = fit(log.take(order), budget=4.0, learner=TableLearner(bins=3))
        texts.add((dump_policy(fitted.policy), repr(fitted.outcome), repr(fitted.references)))
    assert len(texts) == 1


def test_the_order_of_a_tier_s_columns_among_others_changes_no_byte_of_the_file(tmp_path: Path) -> None:
    log = random_log(150, 3, readings=("free paid", "free", "free", ""), varying=True)
    a, b, c, d = log.tiers
    log = replace(log, tiers=(a, b, replace(c, cost=b.cost), replace(d, correct=b.correct, cost=b.cost[::-1])))
    write_log(log, tmp_path / "log.parquet")
    columns = pl.read_parquet(tmp_path / "log.parquet")
    blocks = [[name for name in columns.columns if name.endswith(tier)] for tier in log.tier_names]
    texts = set()
    for order in itertools.permutations(blocks):
        columns.select("query_id", *itertools.chain(*order)).write_parquet(tmp_path / "moved.parquet")
        moved = read_log(tmp_path / "moved.parquet")
        texts.add(dump_policy(fit(moved, budget=3.0, learner=CHAIN, folds=2, compare=False).policy))
    assert len(texts) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_row_twice_or_of_weight_2_changes_no_decision(seed: int) -> None:
    log = random_log(120, seed, varying=seed == 1, scored=seed == 2)
    plain = count_policy(log)
    heavy = count_policy(replace(log, weights=2 * log.weights))
    twice = log.take(np.repeat(np.arange(120), 2))
    doubled = count_policy(twice)
    assert plain.nodes == heavy.nodes == doubled.nodes
    for other in (heavy, doubled):
        for left, right in zip(plain.vertices, other.vertices, strict=True):
            assert (left.root, left.cost, left.quality) == pytest.approx((right.root, right.cost, right.quality))


def test_a_heavy_row_stands_for_as_many_rows() -> None:
    log = random_log(120, 4)
    weights = np.random.default_rng(4).integers(1, 4, 120)
    heavy = count_policy(replace(log, weights=weights.astype(float)))
    assert heavy.nodes == count_policy(log.take(np.repeat(np.arange(120), weights))).nodes


@pytest.mark.parametrize("equal", [True, False])
def test_a_factor_common_to_all_weights_changes_no_letter_of_the_file(equal: bool) -> None:
    log = random_log(300, 5, varying=True, contexts=2, readings=("free paid", "free", ""))
    drawn = np.ones(300) if equal else np.random.default_rng(5).integers(1, 4, 300).astype(float)
    files, spent = set(), set()
    for factor in (1e-3, 0.3, 1.0, 1e12):
        found = fit(replace(log, weights=factor * drawn), budget=3.0, folds=2, compare=False)
        told = {name: value for name, value in found.policy.provenance.items() if name != "log"}
        files.add(dump_policy(replace(found.policy, provenance=told)))
        spent.add(repr(found.outcome))
        rows = drawn.sum() ** 2 / (drawn**2).sum()  # Kish
        listed = [r.counts for tier in found.policy.tiers for r in tier.readings]
        listed += [counts for *_, counts in found.policy.provenance["prices"]]
        assert len(listed) > 3
        for counts in listed:
            assert sum(counts) == pytest.approx(rows, abs=len(counts) / 2)
    assert (len(files), len(spent)) == (1, 1)


def test_a_factor_common_to_all_weights_changes_no_comparison() -> None:
    log = random_log(120, 6, weighted=True, groups=True)
    one, other = (
        compare(replace(log, weights=factor * log.weights), ["chain"], budgets=[3.0], folds=2, resamples=20)
        for factor in (1.0, 1e-3)
    )
    scores = ([replace(method, seconds=0.0) for method in found.methods] for found in (one, other))
    assert next(scores) == next(scores)
    assert replace(one, fingerprint="", methods=()) == replace(other, fingerprint="", methods=())


def test_weight_2_is_a_row_twice_in_the_histograms_of_a_fit() -> None:
    log = random_log(300, 7)
    weights = np.where(np.arange(300) % 5 == 0, 2.0, 1.0)
    many = log.take(np.repeat(np.arange(300), weights.astype(int)))
    many = replace(many, query_ids=np.array([f"{at:04}" for at in range(360)], dtype=object))
    heavy, twice = (
        fit(of, budget=3.0, learner=CHAIN, folds=2, compare=False).policy.tiers
        for of in (replace(log, weights=weights), replace(many, group_ids=many.query_ids))
    )
    assert any(tier.readings for tier in heavy)
    for one, other in zip(heavy, twice, strict=True):
        for mine, theirs in zip(one.readings, other.readings, strict=True):
            assert mine.cuts == theirs.cuts
            assert np.array(mine.counts) / sum(mine.counts) == pytest.approx(np.array(theirs.counts) / 360, abs=0.002)


def renamed(log: ReplayLog, names: dict[str, str]) -> ReplayLog:
    return replace(log, tiers=tuple(replace(tier, name=names[tier.name]) for tier in log.tiers))


def in_names(node: Node, names: dict[str, str]) -> Node:
    match node:
        case Stop(Accept(tier)):
            return Stop(Accept(names[tier]))
        case Ask(tier, _) | Read(tier, _, _, _, _):
            return replace(node, tier=names[tier])
    return node


def test_renaming_tiers_renames_them_in_the_policy_and_nothing_else() -> None:
    names = {"tier0": "zebra", "tier1": "aardvark", "tier2": "mole"}
    log = random_log(200, 5, varying=True)
    first, second = count_policy(log), count_policy(renamed(log, names))
    assert second.nodes == tuple(in_names(node, names) for node in first.nodes)
    assert [replace(v, price=0.0) for v in second.vertices] == [replace(v, price=0.0) for v in first.vertices]
    fits = [fit(at, budget=4.0, learner=TableLearner(bins=3)) for at in (log, renamed(log, names))]
    assert fits[1].policy.nodes == tuple(in_names(node, names) for node in fits[0].policy.nodes)
    assert fits[1].outcome.quality == fits[0].outcome.quality


# More choice ----------------------------------------------------------------------------------------------------------


def without_tier(table: JointTable, gone: int) -> JointTable:
    """The same world in which one source is not offered."""
    axes, at = [], 1
    for s, ladder in enumerate(table.ladders):
        if s == gone:
            axes = list(range(at, at + len(ladder.rungs)))
        at += len(ladder.rungs)
    kept = [s for s in range(len(table.ladders)) if s != gone]

    def less(array: np.ndarray) -> np.ndarray:
        return array.sum(axis=tuple(axes))

    return JointTable(
        tuple(table.ladders[s] for s in kept),
        less(table.mass),
        tuple(less(table.quality[s]) for s in kept),
        tuple(tuple(less(p) if isinstance(p, np.ndarray) else p for p in table.price[s]) for s in kept),
        table.contexts,
        table.share,
    )


def test_one_tier_more_never_lowers_the_optimum_of_a_world_at_any_price(world: World) -> None:
    table = table_of_world(world)
    for price in PRICES:
        for gone in range(3):
            assert value(table, price) >= value(without_tier(table, gone), price) - EXACT


@repeatable(25)
@given(seed=st.integers(0, 10**6), gone=st.integers(0, 2), varying=st.booleans())
def test_one_tier_more_never_lowers_the_training_optimum(seed: int, gone: int, varying: bool) -> None:
    log = random_log(60, seed, varying=varying)
    fewer = log.with_tiers([name for at, name in enumerate(log.tier_names) if at != gone])
    tables = [Counts().table(code_log(at, ladders_of(at, 3))) for at in (log, fewer)]
    for price in PRICES:
        assert value(tables[0], price) >= value(tables[1], price) - EXACT


def with_tier(log: ReplayLog, tier: LoggedTier) -> ReplayLog:
    return replace(log, tiers=tuple(sorted((*log.tiers, tier), key=lambda t: float(t.cost.mean()))))


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_tier_that_is_always_wrong_and_costs_no_less_is_never_called(factor: float) -> None:
    log = random_log(200, 6)
    rng = np.random.default_rng(6)
    readings = (LoggedReading("noise", np.full(200, 0.5), np.zeros(200)),)
    for dominated in log.tiers:
        useless = LoggedTier("useless", np.zeros(200), factor * dominated.cost, readings)
        nodes = count_policy(with_tier(log, useless)).nodes
        assert not [node for node in nodes if isinstance(node, Ask) and node.tier == "useless"]
    fitted = fit(with_tier(log, LoggedTier("useless", np.zeros(200), 2 + rng.random(200))), budget=4.0)
    assert not [node for node in fitted.policy.nodes if isinstance(node, Ask) and node.tier == "useless"]


def test_a_copy_of_a_tier_adds_nothing() -> None:
    log = random_log(150, 7)
    for tier in log.tiers:
        copied = with_tier(log, replace(tier, name="copy"))
        tables = [Counts().table(code_log(at, ladders_of(at, 3))) for at in (log, copied)]
        for price in PRICES:
            assert value(tables[1], price) == pytest.approx(value(tables[0], price), abs=EXACT)


def test_twin_tiers_can_change_places() -> None:
    table = random_table((Ladder("a", (Rung("free", (0.3, 0.7)),)), Ladder("b", (Rung("free", (0.3, 0.7)),))), 8)
    swapped = JointTable(
        table.ladders[::-1],
        table.mass.swapaxes(1, 2),
        tuple(q.swapaxes(1, 2) for q in table.quality[::-1]),
        table.price[::-1],
    )
    for price in PRICES:
        assert value(swapped, price) == pytest.approx(value(table, price), abs=EXACT)
    twins = JointTable(
        table.ladders,
        (table.mass + swapped.mass) / 2,
        ((table.quality[0] + swapped.quality[0]) / 2, (table.quality[1] + swapped.quality[1]) / 2),
        ((1.0,), (1.0,)),
    )
    for vertex in frontier_of(twins).plans:
        assert not buys(vertex, 1, 0) or buys(vertex, 0, 0)  # of equals the first
    mirrored = replace(
        twins,
        mass=twins.mass.swapaxes(1, 2),
        quality=tuple(q.swapaxes(1, 2) for q in twins.quality[::-1]),
    )
    assert frontier_of(mirrored).costs == pytest.approx(frontier_of(twins).costs, abs=EXACT)
    assert frontier_of(mirrored).qualities == pytest.approx(frontier_of(twins).qualities, abs=EXACT)


def test_the_order_in_which_tiers_are_listed_does_not_matter() -> None:
    table = random_table(CASCADE, 9, varying=True)
    axes = {0: (1, 2), 1: (3, 4), 2: (5,)}
    for order in ((2, 1, 0), (1, 2, 0)):
        moved = (0, *(axis for s in order for axis in axes[s]))
        shuffled = JointTable(
            tuple(table.ladders[s] for s in order),
            table.mass.transpose(moved),
            tuple(table.quality[s].transpose(moved) for s in order),
            tuple(tuple(p.transpose(moved) if isinstance(p, np.ndarray) else p for p in table.price[s]) for s in order),
        )
        for price in PRICES:
            assert value(shuffled, price) == pytest.approx(value(table, price), abs=EXACT)


def test_a_free_tier_that_is_always_right_is_called_first_and_accepted() -> None:
    log = random_log(100, 10)
    free = LoggedTier("free", np.ones(100), np.zeros(100), log.tiers[0].readings)
    policy = count_policy(with_tier(log, free))
    assert policy.nodes == (Ask("free", 1), Stop(Accept("free")))
    assert [(v.cost, v.quality) for v in policy.vertices] == [(0.0, pytest.approx(1.0, abs=EXACT))]
    fitted = fit(with_tier(log, free), budget=1.0, compare=False).policy
    assert fitted.nodes == (Ask("free", 1), Stop(Accept("free")))


def test_the_worth_of_abstaining_is_a_floor_and_never_lowers_the_optimum(world: World) -> None:
    table = table_of_world(world)
    for price in PRICES:
        worths = [value(table, price, abstain) for abstain in (None, 0.0, 0.3, 0.6, 0.9, 1.0)]
        assert all(later >= earlier - EXACT for earlier, later in itertools.pairwise(worths))
        assert worths[-1] == pytest.approx(1.0, abs=EXACT)
        assert worths[-2] >= 0.9 - EXACT


# More knowledge -------------------------------------------------------------------------------------------------------


def blind_to_the_last(table: JointTable) -> JointTable:
    """The same without the last tier's last reading."""
    *others, last = table.ladders

    def less(array: np.ndarray) -> np.ndarray:
        return array.sum(axis=-1)

    prices = [[less(p) if isinstance(p, np.ndarray) else p for p in rungs] for rungs in table.price]
    return replace(
        table,
        ladders=(*others, Ladder(last.source, last.rungs[:-1])),
        mass=less(table.mass),
        quality=tuple(less(q) for q in table.quality),
        price=tuple(map(tuple, (*prices[:-1], prices[-1][:-1]))),
    )


def with_last_price(table: JointTable, price: float) -> JointTable:
    return with_prices(table, (*table.price[:-1], (*table.price[-1][:-1], price)))


@pytest.mark.parametrize("seed", range(4))
def test_free_information_never_lowers_the_optimum_nor_does_any_that_need_not_be_bought(seed: int) -> None:
    ladders = (Ladder("b", (Rung("free", (0.5,)),)), Ladder("a", (Rung(None), Rung("paid", (0.3, 0.7)))))
    table = random_table(ladders, seed)
    helped = 0
    for price in PRICES:
        blind = value(blind_to_the_last(table), price)
        worths = [value(with_last_price(table, cost), price) for cost in (0.0, 0.01, 0.1, 1.0, 1e9)]
        assert all(dearer <= cheaper + EXACT for cheaper, dearer in itertools.pairwise(worths))
        assert worths[-1] >= blind - EXACT
        helped += worths[0] > blind + 1e-3
    assert helped


def test_a_reading_that_nobody_can_afford_is_never_bought() -> None:
    for seed in range(4):
        table = with_last_price(random_table(CASCADE[::-1], seed), 1e9)
        blind = blind_to_the_last(table)
        affordable = [plan for plan in frontier_of(table).plans if plan.cost < 1e6]
        without = frontier_of(blind)
        assert [plan.cost for plan in affordable] == pytest.approx(without.costs, abs=CLOSE)
        assert [plan.quality for plan in affordable] == pytest.approx(without.qualities, abs=CLOSE)
        assert not any(buys(plan, 2, 1) for plan in affordable)


@pytest.mark.parametrize("cost", [1e-4, 1e-3, 0.1, 2.0])
@pytest.mark.parametrize("at", [0, 1])
def test_a_reading_that_says_nothing_is_never_bought(at: int, cost: float) -> None:
    tiers = (Ladder("a", (Rung("free", (0.5,)),)), Ladder("b", (Rung("free", (0.3, 0.7)),)), Ladder("c", (Rung(None),)))
    noise = np.array([0.2, 0.5, 0.3])
    for seed in range(3):
        known = replace(random_table(tiers, seed), price=((0.5,), (1.0,), (2.0,)))

        def noisy(array: np.ndarray) -> np.ndarray:
            return np.moveaxis(array[..., None] * noise, -1, at + 2)

        table = JointTable(
            tuple(
                replace(la, rungs=(*la.rungs, Rung("noise", (0.5,)))) if k == at else la for k, la in enumerate(tiers)
            ),
            noisy(known.mass),
            tuple(map(noisy, known.quality)),
            tuple((*p, cost) if k == at else p for k, p in enumerate(known.price)),
        )
        frontier, without = frontier_of(table), frontier_of(known)
        assert not any(buys(plan, at, 1) for plan in frontier.plans)
        assert frontier.costs == pytest.approx(without.costs, abs=CLOSE)
        assert frontier.qualities == pytest.approx(without.qualities, abs=CLOSE)


@pytest.mark.parametrize("share", [0.01, 0.25])
def test_a_useless_verifier_that_must_be_paid_is_never_read(share: float) -> None:
    table = table_of_world(useless_verifier(3, 4, reading_prices=(share,), missing=0.1))
    for plan in frontier_of(table).plans:
        assert not any(buys(plan, source, 1) for source in range(3))


def test_where_readings_say_nothing_the_frontier_is_the_no_information_hull() -> None:
    world = useless_verifier(3, 5)
    table = table_of_world(world)
    frontier = frontier_of(table)
    one = np.ones(1)
    ids = np.array(["q"], dtype=object)
    tiers = tuple(
        LoggedTier(name, one * float(table.quality[k].sum()), one * float(world.prior @ world.price[:, k]))
        for k, name in enumerate(world.tiers)
    )
    hull = no_information_hull(ReplayLog(ids, tiers, one, ids))
    assert frontier.costs == pytest.approx([point.cost for point in hull.points], abs=CLOSE)
    assert frontier.qualities == pytest.approx([point.quality for point in hull.points], abs=CLOSE)


@pytest.mark.parametrize("make", [shared_difficulty, hopeless])
def test_a_reading_billed_apart_is_never_worse_than_one_billed_with_the_call(make) -> None:
    apart = table_of_world(make(3, 4, reading_prices=(0.25,)))
    together = JointTable(
        tuple(Ladder(ladder.source, ladder.rungs[1:]) for ladder in apart.ladders),
        apart.mass.reshape(1, *apart.mass.shape[2::2]),
        tuple(q.reshape(1, *q.shape[2::2]) for q in apart.quality),
        tuple((call + reading,) for call, reading in apart.price),
    )
    better = 0
    for price in (0.002, 0.01, 0.03):
        assert value(apart, price) >= value(together, price) - EXACT
        better += value(apart, price) > value(together, price) + 1e-4
    assert better


def test_a_coarser_reading_is_never_worth_more() -> None:
    fine = random_table((Ladder("a", (Rung("free", (0.25, 0.5, 0.75)),)), CASCADE[2]), 11)

    def merged(array: np.ndarray) -> np.ndarray:
        return np.stack([array[:, :2].sum(axis=1), array[:, 2:4].sum(axis=1), array[:, 4]], axis=1)

    coarse = replace(
        fine,
        ladders=(Ladder("a", (Rung("free", (0.5,)),)), CASCADE[2]),
        mass=merged(fine.mass),
        quality=tuple(map(merged, fine.quality)),
    )
    for price in PRICES:
        assert value(fine, price) >= value(coarse, price) - EXACT


def test_contexts_known_are_never_worth_less_than_pooled() -> None:
    table = random_table(CASCADE, 12, contexts=2)
    share = np.array(table.share)[:, None]

    def pooled(array: np.ndarray) -> np.ndarray:
        return (share.reshape(-1, *[1] * (array.ndim - 1)) * array).sum(axis=0, keepdims=True)

    blind = JointTable(table.ladders, pooled(table.mass), tuple(map(pooled, table.quality)), table.price)
    for price in PRICES:
        assert value(table, price) >= value(blind, price) - EXACT


# More budget ----------------------------------------------------------------------------------------------------------


def test_more_budget_is_never_worse_and_the_last_unit_is_worth_least(world: World) -> None:
    frontier = frontier_of(table_of_world(world))
    budgets = np.linspace(frontier.costs[0], 1.05 * frontier.costs[-1], 60)
    gains = np.diff([frontier.quality(float(budget)) for budget in budgets])
    assert (gains >= -EXACT).all()
    assert (np.diff(gains) <= CLOSE).all()


def test_a_budget_above_the_dearest_policy_is_no_constraint(world: World) -> None:
    table = table_of_world(world)
    best = float(np.max(table.quality, axis=0).sum())
    assert frontier_of(table).quality(1e9) == pytest.approx(best, abs=CLOSE)
    policy = count_policy(random_log(100, 13))
    assert policy.at(budget=1e9).expected_quality == policy.vertices[-1].quality


def test_a_budget_below_the_cheapest_tier_is_refused_with_what_that_costs(world: World) -> None:
    frontier = frontier_of(table_of_world(world))
    cheapest = float(world.prior @ world.price[:, 0])
    assert frontier.costs[0] == pytest.approx(cheapest, rel=CLOSE)
    with pytest.raises(InfeasibleBudgetError, match=f"below {cheapest:.6g}, the cost of the cheapest policy"):
        frontier.at(0.9 * cheapest)
    with pytest.raises(BudgetError, match="is below 1, the cost of the cheapest policy"):
        count_policy(random_log(100, 14)).at(budget=0.5)


def test_the_exact_table_of_a_world_is_the_joint_of_its_readings(world: World) -> None:
    """The oracle of the tests above, against the world's own closed forms."""
    table, exact = table_of_world(world), joint(world)
    assert table.mass.sum() == pytest.approx(1.0, abs=EXACT)
    for k in range(3):
        assert table.quality[k].sum() == pytest.approx(float(exact.quality[k].sum()), abs=EXACT)
        assert math.isclose(float(np.sum(table.price[k][0])), float(exact.price[k].sum()), rel_tol=CLOSE)
