"""A decision log says again what the log said whose queries were routed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.policies.actions import Accept
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.graph import Ask, Poll, Read, Stop, Tally
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.decisions import read_decisions
from metaverify.simulators.log import LogError
from metaverify.simulators.reader import read_log
from tests.strategies import random_log


def both() -> Policy:
    """Calls both tiers and buys the second reading of the first, whatever they say."""
    readings = Reading("free", 0.0, (0.5,), (1, 1, 0)), Reading("paid", 0.25, (0.5,), (1, 1, 0))
    nodes = (Ask("tier0", 1), Read("tier0", "paid", (), (2,), 2), Ask("tier1", 3), Stop(Accept("tier1")))
    tiers = Tier("tier0", 1.0, readings), Tier("tier1", 4.0)
    return Policy(tiers, nodes, (Vertex(0.0, 5.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))


def test_what_was_routed_can_be_read_as_the_log_that_it_was(tmp_path: Path) -> None:
    log = random_log(60, 3, readings=("free paid", ""), varying=True)
    free, paid = log.tiers[0].readings
    place = {query: row for row, query in enumerate(log.query_ids)}

    def call(tier: str, query: str) -> Reply:
        row, k = place[query], int(tier[-1])
        told = {"free": float(free.confidence[row])} if k == 0 else {}
        return Reply(query, told, float(log.tiers[k].cost[row]))

    def verify(tier: str, reading: str, query: str, _: object) -> Look:
        return Look(float(paid.confidence[place[query]]), float(paid.price[place[query]]))

    with DecisionLog(tmp_path / "decisions.jsonl") as written:
        router = Router(both(), call, verify, log=written)
        for query in log.query_ids:
            router.route(query, key=query)
    rows, skipped = read_decisions(tmp_path / "decisions.jsonl")
    assert skipped == 0
    assert set(rows["propensity"]) == {1.0}
    correct = pl.DataFrame(
        [(q, t.name, float(t.correct[row])) for t in log.tiers for q, row in place.items()],
        schema=["query_id", "tier", "correct"],
        orient="row",
    )
    rows.join(correct, on=["query_id", "tier"]).drop("context").write_parquet(tmp_path / "log.parquet")
    back = read_log(tmp_path / "log.parquet")
    order = [place[query] for query in back.query_ids]
    assert sorted(order) == list(range(60))
    for was, is_now in zip(log.tiers, back.tiers, strict=True):
        np.testing.assert_array_equal(was.correct[order], is_now.correct)
        np.testing.assert_array_equal(was.cost[order], is_now.cost)
        by_name = {reading.name: reading for reading in is_now.readings}
        for reading in was.readings:
            np.testing.assert_array_equal(reading.confidence[order], by_name[reading.name].confidence)
            np.testing.assert_array_equal(reading.price[order], by_name[reading.name].price)


def test_votes_become_their_share_and_failures_are_left_out(tmp_path: Path) -> None:
    poll = Poll("a", "votes", (Tally((), (None,)), Tally((), (None,)), Tally((), (2,))), 2)
    tiers = Tier("a", 1.0, (Reading("votes", 0.3, (0.5,), (1, 1, 0), votes=3),)), Tier("b", 2.0)
    nodes = (Ask("a", 1), poll, Ask("b", 3), Stop(Accept("b")))
    policy = Policy(tiers, nodes, (Vertex(0.0, 3.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))
    votes = iter([True, False, True])

    def call(tier: str, _: object) -> Reply:
        if tier == "b":
            raise Failure("down", 0.0)
        return Reply(tier)

    with DecisionLog(tmp_path / "log.jsonl") as log:
        Router(policy, call, lambda *_: Look(next(votes)), log=log).route("?", key="q", context="c")
    rows, _ = read_decisions(tmp_path / "log.jsonl")
    (row,) = rows.to_dicts()
    assert row.pop("confidence") == pytest.approx(2 / 3)
    assert row.pop("verify_cost") == pytest.approx(0.3)
    assert row == {
        "query_id": "q",
        "context": "c",
        "tier": "a",
        "reading": "votes",
        "cost": 1.0,
        "propensity": 1.0,
    }


def test_torn_lines_are_counted_and_the_last_request_of_a_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for confidence in (0.1, 0.9):
        with DecisionLog(path) as log:
            router = Router(both(), lambda t, _, c=confidence: Reply(t, {"free": c}), lambda *_: Look(None), log=log)
            router.route("?", key=1)
        with path.open("a") as file:
            file.write('{"key": 1, "st')
    rows, skipped = read_decisions(path)
    assert skipped == 2
    assert rows.filter(tier="tier0", reading="free")["confidence"].to_list() == [0.9]


STEP = {"key": "q", "step": 0, "action": "accept", "tier": "a", "reading": None, "confidence": {}, "cost": 0.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([1], "line 2: is no step of a decision log"),
        ({"key": "q"}, "line 2: is no step of a decision log"),
        (STEP | {"key": None, "propensity": 1.0, "reason": ""}, "line 2: the request has no key"),
    ],
)
def test_what_is_no_decision_is_refused_by_line(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(STEP | {"propensity": 1.0, "reason": ""}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(LogError, match=message):
        read_decisions(path)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"none.jsonl: cannot be read"):
        read_decisions(tmp_path / "none.jsonl")
