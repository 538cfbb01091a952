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


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (3,), (1, 2), (0, 3)])
@pytest.mark.parametrize("before", [False, True])
def test_a_request_of_which_a_line_is_lost_is_left_out_and_its_other_lines_are_counted(
    tmp_path: Path, lost: tuple[int, ...], before: bool
) -> None:
    path = tmp_path / "log.jsonl"
    with DecisionLog(path) as log:
        for confidence in (0.1, 0.9):
            router = Router(both(), lambda t, _, c=confidence: Reply(t, {"free": c}), lambda *_: Look(None), log=log)
            router.route("?", key="q")
        router.route("?", key="other")
    lines = path.read_text().splitlines()
    first, second, other = lines[:4], lines[4:8], lines[8:]
    damaged = [told for at, told in enumerate(second) if at not in lost]
    path.write_text("\n".join([*(first if before else []), *damaged, *other]))
    rows, skipped = read_decisions(path)
    assert skipped == 4 - len(lost)
    free = rows.filter(tier="tier0", reading="free")
    assert dict(free.select("query_id", "confidence").iter_rows()) == {"other": 0.9} | ({"q": 0.1} if before else {})


def test_whatever_the_writer_takes_the_reader_takes(tmp_path: Path) -> None:
    """One request that cannot be read back would make the whole file unreadable: such a one is not written."""
    path = tmp_path / "log.jsonl"
    texts = ("a", "\ud800", "\udfff", "\U0001f600", "\\ud800", "\u202e", "\x00", "")
    costs = (0.0, 1.0, 1e-100, 9e-101, 5e-324, 1e-300, 1e100, 2e100, 1e300)
    half = texts[1:3]
    with DecisionLog(path) as log:
        for at, text in enumerate(texts):
            reply = Reply("a", {"free": 0.5, text: 0.5})
            router = Router(both(), lambda t, _, r=reply: r, lambda *_: Look(0.5), log=log)
            router.route("?", key=f"reading {at}")
            router = Router(both(), lambda t, _: Reply("a"), lambda *_: Look(0.5), log=log)
            router.route("?", key=f"context {at}", context=text)
            router.route("?", key=f"key {at} {text}")
        for cost in costs:
            router = Router(both(), lambda t, _, c=cost: Reply("a", {}, c), lambda *_: Look(0.5), log=log)
            router.route("?", key=f"cost {cost}")
    rows, skipped = read_decisions(path)
    assert skipped == 0
    assert log.drops["no line"] == log.dropped == 3 * len(half) + 3  # two costs were no amounts
    wanted = {f"{what} {at}" for what in ("reading", "context") for at, text in enumerate(texts) if text not in half}
    wanted |= {f"key {at} {text}" for at, text in enumerate(texts) if text not in half}
    wanted |= {f"cost {cost}" for cost in costs if cost == 0.0 or cost >= 1e-100}
    assert set(rows["query_id"]) == wanted


STEP: dict[str, Any] = {
    **{"key": "q", "step": 0, "action": "call", "tier": "a", "reading": None, "confidence": {"conf": 0.5}},
    **{"cost": 1.0, "propensity": 1.0, "reason": "", "context": None},
}


def line(**changes: Any) -> str:
    return json.dumps({**STEP, **changes})


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("[1]", "E_SYNTAX: log.jsonl line 2: is no step of a decision log; give the file that DecisionLog wrote"),
        ('{"key": "q"}', "E_SYNTAX: log.jsonl line 2: is no step of a decision log; give the file that"),
        (line(key=None), "E_MISSING: log.jsonl line 2: the request has no key"),
        (line(key=["q"]), 'E_TYPE: log.jsonl line 2: key is ["q"], not text or a whole number; give'),
        (line(key=True), "E_TYPE: log.jsonl line 2: key is true, not text or a whole number; give"),
        (line(key=1.5), "E_TYPE: log.jsonl line 2: key is 1.5, not text or a whole number; give"),
        (line(key="\ud800"), 'E_ENCODING: log.jsonl line 2: key is "\\ud800", with half a letter'),
        (line(tier="a\udfff"), 'E_ENCODING: log.jsonl line 2: tier is "a\\udfff", with half a letter'),
        (line(confidence={"\ud800": 0.5}), 'E_ENCODING: log.jsonl line 2: confidence is "\\ud800", with half a'),
        (line(step="0"), 'E_TYPE: log.jsonl line 2: step is "0", not a whole number; give'),
        (line(step=True), "E_TYPE: log.jsonl line 2: step is true, not a whole number; give"),
        (line(step=-1), "E_RANGE: log.jsonl line 2: step is -1, below 0; the steps"),
        (line(action=7), "E_TYPE: log.jsonl line 2: action is 7, not text; give"),
        (line(action="buy"), 'E_SYNTAX: log.jsonl line 2: action is "buy", none of call, verify, accept, abstain'),
        (line(tier=None), "E_MISSING: log.jsonl line 2: tier is null, of a step that is to call; say which"),
        (line(tier=["a"]), 'E_TYPE: log.jsonl line 2: tier is ["a"], not text; give'),
        (line(action="verify"), "E_MISSING: log.jsonl line 2: reading is null, of a step that is to verify"),
        (line(confidence=None), "E_TYPE: log.jsonl line 2: confidence is null, not an object of readings; give"),
        (line(confidence=[0.5]), "E_TYPE: log.jsonl line 2: confidence is [0.5], not an object of readings; give"),
        (
            line(confidence={"conf": "a"}),
            "E_TYPE: log.jsonl line 2: confidence of 'conf' is \"a\", not a number; write",
        ),
        (
            line(confidence={"conf": True}),
            "E_TYPE: log.jsonl line 2: confidence of 'conf' is true, not a number; write",
        ),
        (
            line(confidence={"conf": 1.7}),
            "E_RANGE: log.jsonl line 2: confidence of 'conf' is 1.7, outside [0, 1]; write",
        ),
        (line(confidence={"conf": [0]}), "E_RANGE: log.jsonl line 2: confidence of 'conf' is [0], no votes; write"),
        (line(confidence={"conf": [5, 3]}), "E_RANGE: log.jsonl line 2: confidence of 'conf' is [5, 3], no votes"),
        (line(confidence={"conf": [0.5, 1]}), "E_RANGE: log.jsonl line 2: confidence of 'conf' is [0.5, 1], no votes"),
        (line(confidence={"conf": [-1, 1]}), "E_RANGE: log.jsonl line 2: confidence of 'conf' is [-1, 1], no votes"),
        (line(cost="free"), 'E_TYPE: log.jsonl line 2: cost is "free", not a number; give'),
        (line(cost=None), "E_TYPE: log.jsonl line 2: cost is null, not a number; give"),
        (line(cost=-5), "E_RANGE: log.jsonl line 2: cost is -5, no cost; write what was paid"),
        (line(cost=10**400), "E_RANGE: log.jsonl line 2: cost is 1000"),
        (line(cost=1e-300), "E_RANGE: log.jsonl line 2: cost is 1e-300, no cost"),
        (line(cost=1).replace("1,", "1e999,"), "E_RANGE: log.jsonl line 2: cost is Infinity, no cost"),
        (line(propensity="1"), 'E_TYPE: log.jsonl line 2: propensity is "1", not a number or null; give'),
        (line(propensity=5), "E_RANGE: log.jsonl line 2: propensity is 5, outside [0, 1]; write a chance, or null"),
        (line(reason=None), "E_TYPE: log.jsonl line 2: reason is null, not text; give"),
        (line(context=["c"]), 'E_TYPE: log.jsonl line 2: context is ["c"], not text or null; give'),
        (line(unseen=[]), "E_TYPE: log.jsonl line 2: unseen is [], not an object of chances; give"),
        (line(unseen={"b": 2}), "E_RANGE: log.jsonl line 2: unseen of 'b' is 2, outside [0, 1]"),
        (line(unseen={"b": None}), "E_TYPE: log.jsonl line 2: unseen of 'b' is null, not a number"),
        (line(cost=float("nan")), "E_SYNTAX: log.jsonl line 2: NaN is no JSON number"),
        (line()[:-1] + ', "cost": 2}', "E_SYNTAX: log.jsonl line 2: 'cost' stands twice in one object; keep one; give"),
        (
            line(x="@").replace('"@"', "[" * 100_000 + "]" * 100_000),
            "E_SYNTAX: log.jsonl line 2: it is nested too deep",
        ),
        (line(x="@").replace('"@"', "9" * 5000), "E_SYNTAX: log.jsonl line 2: Exceeds the limit"),
        (
            line(key=7) + "\n" + line(key="7"),
            "E_DUPID: log.jsonl line 3: the key '7' is 7 in line 2, which is the same",
        ),
    ],
)
def test_what_is_no_decision_is_refused_by_line(tmp_path: Path, second: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{line()}\n{second}\n")
    with pytest.raises(LogError) as caught:
        read_decisions(path)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff\xfe", "E_ENCODING: log.jsonl is no UTF-8 text (byte 1 is 0xff); give the file that DecisionLog wrote"),
        (line().encode("utf-16"), "E_ENCODING: log.jsonl is no UTF-8 text (byte 1 is 0xff)"),
        (b"query_id,tier\nq,a\n", "E_SYNTAX: log.jsonl has no line that is JSON; give the file that"),
        (b"\0" * 64, "E_SYNTAX: log.jsonl has no line that is JSON; give the file that"),
    ],
)
def test_a_file_without_a_whole_line_is_no_decision_log(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "log.jsonl").write_bytes(raw)
    with pytest.raises(LogError) as caught:
        read_decisions(tmp_path / "log.jsonl")
    assert str(caught.value).startswith(message)


def test_every_value_that_a_step_may_have_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    steps = [
        line(key="\u00fc", confidence={"conf": None, "votes": [2, 3], "other": 1, "least": 0.0}, cost=0),
        line(key="\u00fc", step=1, action="verify", reading="paid", confidence={"paid": None}, propensity=None),
        line(key="\u00fc", step=2, action="abstain", tier=None, confidence={}, cost=0, unseen={"b": 0.25}, context="c"),
        line(key=17, confidence={}, propensity=0.5),
        line(key=17, step=1, action="accept", confidence={}, cost=0, propensity=0.5),
    ]
    path.write_bytes(("\n".join([*steps, "", '{"key": 17, "st', "\x00\x00"])).encode() + b"\xff")
    rows, skipped = read_decisions(path)
    assert skipped == 2
    assert rows.drop("query_id", "context").rows() == [
        ("a", "conf", None, 0.0, 0.0, 1.0),
        ("a", "votes", 2 / 3, 0.0, 0.0, 1.0),
        ("a", "other", 1.0, 0.0, 0.0, 1.0),
        ("a", "least", 0.0, 0.0, 0.0, 1.0),
        ("a", "paid", None, 0.0, 1.0, None),
        ("b", None, None, None, None, 0.25),
        ("a", None, None, 1.0, None, 0.5),
    ]
    assert rows["query_id"].unique().sort().to_list() == ["17", "\u00fc"]


def test_a_confidence_that_was_taken_for_missing_is_logged_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with DecisionLog(path) as log:
        for key, told in enumerate([1.7, -0.1, float("inf"), float("nan"), 1.0, 0.0]):
            Router(both(), lambda t, _, c=told: Reply(t, {"free": c}), lambda *_: Look(None), log=log).route(
                "?", key=key
            )
    rows, _ = read_decisions(path)
    assert rows.filter(tier="tier0", reading="free")["confidence"].to_list() == [None] * 4 + [1.0, 0.0]


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"none.jsonl: cannot be read"):
        read_decisions(tmp_path / "none.jsonl")
