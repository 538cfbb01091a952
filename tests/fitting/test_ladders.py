"""Outcomes of rungs, and the actions that climb them."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.fitting.ladders import Ladder, Rung, leaf_shape
from metaverify.policies.actions import Accept, Call, Verify
from metaverify.policies.graph import Read, Stop, compile_graph, walk
from metaverify.policies.tiers import Reading, Tier
from tests.strategies import confidences, repeatable

CUTS = (0.0, 0.25, 0.5, 1.0)
MISSING = len(CUTS) + 1


@pytest.mark.parametrize(
    ("confidence", "outcome"),
    [
        (0.0, 1),
        (-0.0, 1),
        (math.nextafter(0.0, 1.0), 1),
        (math.nextafter(0.25, 0.0), 1),
        (0.25, 2),
        (math.nextafter(0.25, 1.0), 2),
        (math.nextafter(0.5, 0.0), 2),
        (0.5, 3),
        (math.nextafter(1.0, 0.0), 3),
        (1.0, 4),
        (math.nextafter(1.0, 2.0), MISSING),
        (math.nextafter(0.0, -1.0), MISSING),
        (math.nan, MISSING),
        (math.inf, MISSING),
        (-math.inf, MISSING),
        (7.0, MISSING),
    ],
)
def test_a_confidence_falls_into_its_bin_or_is_missing(confidence: float, outcome: int) -> None:
    assert Rung("r", CUTS).code(np.array([confidence])).tolist() == [outcome]


def test_without_a_cut_everything_seen_is_one_outcome() -> None:
    assert Rung("r").code(np.array([0.0, 0.3, 1.0, math.nan])).tolist() == [0, 0, 0, 1]
    assert Rung("r").size == 2


def test_a_rung_that_reads_nothing_has_one_outcome() -> None:
    assert Rung(None).code(np.array([0.2, math.nan, 5.0])).tolist() == [0, 0, 0]
    assert Rung(None).size == 1


@repeatable(200)
@given(
    cuts=st.lists(confidences, max_size=5, unique=True).map(sorted),
    confidence=st.one_of(confidences, st.just(math.nan), st.floats(-1.0, 2.0)),
)
def test_the_outcome_is_the_branch_that_a_policy_takes(cuts: list[float], confidence: float) -> None:
    at = int(Rung("r", tuple(cuts)).code(np.array([confidence]))[0])
    assert at == (bisect_right(cuts, confidence) if 0 <= confidence <= 1 else len(cuts) + 1)
    stops = tuple(Stop(Accept(str(branch))) for branch in range(len(cuts) + 2))
    read = Read("a", "r", tuple(cuts), tuple(range(1, len(cuts) + 2)), len(cuts) + 2)
    assert walk(
        compile_graph((read, *stops), (Tier("a", 1.0, (Reading("r", 0.0, (), (0, 0)),)),))[0], {"a": confidence}
    ) == Accept(str(at))


def test_climbing_asks_for_the_call_first_and_then_for_each_reading() -> None:
    tier = Ladder("a", (Rung("free", (0.5,)), Rung("paid")))
    assert [tier.action(depth) for depth in range(2)] == [Call("a"), Verify("a", "paid")]
    bare = Ladder("a", (Rung(None), Rung("paid")))
    assert [bare.action(depth) for depth in range(2)] == [Call("a"), Verify("a", "paid")]
    judge = Ladder("judge", (Rung("verdict"), Rung("again")), answer=False, needs=("a",))
    assert [judge.action(depth) for depth in range(2)] == [Verify("judge", "verdict"), Verify("judge", "again")]


def test_a_table_has_an_axis_a_rung() -> None:
    ladders = (Ladder("a", (Rung("free", (0.5,)), Rung("paid", CUTS))), Ladder("b", (Rung(None),)))
    assert leaf_shape(ladders) == (3, 6, 1)
    assert ladders[0].sizes == (3, 6)
