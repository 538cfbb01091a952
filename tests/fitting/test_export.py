"""From a solved frontier to a policy, and to a smaller one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.context import contextual_table
from metaverify.fitting.export import keep_vertices, policy_of, thin, with_beliefs
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.table import back_off
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.graph import Ask, Read
from metaverify.policies.policy import Belief, Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.replay import route
from tests.fitting.oracles import walk_row
from tests.strategies import random_log


def exported(log: ReplayLog, *, bins: int = 4, slack: float = 0.0, believe: bool = False) -> Policy:
    contexts = () if log.contexts is None else tuple(sorted(set(log.contexts)))
    lattice = Lattice(back_off(contextual_table(Counts(), code_log(log, ladders_of(log, bins), contexts), kappa=0.0)))
    frontier = trace_frontier(lattice, gap=1e-5)
    return policy_of(lattice, frontier, log, slack=slack, believe=range(len(frontier.plans)) if believe else ())


def decisions(policy: Policy, log: ReplayLog, vertex: int) -> tuple[bytes, bytes]:
    routes = route(policy, log, vertex)
    return routes.cost.tobytes(), routes.accepted.tobytes()


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    return random_log(240, 0, readings=("free paid", "paid", ""), contexts=2, varying=True)


@pytest.fixture(scope="module")
def policy(log: ReplayLog) -> Policy:
    return exported(log, believe=True)


def test_tiers_carry_mean_prices_and_the_histograms_of_the_log(log: ReplayLog, policy: Policy) -> None:
    ladders = ladders_of(log, 4)
    for tier, column, ladder in zip(policy.tiers, log.tiers, ladders, strict=True):
        assert (tier.name, tier.price) == (column.name, log.mean(column.cost))
        rungs = [rung for rung in ladder.rungs if rung.reading is not None]
        for reading, read, rung in zip(tier.readings, column.readings, rungs, strict=True):
            assert (reading.name, reading.price, reading.cuts) == (read.name, log.mean(read.price), rung.cuts)
            missing = int(np.isnan(read.confidence).sum())
            seen = read.confidence[~np.isnan(read.confidence)]
            inner = np.histogram(seen, bins=[-1.0, *rung.cuts, 2.0])[0].tolist()
            assert reading.counts == (*inner, missing)


def test_signals_are_carried_with_what_they_need_and_their_policy_earns_what_it_says() -> None:
    log = random_log(240, 3, readings=("free", ""), varying=True, signals=True)
    policy = exported(log, bins=3, believe=True)
    assert [(t.name, t.answer, t.needs) for t in policy.tiers[2:]] == [
        ("judge", False, ("tier0",)),
        ("early", False, ()),
    ]
    again = parse_policy(dump_policy(policy).encode())
    read = {node.tier for node in policy.nodes if isinstance(node, Read)}
    assert {"judge", "early"} <= read
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert decisions(again, log, at) == decisions(policy, log, at)
        assert vertex.cost == pytest.approx(log.mean(routes.cost), rel=1e-9)
        assert vertex.quality == pytest.approx(log.mean(routes.quality), abs=1e-9)
        for rows in vertex.beliefs.values():
            assert all(belief.quality[2:] == (None, None) for belief in rows)


def test_vertices_rise_in_cost_and_share_one_table(policy: Policy) -> None:
    costs = [vertex.cost for vertex in policy.vertices]
    assert costs == sorted(set(costs))
    assert len(policy.nodes) < sum(len(keep_vertices(policy, [v]).nodes) for v in policy.vertices)


def test_the_salt_follows_from_the_graphs_alone(log: ReplayLog, policy: Policy) -> None:
    assert exported(log).salt == policy.salt
    assert exported(log.take(np.arange(200))).salt != policy.salt


def test_a_policy_survives_its_file(log: ReplayLog, policy: Policy) -> None:
    again = parse_policy(dump_policy(policy).encode())
    for vertex in range(len(policy.vertices)):
        assert decisions(again, log, vertex) == decisions(policy, log, vertex)


def test_the_vertices_that_are_kept_decide_as_before(log: ReplayLog, policy: Policy) -> None:
    kept = [1, 3, len(policy.vertices) - 1]
    smaller = keep_vertices(policy, [policy.vertices[at] for at in kept])
    assert len(smaller.nodes) < len(policy.nodes)
    for place, at in enumerate(kept):
        assert decisions(smaller, log, place) == decisions(policy, log, at)
        assert smaller.vertices[place].cost == policy.vertices[at].cost
        for node, beliefs in smaller.vertices[place].beliefs.items():
            assert len(beliefs) == len(smaller.nodes[node].then) + 1
            assert beliefs in policy.vertices[at].beliefs.values()


def test_thinning_keeps_the_ends_and_what_is_protected_and_stops_once_it_fits(log: ReplayLog, policy: Policy) -> None:
    size = len(dump_policy(policy).encode())
    protected = [policy.vertices[at].cost for at in (2, 3)]
    thinned = thin(policy, protected, target=size // 2)
    costs = [vertex.cost for vertex in thinned.vertices]
    assert len(dump_policy(thinned).encode()) <= size // 2
    assert {policy.vertices[0].cost, policy.vertices[-1].cost, *protected} <= set(costs)
    places = {vertex.cost: at for at, vertex in enumerate(policy.vertices)}
    for at, cost in enumerate(costs):
        assert decisions(thinned, log, at) == decisions(policy, log, places[cost])
    assert thin(policy, protected, target=size) is policy


def test_thinning_further_than_can_be_leaves_the_ends_and_what_is_protected(policy: Policy) -> None:
    protected = [policy.vertices[2].cost]
    costs = [vertex.cost for vertex in thin(policy, protected, target=1).vertices]
    assert costs == [policy.vertices[0].cost, *protected, policy.vertices[-1].cost]


def test_thinning_drops_first_what_is_missed_least(policy: Policy) -> None:
    vertices = policy.vertices
    one_less = thin(policy, (), target=len(dump_policy(policy).encode()) - 1)
    if len(one_less.vertices) == len(vertices) - 1:
        (gone,) = {v.cost for v in vertices} - {v.cost for v in one_less.vertices}
        losses = {}
        for before, v, after in zip(vertices, vertices[1:], vertices[2:], strict=False):
            line = np.interp(v.cost, [before.cost, after.cost], [before.quality, after.quality])
            losses[v.cost] = v.quality - line
        assert losses[gone] == pytest.approx(min(losses.values()), abs=1e-15)


def test_slack_makes_the_policy_smaller_and_says_what_it_now_earns(log: ReplayLog, policy: Policy) -> None:
    small = exported(log, slack=0.02)
    assert len(small.nodes) < len(policy.nodes)
    for at, vertex in enumerate(small.vertices):
        routes = route(small, log, at)
        assert vertex.cost == pytest.approx(log.mean(routes.cost), rel=1e-9)
        assert vertex.quality == pytest.approx(log.mean(routes.quality), abs=1e-9)
    costs = [vertex.cost for vertex in small.vertices]
    assert costs == sorted(set(costs))


# ---------------------------------------------------------------------------------------------------------- beliefs

COUNTED = TableLearner(Counts(), bins=4, kappa=0.0, slack=0.0, gap=1e-5)


def test_beliefs_put_in_afterwards_are_those_of_a_policy_made_with_them(log: ReplayLog) -> None:
    lattice = COUNTED.study(log).lattice
    frontier = trace_frontier(lattice, gap=1e-5)
    bare = policy_of(lattice, frontier, log)
    full = policy_of(lattice, frontier, log, believe=range(len(frontier.plans)))
    assert with_beliefs(bare, lattice, range(len(bare.vertices))) == full
    some = with_beliefs(bare, lattice, [1])
    assert some.vertices[1] == full.vertices[1] != bare.vertices[1]
    assert some.vertices[2:] == bare.vertices[2:]


@pytest.mark.parametrize("contexts", [0, 2])
def test_beliefs_of_chains_are_sums_over_the_rows_that_come_there(contexts: int) -> None:
    """On a table of counts: shares and qualities by the rows, worth by the best answer in each bin."""
    log = random_log(300, 6, readings=("free", ""), contexts=contexts, weighted=True, missing=0.3)
    learner = replace(COUNTED, policies="chain")
    near = log.mean(log.tiers[0].cost) + 0.5 * log.mean(log.tiers[1].cost)
    policy = learner.policy(log, near=near)
    (rung,) = learner.study(log).ladders[0].rungs
    codes = rung.code(log.tier("tier0").readings[0].confidence)
    believing = [vertex for vertex in policy.vertices if vertex.beliefs]
    assert len(believing) >= len(policy.vertices) - 2  # the ends may read nothing
    for vertex in believing:
        came: dict[int, dict[int, list[int]]] = {}  # a read node, a branch: rows
        for row in range(len(log)):
            root = vertex.root if log.contexts is None else vertex.context_roots[log.contexts[row]]
            for node, branch in walk_row(log, policy.nodes, root, row)[2]:
                came.setdefault(node, {}).setdefault(branch, []).append(row)
        assert set(came) <= set(vertex.beliefs)
        for node, branches in came.items():
            read = policy.nodes[node]
            assert isinstance(read, Read)
            assert len(vertex.beliefs[node]) == len(read.then) + 1
            for branch, rows in branches.items():
                near_to(vertex.beliefs[node][branch], expected(log, np.array(rows), codes, vertex.price))


def expected(log: ReplayLog, rows: np.ndarray, codes: np.ndarray, price: float) -> Belief:
    """What is known of these rows, when each bin and context is free to take the better answer."""
    weights, (small, large) = log.weights[rows], log.tiers
    quality = tuple(float(weights @ tier.correct[rows] / weights.sum()) for tier in (small, large))
    labels = np.zeros(len(rows)) if log.contexts is None else np.unique(log.contexts[rows], return_inverse=True)[1]
    best = 0.0
    for cell in np.unique(np.column_stack([codes[rows], labels]), axis=0):
        here = rows[(codes[rows] == cell[0]) & (labels == cell[1])]
        best += max(float(log.weights[here] @ tier.correct[here]) for tier in (small, large))
    going = (best - price * float(weights @ large.cost[rows])) / weights.sum()
    return Belief(float(weights.sum() / log.weights.sum()), quality, (None, float(going)))


def near_to(found: Belief, wanted: Belief) -> None:
    """Equal to the three decimals that a file has."""
    half = 5e-4 + 1e-6
    assert found.share == pytest.approx(wanted.share, abs=half)
    assert found.quality == pytest.approx(wanted.quality, abs=half)
    assert found.worth[0] is None
    assert found.worth[1] == pytest.approx(wanted.worth[1], abs=half)


def test_beliefs_of_a_chain_that_pays_for_its_reading_count_the_price_of_what_is_to_come() -> None:
    """Three tiers, the first reading of the second one bought: its node follows the call, not comes with it."""
    log = random_log(200, 7, readings=("free", "paid", ""), missing=0.0)
    learner = replace(COUNTED, policies="chain", bins=3)
    bare = learner.policy(log)
    policy = learner.policy(log, near=float(np.mean([vertex.cost for vertex in bare.vertices])))
    assert [replace(vertex, beliefs={}) for vertex in policy.vertices] == list(bare.vertices)
    for vertex in policy.vertices:
        for node, rows in vertex.beliefs.items():
            read = policy.nodes[node]
            assert isinstance(read, Read)
            assert Ask(read.tier, node) in policy.nodes
            came = [
                [row for row in range(200) if (node, branch) in walk_row(log, policy.nodes, vertex.root, row)[2]]
                for branch in range(len(rows))
            ]
            for belief, here in zip(rows, came, strict=True):
                assert belief.share == pytest.approx(len(here) / 200, abs=5.1e-4)
                if here:
                    right = [float(tier.correct[here].mean()) for tier in log.tiers]
                    assert belief.quality == pytest.approx(tuple(right), abs=5.1e-4)
