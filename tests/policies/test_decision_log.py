"""The decision log has every request that it does not count as dropped, and makes none wait."""

from __future__ import annotations

import enum
import json
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaverify.policies.actions import Abstain, Call, Verify
from metaverify.policies.decision_log import BATCH, DecisionLog, decision_lines
from metaverify.policies.routed import Routed, Step
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.store import Snapshot

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


def test_a_log_that_was_never_written_to_closes_at_once_and_takes_nothing_after(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    log.close()
    assert not log.put(Router(cascade(), doubted).route("?"))
    assert (log.dropped, log._thread) == (1, None)
    assert not (tmp_path / "log.jsonl").exists()


def test_closing_waits_no_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", size=1)
    writing, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(log, "_append", lambda batch: (writing.set(), go_on.wait(10))[1])
    routed = Router(cascade(), doubted).route("?")
    assert log.put(routed)
    assert writing.wait(10)
    assert log.put(routed)
    log.close(0.01)  # the queue is full, and its writer held
    assert log._thread is not None
    assert log._thread.is_alive()
    go_on.set()
    log.close(None)
    assert not log._thread.is_alive()
    assert log.dropped == 0


def test_one_thread_writes_however_often_it_is_started(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.jsonl") as log:
        log._start()
        first = log._thread
        log._start()
        assert log._thread is first
        assert first is not None
        assert (first.name, first.daemon) == ("metaverify-decisions", True)


def test_readings_of_every_kind_are_plain_json() -> None:
    told = {"a": 1, "b": np.float32(0.25), "c": None, "d": math.inf, "e": (np.int64(2), 3), "f": [0, 1], "g": math.nan}
    step = Step(Verify("small", "judge"), told, 0.5, 1.5, 0.25, "why")
    snapshot = Snapshot(cascade(), "sha256:1", 3)
    routed = Routed(None, None, (step, Step(Abstain(), {}, 0.0, 1.5, None)), snapshot, 1, b"\x01\xff", "c")
    shared: dict[str, object] = {"time": 2.346, "key": "01ff", "policy": "sha256:1", "vertex": 1, "context": "c"}
    shared |= {"serial": 0, "spent": 1.5, "without": []}
    first = {"step": 0, "action": "verify", "tier": "small", "reading": "judge", "cost": 0.5, "propensity": 0.25}
    last = {"step": 1, "action": "abstain", "tier": None, "reading": None, "cost": 0.0, "propensity": None}
    confidence = {"a": 1.0, "b": 0.25, "c": None, "d": None, "e": [2, 3], "f": [0, 1], "g": None}
    assert list(decision_lines(routed, 2.34567)) == [
        {**shared, **first, "confidence": confidence, "reason": "why"},
        {**shared, **last, "confidence": {}, "reason": ""},
    ]
    assert json.loads(json.dumps(list(decision_lines(routed, 0.0)), allow_nan=False))[0]["confidence"] == confidence


@pytest.mark.parametrize("unwritable", [{"key": 1, "context": {1}}, {"key": 1, "context": math.nan}])
def test_what_has_no_line_is_counted_as_lost_and_not_written(tmp_path: Path, unwritable: dict[str, Any]) -> None:
    with DecisionLog(tmp_path / "log.jsonl") as log:
        log.put(Routed(None, None, (Step(Abstain(), {}, 0.0, 0.0, None),), Snapshot(cascade(), "i"), 0, **unwritable))
    assert (log.dropped, log.drops["no line"]) == (1, 1)
    assert not (tmp_path / "log.jsonl").exists()


def test_closing_gives_the_writer_so_much_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    class Writer:
        def join(self, timeout: float | None) -> None:
            waited.append(timeout)

    log = DecisionLog(tmp_path / "log.jsonl")
    log.close()  # nobody writes yet
    monkeypatch.setattr(log, "_thread", Writer())
    for told in ((), (1.5,), (None,)):
        log.close(*told)
    assert waited == [5.0, 1.5, None]
    assert [log._queue.get_nowait() for _ in range(3)] == [None] * 3
    assert log._queue.empty()


@pytest.mark.parametrize("amid", ["put", "_drop", "drops", "close"])
def test_a_signal_s_handler_may_close_the_log_whatever_it_was_at(tmp_path: Path, amid: str) -> None:
    """The handler comes while this thread holds the lock, or is inside the queue's own code."""
    script = f"""
import signal, sys
from metaverify import DecisionLog, Router
from tests.policies.test_decision_log import cascade, doubted
log = DecisionLog(sys.argv[1])
router = Router(cascade(), doubted, log=log)
for key in range(3):
    router.route('?', key=key)
def close(*_):
    log.close()
    log.dropped
    sys.exit(7)
signal.signal(signal.SIGALRM, close)
def trace(frame, event, arg):
    code = frame.f_code
    if 'decision_log' in code.co_filename and {amid!r} in code.co_name and event == 'line':
        sys.settrace(None)
        with log._lock:
            signal.raise_signal(signal.SIGALRM)
    return trace
sys.settrace(trace)
log.dropped
log._drop('full')
router.route('?', key=4)
log.close()
"""
    root = Path(__file__).resolve().parents[2]
    path = tmp_path / "log.jsonl"
    ran = subprocess.run([sys.executable, "-c", script, path], cwd=root, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (7, "")
    assert {line["key"] for line in lines(path)} >= {0, 1, 2}


def test_a_process_that_ends_writes_what_waits(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from metaverify import DecisionLog, Router\n"
        "from tests.policies.test_decision_log import cascade, doubted\n"
        "gone, log = DecisionLog(sys.argv[1] + '.gone'), DecisionLog(sys.argv[1])\n"
        "del gone\n"
        "append = log._append\n"
        "log._append = lambda batch: time.sleep(0.3) or append(batch)\n"
        "Router(cascade(), doubted, log=log).route('?', key=1)\n"
    )
    path = tmp_path / "log.jsonl"
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", script, path], cwd=root, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    with DecisionLog(tmp_path / "closed.jsonl") as log:
        Router(cascade(), doubted, log=log).route("?", key=1)
    ended, closed = ([line | {"time": 0.0} for line in lines(file)] for file in (path, tmp_path / "closed.jsonl"))
    assert ended == closed


def test_a_batch_is_at_most_so_many_requests_and_the_end_may_stand_anywhere_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    sizes: list[int] = []
    append = log._append
    monkeypatch.setattr(log, "_append", lambda batch: (sizes.append(len(batch)), append(batch))[1])
    monkeypatch.setattr(log, "_start", lambda: True)
    routed = Router(cascade(), doubted).route("?")
    for _ in range(2 * BATCH + 10):
        assert log.put(routed)
    log._queue.put(None)
    log._write()
    assert sizes == [BATCH, BATCH, 10]
    assert len(lines(tmp_path / "log.jsonl")) == 3 * sum(sizes)


def test_a_disk_that_takes_half_a_batch_counts_it_and_the_next_begins_on_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    log = DecisionLog(path)
    monkeypatch.setattr(log, "_start", lambda: True)
    routed = Router(cascade(), doubted).route("?", key=1)
    whole = Path.open

    class Short:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            return int(self.file.write(data[:10]))

    def opens(self: Path, mode: str, **options: Any) -> Any:
        if mode == "rb":
            return whole(self, mode)
        assert (mode, options) == ("ab", {"buffering": 0})  # so that it is known how much was written
        return Short(whole(self, mode, buffering=0))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", opens)
        for dropped in (1, 2):
            log.put(routed)
            log._queue.put(None)
            log._write()
            assert log.dropped == dropped
    assert path.stat().st_size == 2 * 10
    for _ in range(2):
        log.put(routed)
        log._queue.put(None)
        log._write()
    first, second, *others = path.read_text().splitlines()
    assert (len(first), len(second)) == (10, 9)
    assert [json.loads(line)["step"] for line in others] == [0, 1, 2] * 2


@pytest.mark.parametrize("torn", [False, True])
def test_of_a_batch_that_is_cut_off_anywhere_the_requests_that_are_whole_in_the_file_are_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    batch = [b'{"key": 1}\n', b'{"key": 22}\n{"key": 22}\n', b'{"key": 3}\n']
    whole = Path.open

    class Short:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            return int(self.file.write(data[:room]))

    def opens(self: Path, mode: str, **options: Any) -> Any:
        return whole(self, mode) if mode == "rb" else Short(whole(self, mode, **options))

    monkeypatch.setattr(Path, "open", opens)
    for room in range(len(b"".join(batch)) + 2):
        path = tmp_path / f"{room}.jsonl"
        path.write_text('{"key": 0, "s' if torn else "")
        kept = DecisionLog(path)._append(batch)
        there = path.read_bytes().split(b"\n")
        assert kept == sum(there.count(one.split(b"\n")[0]) == one.count(b"\n") for one in batch)


def test_a_request_that_has_no_line_takes_no_other_with_it(tmp_path: Path) -> None:
    routed = [Router(cascade(), doubted).route("?", key=key) for key in range(200)]
    spoilt = replace(routed[100], context={1})  # type: ignore[arg-type]
    with DecisionLog(tmp_path / "log.jsonl") as log:
        for one in [*routed[:100], spoilt, *routed[101:]]:
            assert log.put(one)
    assert log.drops == {"full": 0, "closed": 0, "no thread": 0, "no line": 1, "file": 0}
    kept = [line["key"] for line in lines(tmp_path / "log.jsonl") if line["step"] == 0]
    assert kept == [key for key in range(200) if key != 100]


class Reason(enum.Enum):
    RATE = "rate limit"


@pytest.mark.parametrize("key", [uuid.UUID(int=7), np.int64(7), np.str_("7"), 7.5, ("a", 7), True, Reason.RATE])
def test_keys_are_told_as_the_policy_draws_by_them(tmp_path: Path, key: Any) -> None:
    with DecisionLog(tmp_path / "log.jsonl") as log:
        router = Router(cascade(0.5, LOW, MIDDLE), doubted, lambda *_: Look(0.5), log=log)
        vertex = router.route("?", key=key).vertex
    assert log.dropped == 0
    assert {line["key"] for line in lines(tmp_path / "log.jsonl")} == {str(key)}
    assert router.route("?", key=str(key)).vertex == vertex


@pytest.mark.parametrize("cost", [np.float32(1.5), Decimal("1.5"), Fraction(3, 2), np.array(1.5), 10**400, "1.5"])
@pytest.mark.parametrize("reason", [Reason.RATE, 5, "\ud800"])
def test_whatever_a_callable_tells_can_be_written(tmp_path: Path, cost: Any, reason: Any) -> None:
    def call(tier: str, _: object) -> Reply:
        if tier == "large":
            raise Failure(reason, cost)
        return Reply(tier, {"conf": 0.1}, cost)

    with DecisionLog(tmp_path / "log.jsonl") as log:
        routed = Router(cascade(), call, log=log).route("?", key=1)
    assert log.dropped == 0
    told = lines(tmp_path / "log.jsonl")
    assert [line["cost"] for line in told] == [step.cost for step in routed.steps]
    assert [line["reason"] for line in told] == [step.reason for step in routed.steps]


def test_what_is_dropped_is_counted_by_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routed = Router(cascade(), doubted).route("?", key=1)
    log = DecisionLog(tmp_path / "none" / "log.jsonl", size=1)

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        assert not log.put(routed)
    with monkeypatch.context() as patched:
        patched.setattr(log, "_start", lambda: True)
        assert [log.put(routed) for _ in range(3)] == [True, False, False]
    log._start()
    log.close()
    assert not log.put(routed)
    assert log.drops == {"full": 2, "closed": 1, "no thread": 1, "no line": 0, "file": 1}
    assert log.dropped == 5
    assert (
        log.prometheus()
        == """\
# HELP metaverify_decisions_dropped_total Requests that are not in the log.
# TYPE metaverify_decisions_dropped_total counter
metaverify_decisions_dropped_total{cause="full"} 2
metaverify_decisions_dropped_total{cause="closed"} 1
metaverify_decisions_dropped_total{cause="no thread"} 1
metaverify_decisions_dropped_total{cause="no line"} 0
metaverify_decisions_dropped_total{cause="file"} 1
"""
    )


def test_a_line_that_another_process_is_just_writing_is_not_taken_for_a_torn_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, waits = tmp_path / "log.jsonl", list[float]()
    path.write_text('{"ha')

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if seconds:
            path.write_text('{"half": 1}\n')

    monkeypatch.setattr("metaverify.policies.decision_log.time.sleep", sleep)
    log = DecisionLog(path)
    assert log._append([b'{"whole": 1}\n']) == 1
    assert (waits, path.read_text()) == ([0.0, 0.05], '{"half": 1}\n{"whole": 1}\n')


def route_in_a_child(path: Path) -> None:
    router = Router(cascade(), doubted, log=DecisionLog(path))
    for key in range(500):
        router.route("?", key=f"{os.getpid()} {key}")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_multiprocessing_writes_what_waits_though_nobody_closes_its_log(tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"needs {method}")
    children = [
        multiprocessing.get_context(method).Process(target=route_in_a_child, args=(tmp_path / "log.jsonl",))
        for _ in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert len({line["key"] for line in lines(tmp_path / "log.jsonl")}) == 1000


def test_only_a_child_of_multiprocessing_has_its_end_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Any] = []
    monkeypatch.setattr("multiprocessing.util.Finalize", lambda *told, **more: watched.append((*told, more)))
    log = DecisionLog(tmp_path / "log.jsonl")
    log._start()
    assert watched == []
    for loaded in (True, False):
        child = DecisionLog(tmp_path / "log.jsonl")
        with monkeypatch.context() as patched:
            patched.setattr("multiprocessing.parent_process", object)
            if not loaded:
                patched.delitem(sys.modules, "multiprocessing")
            child._start()
        child.close()
        assert watched == [(None, child._at_exit, {"exitpriority": 0})] if loaded else len(watched) == 1
    log.close()


def test_what_would_not_be_read_back_is_not_written_and_a_letter_of_two_halves_is(tmp_path: Path) -> None:
    policy, steps = cascade(), (Step(Abstain(), {}, 0.0, 0.0, None),)
    with DecisionLog(tmp_path / "log.jsonl") as log:
        for context in ("half \ud83d", "whole \U0001f600"):
            log.put(Routed(None, None, steps, Snapshot(policy, "i"), 0, context=context))
        tiny = Step(Call("small"), {}, 1e-300, 1e-300, None)  # which is no cost when it is read back
        log.put(Routed(None, None, (tiny, *steps), Snapshot(policy, "i"), 0))
    assert log.drops["no line"] == 2
    assert [line["context"] for line in lines(tmp_path / "log.jsonl")] == ["whole \U0001f600"]
