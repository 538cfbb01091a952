"""The decision log has every request that it does not count as dropped, and makes none wait."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.decision_log import DecisionLog, decision_lines
from metaverify.policies.router import Failure, Look, Reply, Router

from .test_guards import LOW, MIDDLE, cascade


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def doubted(tier: str, _: object) -> Reply:
    return Reply(tier, {"conf": 0.1} if tier == "small" else {})


def test_each_step_is_a_line_with_all_that_was_known(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.jsonl", clock=lambda: 12.34567) as log:
        router = Router(cascade(0.25, LOW, MIDDLE), doubted, lambda *_: Look(math.nan, 0.125), log=log)
        key = next(key for key in range(99) if router.route("?", key=key).vertex == MIDDLE)
    mine = [line for line in lines(tmp_path / "log.jsonl") if line["key"] == key]
    shared = {"time": 12.346, "key": key, "policy": router._snapshot().id, "vertex": MIDDLE, "context": None}
    shared |= {"serial": 0}
    blank = {"reading": None, "confidence": {}, "cost": 0.0, "reason": "", "without": []}
    assert mine == [
        shared
        | blank
        | {"step": 0, "action": "call", "tier": "small", "confidence": {"conf": 0.1}, "cost": 1.0, "spent": 1.0}
        | {"propensity": 1.0},
        shared
        | blank
        | {"step": 1, "action": "verify", "tier": "small", "reading": "judge", "confidence": {"judge": None}}
        | {"cost": 0.125, "spent": 1.125, "propensity": 0.25},
        shared | blank | {"step": 2, "action": "accept", "tier": "small", "spent": 1.125, "propensity": 0.25},
    ]


@pytest.mark.parametrize(("key", "told"), [(b"\xff\x00", "ff00"), ("ü\n", "ü\n"), (2**70, 2**70), (None, None)])
def test_any_key_can_be_written(tmp_path: Path, key: Any, told: Any) -> None:
    with DecisionLog(tmp_path / "log.jsonl") as log:
        Router(cascade(), doubted, log=log).route("?", key=key, context="c")
    assert {(line["key"], line["context"]) for line in lines(tmp_path / "log.jsonl")} == {(told, "c")}


def test_failures_are_told_with_their_reasons() -> None:
    def call(tier: str, _: object) -> Reply:
        if tier == "large":
            raise Failure("rate limit", 0.5)
        return Reply(tier, {"conf": 0.1})

    told = list(decision_lines(Router(cascade(), call).route("?"), 0.0))
    assert [(line["action"], line["reason"], line["spent"]) for line in told] == [
        ("call", "", 1.0),
        ("call", "rate limit", 1.5),
        ("accept", "unanswered", 1.5),
    ]


def test_a_full_queue_drops_and_counts_and_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", size=3)
    writing, go_on = threading.Event(), threading.Event()
    append = log._append

    def held(batch: Any) -> bool:
        writing.set()
        assert go_on.wait(10)
        return append(batch)

    monkeypatch.setattr(log, "_append", held)
    routed = Router(cascade(), doubted).route("?", key=1)
    assert log.put(routed)
    assert writing.wait(10)
    assert [log.put(routed) for _ in range(8)] == [True] * 3 + [False] * 5
    assert log.dropped == 5
    go_on.set()
    log.close()
    assert len(lines(tmp_path / "log.jsonl")) == 4 * 3
    assert not log.put(routed)
    assert log.dropped == 6


def test_what_cannot_be_written_is_counted_and_the_next_is_tried_again(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "later" / "log.jsonl")
    router = Router(cascade(), doubted, log=log)
    router.route("?", key=1)
    while log.dropped == 0:
        time.sleep(0.001)
    (tmp_path / "later").mkdir()
    router.route("?", key=2)
    log.close()
    assert log.dropped == 1
    assert {line["key"] for line in lines(tmp_path / "later" / "log.jsonl")} == {2}


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"key": 1, "st')
    with DecisionLog(path) as log:
        Router(cascade(), doubted, log=log).route("?", key=2)
    first, *others = path.read_text().splitlines()
    assert first == '{"key": 1, "st'
    assert len([json.loads(line) for line in others]) == 3


def test_threads_write_whole_lines_and_lose_none(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.jsonl") as log:
        router = Router(cascade(), doubted, log=log)
        threads = [
            threading.Thread(target=lambda of=of: [router.route("?", key=of * 1000 + n) for n in range(200)])
            for of in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert log.dropped == 0
    found = [line["key"] for line in lines(tmp_path / "log.jsonl") if line["action"] == "accept"]
    assert sorted(found) == sorted(of * 1000 + n for of in range(4) for n in range(200))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_writes_to_the_same_file(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    router = Router(cascade(), doubted, log=log)
    router.route("?", key="parent")
    child = os.fork()
    if child == 0:
        router.route("?", key="child")
        log.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    log.close()
    keys = [line["key"] for line in lines(tmp_path / "log.jsonl")]
    assert sorted(keys) == ["child"] * 3 + ["parent"] * 3


def test_a_process_that_goes_elsewhere_writes_where_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    log = DecisionLog("log.jsonl")
    monkeypatch.chdir(tmp_path / "other")
    Router(cascade(), doubted, log=log).route("?", key=1)
    log.close()
    assert len(lines(tmp_path / "log.jsonl")) == 3


def test_a_log_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size is 0"):
        DecisionLog(tmp_path / "log.jsonl", size=0)
