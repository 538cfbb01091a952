"""Deciding is a pure function, contexts choose graphs, a key chooses between two, and the dial keeps the budget."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept, Call, Verify
from metaverify.policies.context import context_label
from metaverify.policies.graph import Ask, GraphError, Node, Read, Stop
from metaverify.policies.policy import Belief, BudgetError, OperatingPoint, Outage, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier

from .plain import plain_action
from .strategies import confidences, examples, policies, told

TIERS = (
    Tier("small", 1.0, (Reading("conf", 0.0, (0.5,), (5, 4, 1)),)),
    Tier("medium", 4.0, (Reading("conf", 0.0, (0.5,), (5, 4, 1)),)),
    Tier("large", 16.0),
)
NODES: tuple[Node, ...] = (
    Ask("small", 6),
    Ask("small", 3),
    Ask("large", 7),
    Read("small", "conf", (0.5,), (4, 6), 4),
    Ask("medium", 5),
    Stop(Accept("medium")),
    Stop(Accept("small")),
    Stop(Accept("large")),
)
VERTICES = (
    Vertex(0.5, 1.0, 0.5, 0, {"code": 0, "prose": 0}),
    Vertex(0.1, 3.0, 0.75, 1, {"code": 2, "prose": 1}),
    Vertex(0.01, 16.0, 0.9, 2, {"code": 2, "prose": 1}),
)
KEYS = 100_000


def at_point(low: int, high: int, share: float) -> Policy:
    return Policy(TIERS, NODES, VERTICES, OperatingPoint(low, high, share), salt="s", context=("task",))


def test_a_vertex_that_is_moved_takes_all_that_it_knows_along() -> None:
    beliefs = (Belief(1.0, (0.5,), (None,)),)
    vertex = Vertex(0.5, 1.0, 0.5, 0, {"code": 1}, {0: beliefs, 1: ()}, outages=(Outage(("small",), 1, {"code": 0}),))
    moved = vertex.moved({0: 7, 1: 3})
    assert (moved.root, moved.context_roots, moved.beliefs) == (7, {"code": 3}, {7: beliefs, 3: ()})
    assert moved.outages == (Outage(("small",), 3, {"code": 7}),)


# --------------------------------------------------------------------------------------------------- deciding


@examples(150)
@given(data=st.data())
def test_deciding_is_the_plain_loop_from_the_arm_s_root_and_changes_nothing(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    readings = data.draw(told(policy.tiers, confidences(policy.nodes)))
    key = data.draw(st.text() | st.integers() | st.binary())
    context = data.draw(st.none() | st.sampled_from(["?", *policy.vertices[0].context_roots]))
    before = copy.deepcopy((readings, policy))
    vertex = policy.vertices[policy.arm(key)]
    first = {tier.name: tier.readings[0].name for tier in policy.tiers if tier.readings}
    root = vertex.root if context is None else vertex.context_roots.get(context, vertex.root)
    votes = {(tier.name, r.name): r.votes for tier in policy.tiers for r in tier.readings if r.votes}
    expected = plain_action(policy.nodes, root, first, readings, votes)
    for told_ in (readings, dict(reversed(readings.items()))):
        assert policy.decide(told_, context=context, key=key) == expected
    assert repr((readings, policy)) == repr(before)


def test_the_order_of_readings_does_not_matter() -> None:
    policy = at_point(1, 1, 0.0)
    readings: dict[str, Any] = {"small": 0.2, "medium": {"conf": 0.3}, "large": {}}
    assert {policy.decide(dict(order)) for order in itertools.permutations(readings.items())} == {Accept("medium")}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("smal", "did you mean 'small'"), ("mediun", "did you mean 'medium'"), ("xyz", "large, medium, small")],
)
def test_readings_of_an_unknown_tier_are_refused_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}'.*{hint}"):
        at_point(0, 0, 0.0).decide({name: 0.5, "small": 0.5})


def test_a_context_takes_its_own_graph_and_an_unknown_one_the_pooled_graph() -> None:
    policy = at_point(1, 1, 0.0)
    assert policy.decide({}, context="code") == Call("large")
    for context in ("prose", "verse", "", None):
        assert policy.decide({}, context=context) == Call("small")


def test_a_context_may_be_given_by_the_names_of_its_columns() -> None:
    nodes = (Ask("small", 2), Ask("large", 3), Stop(Accept("small")), Stop(Accept("large")))
    vertex = Vertex(0.0, 1.0, 0.5, 0, {context_label(["a/b", "c"]): 1})
    policy = Policy(
        (Tier("small", 1.0), Tier("large", 5.0)), nodes, (vertex,), OperatingPoint(0, 0, 0.0), context=("x", "y")
    )
    assert policy.decide({}, context={"y": "c", "x": "a/b", "z": "ignored"}) == Call("large")
    assert policy.decide({}, context={"x": "a", "y": "b/c"}) == Call("small")
    with pytest.raises(ValueError, match="neither a label nor the values of x, y"):
        policy.decide({}, context={"x": "a"})


@given(
    st.lists(st.text("ab/\\", max_size=4), min_size=2, max_size=3),
    st.lists(st.text("ab/\\", max_size=4), min_size=2, max_size=3),
)
def test_no_two_contexts_of_several_columns_have_one_label(first: list[str], second: list[str]) -> None:
    if len(first) == len(second):
        assert (context_label(first) == context_label(second)) == (first == second)


def test_one_request_has_one_context_at_every_step() -> None:
    policy = at_point(1, 1, 0.0)
    assert policy.decide({"large": {}}, context="code") == Accept("large")
    assert policy.decide({"large": {}}) == Call("small")


def test_a_policy_can_be_copied_and_sent_to_another_process() -> None:
    policy = at_point(0, 1, 0.5)
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert other == policy
        assert [other.decide({"small": 0.2}, key=k) for k in range(50)] == [
            policy.decide({"small": 0.2}, key=k) for k in range(50)
        ]


def test_a_policy_may_abstain() -> None:
    policy = Policy(TIERS, (Stop(Abstain()),), (Vertex(0.0, 0.0, 0.5, 0),), OperatingPoint(0, 0, 0.0), abstain=0.5)
    assert policy.decide({}) == Abstain()


# ---------------------------------------------------------------------------------------------------- mixing


def test_a_mixture_needs_a_key() -> None:
    with pytest.raises(ValueError, match="key="):
        at_point(0, 1, 0.5).decide({})
    with pytest.raises(ValueError, match="key="):
        at_point(0, 1, 0.5).arm(None)
    assert at_point(0, 0, 0.0).decide({}) == Call("small")
    assert at_point(0, 1, 0.0).decide({}) == Call("small")


def test_the_share_of_keys_that_takes_the_dearer_graph_is_the_point_s_share() -> None:
    for share in (0.003, 0.25, 0.9):
        policy = at_point(0, 1, share)
        taken = sum(policy.arm(f"request-{i}") for i in range(KEYS)) / KEYS
        assert abs(taken - share) < 4 * math.sqrt(share * (1 - share) / KEYS)


def test_a_request_takes_one_graph_at_every_step() -> None:
    policy = at_point(0, 2, 0.5)
    for key in range(200):
        dear = policy.arm(key) == 2
        assert policy.decide({}, key=key) == (Call("large") if dear else Call("small"))
        assert policy.decide({"small": 0.1}, key=key) == (Call("large") if dear else Accept("small"))
        assert policy.decide({"small": 0.1, "large": {}}, key=key) == Accept("large" if dear else "small")


def test_keys_of_any_kind_are_drawn_by_their_text() -> None:
    policy = at_point(0, 1, 0.5)
    for number in range(300):
        assert policy.arm(number) == policy.arm(str(number)) == policy.arm(str(number).encode())
    keys = ["", "é", "\U0001f600", b"", b"\xff\x00", -1, 0, 2**80]
    assert [policy.arm(key) for key in keys] == [policy.arm(key) for key in keys]


def test_the_draw_is_the_same_in_every_process() -> None:
    script = (
        "from metaverify.policies.file import parse_policy; import sys;"
        "policy = parse_policy(sys.stdin.buffer.read());"
        "print(*[policy.arm(f'r{i}') for i in range(200)])"
    )
    from metaverify.policies.file import dump_policy

    policy = at_point(0, 1, 0.5)
    text = dump_policy(policy).encode()
    for seed in ("0", "1"):
        ran = subprocess.run(
            [sys.executable, "-c", script], input=text, capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert [int(arm) for arm in ran.stdout.split()] == [policy.arm(f"r{i}") for i in range(200)]


def test_another_salt_draws_other_keys() -> None:
    policy = at_point(0, 1, 0.5)
    other = replace(policy, salt="t")
    agreeing = sum(policy.arm(i) == other.arm(i) for i in range(10_000))
    assert abs(agreeing - 5_000) < 4 * math.sqrt(2_500)


def test_raising_the_share_never_moves_a_request_to_the_cheaper_graph() -> None:
    policy = at_point(0, 0, 0.0)
    for low, high in itertools.pairwise(VERTICES):
        budgets = [low.cost + (high.cost - low.cost) * step / 20 for step in range(20)]
        for key in range(500):
            costs = [policy.vertices[policy.at(budget=budget).arm(key)].cost for budget in budgets]
            assert costs == sorted(costs)


def test_a_whole_share_takes_the_dearer_graph_for_every_key() -> None:
    assert {at_point(0, 1, 1.0).arm(key) for key in range(1000)} == {1}


# -------------------------------------------------------------------------------------------------- the dial


def test_a_budget_below_the_cheapest_policy_is_refused_with_its_cost() -> None:
    for budget in (0.999, 0.0, -1.0, math.nan, -math.inf):
        with pytest.raises(BudgetError, match=r"below 1, the cost of the cheapest"):
            at_point(0, 0, 0.0).at(budget=budget)


@pytest.mark.parametrize("budget", [16.0, 16.5, 1e9])
def test_a_budget_above_the_best_policy_buys_the_best_policy(budget: float) -> None:
    policy = at_point(0, 0, 0.0).at(budget=budget)
    assert policy.point == OperatingPoint(2, 2, 0.0, budget)
    assert policy.expected_cost == 16.0
    assert policy.expected_quality == 0.9


@pytest.mark.parametrize("vertex", range(3))
def test_a_budget_that_is_a_vertex_s_cost_buys_that_vertex_and_needs_no_key(vertex: int) -> None:
    policy = at_point(0, 0, 0.0).at(budget=VERTICES[vertex].cost)
    assert policy.expected_cost == VERTICES[vertex].cost
    assert policy.expected_quality == VERTICES[vertex].quality
    assert policy.decide({}) == replace(policy, point=OperatingPoint(vertex, vertex, 0.0)).decide({})


def test_a_budget_that_is_the_cheapest_cost_but_for_rounding_is_kept() -> None:
    assert at_point(2, 2, 0.0).at(budget=1.0 - 1e-12).point.low == 0


@given(st.floats(1.0, 16.0))
@examples(100)
def test_a_budget_between_is_spent_to_the_cent_along_the_chord(budget: float) -> None:
    policy = at_point(0, 0, 0.0).at(budget=budget)
    assert policy.expected_cost == pytest.approx(budget, rel=1e-12)
    low, high = (VERTICES[0], VERTICES[1]) if budget < 3 else (VERTICES[1], VERTICES[2])
    slope = (high.quality - low.quality) / (high.cost - low.cost)
    assert policy.expected_quality == pytest.approx(low.quality + slope * (budget - low.cost), rel=1e-12)


@pytest.mark.parametrize(
    ("price", "vertex"),
    [
        (10.0, 0),
        (0.126, 0),
        (0.125, 0),  # 0.25 of quality for 2 of cost: equal, so the cheaper one
        (0.124, 1),
        (0.15 / 13 + 1e-9, 1),
        (0.15 / 13 - 1e-9, 2),
        (0.0, 2),
        (1e300, 0),
    ],
)
def test_a_price_buys_the_vertex_with_the_most_quality_net_of_cost(price: float, vertex: int) -> None:
    assert at_point(1, 1, 0.0).at(price=price).point == OperatingPoint(vertex, vertex, 0.0, price=price)


@pytest.mark.parametrize("price", [-1e-9, -math.inf, math.inf, math.nan])
def test_a_price_that_is_negative_or_not_finite_is_refused(price: float) -> None:
    with pytest.raises(BudgetError, match="price"):
        at_point(0, 0, 0.0).at(price=price)


@pytest.mark.parametrize("none", ["3", b"3", True, False, [3.0], 1j])
def test_a_budget_or_a_price_that_is_no_number_is_refused(none: Any) -> None:
    for dial in ("budget", "price"):
        with pytest.raises(TypeError, match=rf"^the {dial} is {re.escape(repr(none))}, not a number$"):
            at_point(0, 0, 0.0).at(**{dial: none})


def test_a_budget_may_be_any_number() -> None:
    policy = at_point(0, 0, 0.0)
    assert policy.at(budget=Decimal("1.5")).point == policy.at(budget=1.5).point  # type: ignore[arg-type]
    assert policy.at(budget=10**400).point == policy.at(budget=math.inf).point
    for least in (-(10**400), -math.inf):
        with pytest.raises(BudgetError):
            policy.at(budget=least)


def test_the_dial_wants_a_budget_or_a_price_and_not_both() -> None:
    for wrong in ({}, {"budget": 2.0, "price": 0.1}):
        with pytest.raises(TypeError, match="a budget or a price"):
            at_point(0, 0, 0.0).at(**wrong)


def test_turning_the_dial_changes_nothing_but_the_operating_point() -> None:
    policy = at_point(0, 0, 0.0)
    turned = policy.at(budget=2.0)
    assert policy.point == OperatingPoint(0, 0, 0.0)
    assert replace(turned, point=policy.point) == policy


def test_one_vertex_is_a_frontier_too() -> None:
    nodes = (Ask("large", 1), Stop(Accept("large")))
    policy = Policy(TIERS, nodes, (Vertex(0.0, 16.0, 0.9, 0),), OperatingPoint(0, 0, 0.0))
    assert policy.at(budget=100.0).expected_cost == policy.at(budget=16.0).expected_cost == 16.0


# -------------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    "point",
    [
        OperatingPoint(0, 3, 0.5),
        OperatingPoint(-1, 0, 0.5),
        OperatingPoint(1, 0, 0.5),
        OperatingPoint(0, 1, -0.1),
        OperatingPoint(0, 1, 1.1),
        OperatingPoint(0, 1, math.nan),
    ],
)
def test_an_operating_point_off_the_frontier_is_refused(point: OperatingPoint) -> None:
    with pytest.raises(ValueError, match="operating point"):
        Policy(TIERS, NODES, VERTICES, point)


def test_a_frontier_without_vertices_is_refused() -> None:
    with pytest.raises(ValueError, match="0 vertices"):
        Policy(TIERS, (), (), OperatingPoint(0, 0, 0.0))


def test_a_context_s_root_is_checked_like_any_other() -> None:
    vertex = Vertex(0.0, 1.0, 0.5, 0, {"code": 1})
    with pytest.raises(GraphError, match=r"nodes\[1\]"):
        Policy(TIERS, (Ask("small", 1), Stop(Accept("small"))), (vertex,), OperatingPoint(0, 0, 0.0))


def test_a_verify_names_the_reading_to_buy() -> None:
    assert at_point(1, 1, 0.0).decide({"small": {}}) == Verify("small", "conf")


POINT = "OperatingPoint(low=0, high=3, share=0.5, budget=None, price=None)"
REFUSALS: list[tuple[Callable[[Policy], object], type[Exception], str]] = [
    (
        lambda p: p.decide({"smal": 0.5, "small": 0.5}),
        ValueError,
        "readings of 'smal', which is not one of the tiers large, medium, small; did you mean 'small'?",
    ),
    (
        lambda p: p.decide({7: 0.5, "a": 0.5}),
        ValueError,
        "readings of '7', which is not one of the tiers large, medium, small",
    ),
    (
        lambda p: p.decide({}, context=3),  # type: ignore[arg-type]
        ValueError,
        "context 3 is neither a label nor the values of task by name",
    ),
    (
        lambda p: p.decide({}, context={"tsk": "code"}),
        ValueError,
        "context {'tsk': 'code'} is neither a label nor the values of task by name: 'task' is missing",
    ),
    (
        lambda p: replace(p, context=()).decide({}, context=["code"]),  # type: ignore[arg-type]
        ValueError,
        "context ['code'] is neither a label nor the values of no context by name",
    ),
    (
        lambda p: replace(p, context=("task", "tenant")).decide({}, context={"task": 1}),
        ValueError,
        "context {'task': 1} is neither a label nor the values of task, tenant by name: 'tenant' is missing",
    ),
    (
        lambda p: replace(p, point=OperatingPoint(0, 1, 0.5)).decide({}),
        ValueError,
        "this policy mixes two decision graphs to meet its budget: pass key=<the request's id>",
    ),
    (lambda p: p.at(), TypeError, "give a budget or a price"),
    (lambda p: p.at(budget=0.5), BudgetError, "E_BUDGET: budget 0.5 is below 1, the cost of the cheapest policy"),
    (lambda p: p.at(budget=math.nan), BudgetError, "E_BUDGET: budget nan is below 1, the cost of the cheapest policy"),
    (lambda p: p.at(price=-1.0), BudgetError, "E_BUDGET: price -1 is not a finite number of at least 0"),
    (
        lambda p: replace(p, point=OperatingPoint(0, 3, 0.5)),
        ValueError,
        f"operating point {POINT} is not one of a frontier with 3 vertices",
    ),
]


@pytest.mark.parametrize(("work", "error", "words"), REFUSALS, ids=[words[:40] for _, _, words in REFUSALS])
def test_a_wrong_call_is_refused_in_these_words(
    work: Callable[[Policy], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        work(at_point(0, 0, 0.0))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("budget", "point"),
    [
        (1.0 * (1 - 1e-9), OperatingPoint(0, 0, 0.0, 1.0 * (1 - 1e-9))),
        (1.0, OperatingPoint(0, 1, 0.0, 1.0)),
        (2.5, OperatingPoint(0, 1, 0.75, 2.5)),
        (3.0, OperatingPoint(1, 2, 0.0, 3.0)),
        (9.5, OperatingPoint(1, 2, 0.5, 9.5)),
        (16.0, OperatingPoint(2, 2, 0.0, 16.0)),
        (17.0, OperatingPoint(2, 2, 0.0, 17.0)),
        (math.inf, OperatingPoint(2, 2, 0.0, None)),
    ],
)
def test_the_dial_stands_where_it_can_be_reckoned_by_hand(budget: float, point: OperatingPoint) -> None:
    assert at_point(0, 0, 0.0).at(budget=budget).point == point


def test_a_share_of_nothing_or_everything_draws_nothing_and_needs_no_key() -> None:
    for share, arm in ((0.0, 0), (1.0, 1)):
        policy = at_point(0, 1, share)
        assert policy.arm(None) == policy.arm("any") == arm
        assert policy.decide({}) == at_point(arm, arm, 0.0).decide({})
        assert policy.expected_cost == VERTICES[arm].cost


def drawn(salt: bytes, key: int) -> int:
    """A request's draw, of 2**56."""
    return int(blake2b(str(key).encode(), digest_size=7, key=salt).hexdigest(), 16)


def test_a_draw_that_is_the_share_to_the_last_digit_takes_the_cheaper_graph() -> None:
    key = next(key for key in range(100) if drawn(b"s", key) % 8 == 0)  # a share has 53 digits
    for share, arm in ((drawn(b"s", key) / 2**56, 0), (math.nextafter(drawn(b"s", key) / 2**56, 1.0), 1)):
        assert at_point(0, 1, share).arm(key) == arm


def test_a_share_of_all_takes_the_dearer_graph_and_needs_no_key() -> None:
    assert at_point(0, 2, 1.0).decide({}) == Call("large")
    assert at_point(0, 2, 0.0).decide({}) == Call("small")


def test_a_salt_may_be_any_text() -> None:
    policy = replace(at_point(0, 1, 0.5), salt="\ud800")
    bits = [policy.arm(key) == (drawn(b"\xed\xa0\x80", key) < 2**55) for key in range(50)]
    assert bits == [True] * 50
