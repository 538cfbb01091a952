"""Relations between a fit, a replay, a file or a decision and its twin, on whatever Hypothesis draws.

Twenty cases each in the fast suite, 200 each among the slow ones.  `test_metamorphic` has the same kind of relation
on known worlds and whole fits, where a case takes longer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.fit import fit
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.table import JointTable
from metaverify.policies.actions import Accept, Call
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.guards import Guard, TokenBucket
from metaverify.policies.policy import BudgetError, OperatingPoint
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.replay import route
from tests.fitting.test_metamorphic import (
    CASCADE,
    CHAIN,
    CLOSE,
    EXACT,
    PRICES,
    blind_to_the_last,
    buys,
    count_policy,
    frontier_of,
    in_names,
    renamed,
    value,
    with_costs,
    with_last_price,
    with_prices,
    with_tier,
    without_tier,
)
from tests.strategies import fractions, random_log, random_table, repeatable, tables

Data = st.DataObject

KINDS = st.lists(st.sampled_from(["free", "paid", "free paid", ""]), min_size=2, max_size=3)
SEEDS = st.integers(0, 2**31)


def a_log(data: Data, rows: int = 60, **kinds: Any) -> ReplayLog:
    readings, seed = data.draw(KINDS), data.draw(SEEDS)
    return random_log(rows, seed, readings=readings, varying=data.draw(st.booleans()), **kinds)


def a_table(data: Data, ladders: tuple[Ladder, ...] = CASCADE, **kinds: Any) -> JointTable:
    return random_table(ladders, data.draw(SEEDS), contexts=data.draw(st.integers(0, 2)), **kinds)


def a_price(data: Data) -> float:
    return data.draw(st.sampled_from(PRICES) | st.floats(0.0, 1.0))


def counted(log: ReplayLog) -> JointTable:
    return Counts().table(code_log(log, ladders_of(log, 3)))


def assert_same_table(one: JointTable, other: JointTable) -> None:
    assert one.ladders == other.ladders
    np.testing.assert_allclose(one.mass, other.mass, atol=EXACT)
    for mine, theirs in zip(one.quality, other.quality, strict=True):
        if mine is not None and theirs is not None:
            np.testing.assert_allclose(mine, theirs, atol=EXACT)


# Budget --------------------------------------------------------------------------------------------------------------


def more_budget_is_never_worse(data: Data) -> None:
    policy = count_policy(a_log(data))
    least = policy.vertices[0].cost
    budgets = sorted(least * (1 + share) for share in data.draw(st.lists(st.floats(0, 5), min_size=2, max_size=5)))
    dialled = [policy.at(budget=budget) for budget in budgets]
    assert all(a.expected_quality <= b.expected_quality + EXACT for a, b in itertools.pairwise(dialled))
    assert all(at.expected_cost <= budget * (1 + CLOSE) for at, budget in zip(dialled, budgets, strict=True))


def quality_is_concave_and_never_falls_with_the_budget(data: Data) -> None:
    frontier = frontier_of(data.draw(tables(27, 4)))
    gains = np.diff([frontier.quality(float(b)) for b in np.linspace(frontier.costs[0], frontier.costs[-1] + 0.1, 15)])
    assert (gains >= -EXACT).all()
    assert (np.diff(gains) <= 1e-6).all()


def a_budget_above_the_dearest_path_is_none_and_below_the_cheapest_tier_is_refused(data: Data) -> None:
    log = a_log(data)
    policy = count_policy(log)
    dearest = max(float(route(policy, log, v).cost.max()) for v in range(len(policy.vertices)))
    free = policy.at(budget=dearest * (1 + data.draw(fractions)))
    assert free.expected_quality == pytest.approx(policy.vertices[-1].quality, abs=EXACT)
    with pytest.raises(BudgetError, match="is below"):
        policy.at(budget=policy.vertices[0].cost * data.draw(st.floats(0.0, 0.99)))


# Rows ----------------------------------------------------------------------------------------------------------------


def rows_twice_change_no_table_and_tighten_no_interval(data: Data) -> None:
    log = a_log(data)
    twice = log.take(np.repeat(np.arange(len(log)), 2))
    twice = replace(twice, query_ids=np.array([f"{i:04}" for i in range(len(twice))], dtype=object))
    twice = replace(twice, group_ids=np.repeat(log.query_ids, 2))
    assert_same_table(counted(log), counted(twice))
    policy = count_policy(log)
    once, again = replay(policy, log), replay(policy, twice)
    for mine, theirs in ((once.quality, again.quality), (once.cost, again.cost)):
        assert theirs.mean == pytest.approx(mine.mean, abs=1e-9)
        assert theirs.high - theirs.low >= (mine.high - mine.low) * (1 - CLOSE) - CLOSE


def a_weight_of_2_is_a_row_twice(data: Data) -> None:
    log = a_log(data)
    weights = np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(log), max_size=len(log))))
    heavy = replace(log, weights=weights.astype(float))
    many = log.take(np.repeat(np.arange(len(log)), weights))
    assert_same_table(counted(heavy), counted(many))
    policy = count_policy(log)
    for vertex in range(len(policy.vertices)):
        one, other = route(policy, heavy, vertex), route(policy, many, vertex)
        assert heavy.mean(one.cost) == pytest.approx(many.mean(other.cost), rel=CLOSE)
        assert heavy.mean(one.quality) == pytest.approx(many.mean(other.quality), abs=CLOSE)


def the_order_of_rows_changes_no_byte_of_the_file(data: Data) -> None:
    log = a_log(data, weighted=data.draw(st.booleans()), groups=data.draw(st.booleans()))
    order = np.random.default_rng(data.draw(SEEDS)).permutation(len(log))
    fits = [fit(at, price=0.02, learner=CHAIN, folds=2, compare=False) for at in (log, log.take(order))]
    assert dump_policy(fits[0].policy) == dump_policy(fits[1].policy)
    assert repr(fits[0].outcome) == repr(fits[1].outcome)


def a_mixture_of_logs_lies_between_its_parts(data: Data) -> None:
    log = a_log(data, 80)
    part = np.arange(80) < data.draw(st.integers(20, 60))
    parts, share = (log.take(part), log.take(~part)), float(part.mean())
    policy, price = count_policy(log), a_price(data)
    for vertex in range(len(policy.vertices)):
        whole, *those = (route(policy, of, vertex).cost.mean() for of in (log, *parts))
        assert whole == pytest.approx(share * those[0] + (1 - share) * those[1], rel=CLOSE)
    ladders = ladders_of(log, 3)
    one, *each = (value(Counts().table(code_log(of, ladders)), price) for of in (log, *parts))
    assert one <= share * each[0] + (1 - share) * each[1] + CLOSE  # to know the part is worth something


# Prices and names ----------------------------------------------------------------------------------------------------


def scaling_prices_and_budget_changes_no_decision(data: Data) -> None:
    log, factor = a_log(data), 2.0 ** data.draw(st.integers(-20, 20))
    first, second = count_policy(log), count_policy(with_costs(log, factor))
    assert second.nodes == first.nodes
    assert [v.cost for v in second.vertices] == [factor * v.cost for v in first.vertices]


def a_constant_on_the_first_call_s_price_changes_no_decision(data: Data) -> None:
    only = (Ladder("a", (Rung("free", (0.3, 0.7)), Rung("draw", (0.5,)), Rung("again", (0.5,)))),)
    table, more = a_table(data, only, samples=1.0), data.draw(st.floats(0.0, 10.0))
    (call, *later), price = table.price[0], a_price(data)
    dearer = with_prices(table, [[call + more, *later]])
    plans = [Lattice(of).solve(price) for of in (table, dearer)]
    assert plans[1].cost == pytest.approx(plans[0].cost + more, rel=CLOSE)
    assert plans[1].quality == pytest.approx(plans[0].quality, abs=CLOSE)


def a_price_split_into_call_and_forced_reading_is_the_same(data: Data) -> None:
    apart = a_table(data, (Ladder("a", (Rung(None), Rung("paid", (0.3, 0.7)))), CASCADE[2]))
    (call, reading), other = (sum_of(apart, 0)), apart.price[1]
    together = replace(
        apart,
        ladders=(Ladder("a", apart.ladders[0].rungs[1:]), CASCADE[2]),
        mass=apart.mass[:, 0],
        quality=tuple(q[:, 0] for q in apart.quality if q is not None),
        price=((call + reading,), other),
    )
    price = a_price(data)
    forced = with_prices(apart, [[call + reading, 0.0], other])
    assert value(forced, price) == pytest.approx(value(together, price), abs=CLOSE)
    assert value(apart, price) >= value(together, price) - CLOSE


def sum_of(table: JointTable, source: int) -> list[float]:
    return [float(np.sum(price)) for price in table.price[source]]


def renaming_renames_and_nothing_else(data: Data) -> None:
    log = a_log(data)
    new = data.draw(st.lists(st.text("abcxyz é", min_size=1), min_size=3, max_size=3, unique=True))
    names = dict(zip(log.tier_names, new, strict=False))
    first, second = count_policy(log), count_policy(renamed(log, names))
    assert second.nodes == tuple(in_names(node, names) for node in first.nodes)
    assert [(v.cost, v.quality) for v in second.vertices] == [(v.cost, v.quality) for v in first.vertices]


# Tiers ---------------------------------------------------------------------------------------------------------------


def a_useless_tier_adds_nothing(data: Data) -> None:
    log, price = a_log(data), a_price(data)
    n = len(log)
    cost = float(log.tiers[0].cost.mean()) * data.draw(st.floats(1.0 + CLOSE, 20.0))  # a cheaper one can be refuge
    said = LoggedReading("noise", np.full(n, 0.5), np.zeros(n))
    more = with_tier(log, LoggedTier("useless", np.zeros(n), np.full(n, cost), (said,)))
    assert value(counted(more), price) == pytest.approx(value(counted(log), price), abs=CLOSE)


def any_tier_more_is_never_worse(data: Data) -> None:
    table, price = a_table(data, varying=True), a_price(data)
    assert value(table, price) >= value(without_tier(table, data.draw(st.integers(0, 2))), price) - EXACT


def a_dominated_tier_is_never_called(data: Data) -> None:
    log = a_log(data)
    better = data.draw(st.sampled_from(log.tiers))
    worse = better.correct * data.draw(st.floats(0.0, 1.0))
    tier = LoggedTier("worse", worse, better.cost * data.draw(st.floats(1.01, 3.0)))
    assert "worse" not in {node.tier for node in count_policy(with_tier(log, tier)).nodes if isinstance(node, Ask)}


def a_perfect_free_tier_is_taken_first(data: Data) -> None:
    log = a_log(data)
    readings = data.draw(st.sampled_from([(), log.tiers[0].readings]))
    free = LoggedTier("free", np.ones(len(log)), np.zeros(len(log)), readings)
    assert count_policy(with_tier(log, free)).nodes == (Ask("free", 1), Stop(Accept("free")))


def twin_tiers_are_exchangeable(data: Data) -> None:
    twin = (Rung("free", (0.3, 0.7)),)
    table, price = a_table(data, (Ladder("a", twin), Ladder("b", twin))), a_price(data)
    swapped = replace(
        table,
        ladders=table.ladders[::-1],
        mass=table.mass.swapaxes(1, 2),
        quality=tuple(q.swapaxes(1, 2) for q in table.quality[::-1] if q is not None),
        price=table.price[::-1],
    )
    assert value(swapped, price) == pytest.approx(value(table, price), abs=EXACT)


# Information ---------------------------------------------------------------------------------------------------------


def a_monotone_transform_of_the_confidences_changes_no_route(data: Data) -> None:
    log, power = a_log(data), data.draw(st.sampled_from([0.25, 0.5, 2.0, 3.0]))

    def bent(tier: LoggedTier) -> LoggedTier:
        return replace(tier, readings=tuple(replace(r, confidence=r.confidence**power) for r in tier.readings))

    curved = replace(log, tiers=tuple(map(bent, log.tiers)))
    first, second = count_policy(log), count_policy(curved)
    assert [(v.cost, v.quality, v.root) for v in second.vertices] == [
        (v.cost, v.quality, v.root) for v in first.vertices
    ]
    for vertex in range(len(first.vertices)):
        one, other = route(first, log, vertex), route(second, curved, vertex)
        assert (one.accepted == other.accepted).all()
        assert (one.cost == other.cost).all()


def noise_for_confidence_falls_to_the_hull(data: Data) -> None:
    plain = tuple(Ladder(name, (Rung(None),)) for name in "abc")
    known = random_table(plain, data.draw(SEEDS))
    share = np.random.default_rng(data.draw(SEEDS)).dirichlet(np.ones(4))  # three bins and missing

    def noisy(array: np.ndarray) -> np.ndarray:
        return array[..., 0, None] * share

    table = replace(
        known,
        ladders=(*plain[:2], Ladder("c", (Rung("noise", (0.3, 0.7)),))),
        mass=noisy(known.mass),
        quality=tuple(noisy(q) for q in known.quality if q is not None),
    )
    frontier = frontier_of(table)
    points = [(sum_of(known, s)[0], float(known.quality[s].sum())) for s in range(3)]
    for budget in np.linspace(min(points)[0], 1.1 * max(points)[0], 7):
        pairs = itertools.product(points, points)
        best = max(mixed(one, other, budget) for one, other in pairs)
        assert frontier.quality(float(budget)) == pytest.approx(best, abs=1e-6)


def mixed(one: tuple[float, float], other: tuple[float, float], budget: float) -> float:
    """The best mean quality of mixing two tiers within a budget."""
    low, high = sorted((one, other))
    if low[0] > budget * (1 + EXACT):
        return -1.0
    share = 1.0 if high[0] <= budget else (budget - low[0]) / (high[0] - low[0])
    return max(low[1], low[1] + share * (high[1] - low[1]))


def garbling_never_helps(data: Data) -> None:
    table, price = a_table(data), a_price(data)
    axis = data.draw(st.sampled_from([1, 2, 4, 5]))
    bins = table.mass.shape[axis]
    channel = np.random.default_rng(data.draw(SEEDS)).dirichlet(np.full(bins, 0.5), bins)

    def garbled(array: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.moveaxis(array, axis, -1) @ channel, -1, axis)

    worse = replace(table, mass=garbled(table.mass), quality=tuple(garbled(q) for q in table.quality if q is not None))
    assert value(worse, price) <= value(table, price) + EXACT


def free_information_never_hurts_and_infinitely_dear_is_never_bought(data: Data) -> None:
    table, price = a_table(data, CASCADE[::-1]), a_price(data)
    blind = value(blind_to_the_last(table), price)
    assert value(with_last_price(table, 0.0), price) >= blind - EXACT
    plan = Lattice(with_last_price(table, 1e9)).solve(max(price, 1e-3))
    assert not buys(plan, 2, 1)


# File, replay and run time -------------------------------------------------------------------------------------------


def export_load_export_is_the_same(data: Data) -> None:
    policy = count_policy(a_log(data, contexts=data.draw(st.sampled_from([0, 2])), signals=data.draw(st.booleans())))
    text = dump_policy(policy)
    assert dump_policy(parse_policy(text.encode())) == text


def replay_is_the_closed_form(data: Data) -> None:
    log = a_log(data, weighted=data.draw(st.booleans()), scored=data.draw(st.booleans()))
    policy = count_policy(log)
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert log.mean(routes.cost) == pytest.approx(vertex.cost, rel=1e-6)
        assert log.mean(routes.quality) == pytest.approx(vertex.quality, abs=1e-6)


def the_order_of_keys_in_readings_is_irrelevant(data: Data) -> None:
    log = a_log(data)
    policy = count_policy(log)
    confidence = st.none() | fractions
    known = {t.name: {r.name: data.draw(confidence) for r in t.readings} for t in log.tiers if data.draw(st.booleans())}
    key = data.draw(st.text())
    tiers = data.draw(st.permutations(list(known)))
    moved = {name: {r: known[name][r] for r in data.draw(st.permutations(list(known[name])))} for name in tiers}
    assert policy.decide(known, key=key) == policy.decide(moved, key=key)


def a_request_fares_as_its_row_in_the_replay(data: Data) -> None:
    log = a_log(data, 30)
    policy = count_policy(log)
    vertex = data.draw(st.integers(0, len(policy.vertices) - 1))
    policy = replace(policy, point=OperatingPoint(vertex, vertex, 0.0, None, None))
    routes = route(policy, log, vertex)
    tiers = {tier.name: tier for tier in log.tiers}
    for row in range(len(log)):
        readings: dict[str, dict[str, float | None]] = {}
        paid = 0.0
        while not isinstance(action := policy.decide(readings), Accept):
            tier = tiers[action.tier]
            if isinstance(action, Call):
                paid += float(tier.cost[row])
                bought = [r for r in tier.readings if r.free]
                readings[action.tier] = {}
            else:
                bought = [r for r in tier.readings if r.name == action.reading]
                paid += float(bought[0].price[row])
            for r in bought:
                readings[action.tier][r.name] = None if np.isnan(r.confidence[row]) else float(r.confidence[row])
        assert policy.tiers[routes.accepted[row]].name == action.tier
        assert routes.cost[row] == pytest.approx(paid, rel=CLOSE)


def no_token_bucket_is_an_infinite_one(data: Data) -> None:
    log = a_log(data, 30)
    policy = count_policy(log)
    failing = data.draw(st.sets(st.sampled_from([tier.name for tier in log.tiers])))
    cap = data.draw(st.sampled_from([np.inf, float(np.mean([tier.price for tier in policy.tiers]))]))

    def call(name: str, row: int) -> Reply:
        if name in failing and row % 3 == 0:
            raise Failure("down", None if row % 2 else 0.5)
        tier = log.tier(name)
        return Reply((name, row), {r.name: float(r.confidence[row]) for r in tier.readings if r.free}, tier.cost[row])

    def verify(name: str, reading: str, row: int, _: object) -> Look:
        bought = next(r for r in log.tier(name).readings if r.name == reading)
        return Look(float(bought.confidence[row]), float(bought.price[row]))

    bucket = TokenBucket(0.0, 1e300, lambda: 0.0)
    off, infinite = (Router(policy, call, verify, guard=Guard(cap, b)) for b in (None, bucket))
    for row in range(len(log)):
        one, other = off.route(row, key=row), infinite.route(row, key=row)
        assert (one.answer, one.vertex, one.reasons) == (other.answer, other.vertex, other.reasons)
        assert repr(one.steps) == repr(other.steps)  # NaN is NaN


RELATIONS: dict[str, Callable[[Data], None]] = {
    relation.__name__: relation
    for relation in (
        more_budget_is_never_worse,
        quality_is_concave_and_never_falls_with_the_budget,
        a_budget_above_the_dearest_path_is_none_and_below_the_cheapest_tier_is_refused,
        rows_twice_change_no_table_and_tighten_no_interval,
        a_weight_of_2_is_a_row_twice,
        the_order_of_rows_changes_no_byte_of_the_file,
        a_mixture_of_logs_lies_between_its_parts,
        scaling_prices_and_budget_changes_no_decision,
        a_constant_on_the_first_call_s_price_changes_no_decision,
        a_price_split_into_call_and_forced_reading_is_the_same,
        renaming_renames_and_nothing_else,
        a_useless_tier_adds_nothing,
        any_tier_more_is_never_worse,
        a_dominated_tier_is_never_called,
        a_perfect_free_tier_is_taken_first,
        twin_tiers_are_exchangeable,
        a_monotone_transform_of_the_confidences_changes_no_route,
        noise_for_confidence_falls_to_the_hull,
        garbling_never_helps,
        free_information_never_hurts_and_infinitely_dear_is_never_bought,
        export_load_export_is_the_same,
        replay_is_the_closed_form,
        the_order_of_keys_in_readings_is_irrelevant,
        a_request_fares_as_its_row_in_the_replay,
        no_token_bucket_is_an_infinite_one,
    )
}


@pytest.mark.parametrize("relation", RELATIONS)
@repeatable(20)
@given(data=st.data())
def test_it_holds(relation: str, data: Data) -> None:
    RELATIONS[relation](data)


@pytest.mark.slow
@pytest.mark.parametrize("relation", RELATIONS)
@repeatable(200)
@given(data=st.data())
def test_it_holds_in_200_cases(relation: str, data: Data) -> None:
    RELATIONS[relation](data)
