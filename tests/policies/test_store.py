"""The store always has a policy that loaded, whole, whatever happens to its file."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import metaverify.policies.store as store_module
from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.file import PolicyFileError, dump_policy, load_policy, policy_id, save_policy
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.guards import Guard
from metaverify.policies.policy import BudgetError, OperatingPoint, Policy, Vertex
from metaverify.policies.router import Reply, Router
from metaverify.policies.store import PolicyStore
from metaverify.policies.tiers import Tier

from .strategies import examples

BAD = (b"", b"{", b'{"format": "other"}', b"\xff", b"[1e400]")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def revision(number: int) -> Policy:
    """Policies that differ in every name: calls and accepts the tier of this number."""
    name = f"tier{number}"
    vertex = Vertex(0.0, float(number + 1), 0.5, 0)
    nodes = (Ask(name, 1), Stop(Accept(name)))
    return Policy((Tier(name, float(number + 1)),), nodes, (vertex,), OperatingPoint(0, 0, 0.0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_policy(revision(0), tmp_path / "policy.json")
    return tmp_path / "policy.json"


def test_a_new_file_is_taken_up_at_the_next_look_and_not_before(path: Path) -> None:
    clock = Clock()
    store = PolicyStore(path, every=10.0, clock=clock)
    save_policy(revision(1), path)
    clock.now = 9.9
    assert store.policy == revision(0)
    clock.now = 10.0
    assert store.policy == revision(1)
    clock.now = 12.5
    health = store.health()
    assert (health.id, health.age, health.reloads, health.error) == (policy_id(revision(1)), 2.5, 1, None)


def test_the_file_is_looked_at_once_a_second_and_read_where_it_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, reads = list[float](), list[float]()
    clock, stamp = Clock(), store_module._stamp
    clock.now = 100.0
    monkeypatch.setattr(store_module, "_stamp", lambda file: (looks.append(clock.now), stamp(file))[1])
    store = PolicyStore(path, load=lambda file: (reads.append(clock.now), load_policy(file))[1], clock=clock)
    assert (store.health().age, looks, reads) == (0.0, [100.0], [100.0])
    for now in (100.0, 100.5, 101.0, 101.0, 101.5, 102.0):
        clock.now = now
        assert store.policy == revision(0)
    assert (looks, reads) == ([100.0, 101.0, 102.0], [100.0])
    clock.now = 102.5
    assert store.reload().age == 2.5
    for now in (102.5, 103.4, 103.5):
        clock.now = now
        assert store.policy == revision(0)
    assert (looks[3:], reads) == ([102.5, 103.5], [100.0, 102.5])


def test_a_bad_file_is_read_again_a_fifth_of_a_second_later_where_there_is_no_time_between_looks(path: Path) -> None:
    clock, reads = Clock(), list[float]()

    def load(file: Path) -> Policy:
        reads.append(clock.now)
        return load_policy(file)

    store = PolicyStore(path, every=0.0, load=load, clock=clock)
    path.write_bytes(b"{")
    for now in (0.0, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0):
        clock.now = now
        assert store.policy == revision(0)
    assert reads == [0.0, 0.0, 0.25, 0.75]


def test_without_looks_only_a_call_reloads(path: Path) -> None:
    clock = Clock()
    store = PolicyStore(path, every=None, clock=clock)
    save_policy(revision(1), path)
    clock.now = 1e9
    assert store.policy == revision(0)
    assert store.reload().id == policy_id(revision(1)) == store.snapshot().id


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_leaves_the_last_good_policy(path: Path, bad: bytes) -> None:
    store = PolicyStore(path, every=0.0)
    path.write_bytes(bad)
    before = store.snapshot()
    assert before.policy == revision(0)
    health = store.health()
    assert health.failures == health.refused == 1
    assert health.error is not None
    assert "PolicyFileError" in health.error
    save_policy(revision(1), path)
    assert store.policy == revision(1)
    assert before.policy == revision(0)
    assert (store.health().failures, store.health().refused, store.health().error) == (0, 1, None)
    assert store.health().serial == store.snapshot().serial == 0


def test_a_file_that_is_gone_or_a_folder_leaves_the_last_good_policy(path: Path) -> None:
    store = PolicyStore(path, every=0.0)
    path.unlink()
    assert store.policy == revision(0)
    path.mkdir()
    assert store.policy == revision(0)
    assert "E_NOTFILE" in str(store.health().error)


def test_whatever_the_loader_raises_leaves_the_last_good_policy(path: Path) -> None:
    store = PolicyStore(path, load=lambda file: load_policy(file).at(budget=3.0))
    assert store.policy.point.budget == 3.0
    save_policy(revision(7), path)
    assert "E_BUDGET: budget 3 is below 8" in str(store.reload().error)
    assert store.policy == revision(0).at(budget=3.0)


def test_the_first_file_must_load(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match="E_NOTFILE"):
        PolicyStore(tmp_path / "none.json")
    save_policy(revision(5), tmp_path / "policy.json")
    with pytest.raises(BudgetError):
        PolicyStore(tmp_path / "policy.json", load=lambda file: load_policy(file).at(budget=1.0))


@pytest.mark.parametrize("every", [-1.0, float("nan"), float("inf")])
def test_times_between_looks_that_are_none_are_refused(path: Path, every: float) -> None:
    with pytest.raises(ValueError, match="every is"):
        PolicyStore(path, every=every)


def test_a_policy_that_expires_in_use_stays_and_is_said_to_have_expired(path: Path) -> None:
    clock, calendar = Clock(), Clock()
    save_policy(replace(revision(0), expires=100.0, serial=3), path)
    store = PolicyStore(
        path, every=1.0, load=lambda file: load_policy(file, now=calendar.now), clock=clock, wall_clock=calendar
    )
    for calendar.now, expired in ((0.0, False), (99.9, False), (100.0, True), (1e9, True)):
        clock.now += 1.0
        assert store.policy.serial == 3
        assert (store.health().expires, store.health().expired) == (100.0, expired)
        assert f"\nmetaverify_policy_expired {int(expired)}\n" in store.prometheus()
    assert store.health().error is None
    assert "E_EXPIRED" in str(store.reload().error)
    save_policy(replace(revision(1), serial=4), path)
    clock.now += 1.0
    assert store.policy.serial == 4
    assert (store.health().expires, store.health().expired) == (None, False)


def test_the_health_is_told_as_prometheus_wants_it(path: Path) -> None:
    clock = Clock()
    store = PolicyStore(path, every=None, clock=clock)
    save_policy(replace(revision(1), serial=7), path)
    store.reload()
    path.write_bytes(b"{")
    for _ in range(2):
        store.reload()
    clock.now = 2.5
    assert (
        store.prometheus()
        == """\
# HELP metaverify_policy_serial The edition of the policy in use.
# TYPE metaverify_policy_serial gauge
metaverify_policy_serial 7
# HELP metaverify_policy_age_seconds For how long it has been in use.
# TYPE metaverify_policy_age_seconds gauge
metaverify_policy_age_seconds 2.5
# HELP metaverify_policy_expired Whether it is past its end.
# TYPE metaverify_policy_expired gauge
metaverify_policy_expired 0
# HELP metaverify_policy_reloads_total Policies that replaced another.
# TYPE metaverify_policy_reloads_total counter
metaverify_policy_reloads_total 1
# HELP metaverify_policy_refused_total Attempts to read the file that failed.
# TYPE metaverify_policy_refused_total counter
metaverify_policy_refused_total 2
# HELP metaverify_policy_failures Those since the last good one.
# TYPE metaverify_policy_failures gauge
metaverify_policy_failures 2
"""
    )


def test_a_bad_file_that_stays_is_read_again_less_and_less_often(path: Path) -> None:
    clock, reads = Clock(), list[float]()

    def load(file: Path) -> Policy:
        reads.append(clock.now)
        return load_policy(file)

    store = PolicyStore(path, every=1.0, load=load, clock=clock)
    path.write_bytes(b"{")
    for second in range(1, 301):
        clock.now = float(second)
        _ = store.policy
    assert reads == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0, 243.0]
    save_policy(revision(2), path)  # one that changes is read at the next look
    clock.now = 301.0
    assert store.policy == revision(2)


def test_a_clock_that_goes_back_is_a_look(path: Path) -> None:
    clock = Clock()
    clock.now = 1e6
    store = PolicyStore(path, every=10.0, clock=clock)
    save_policy(revision(1), path)
    clock.now = 0.0
    assert store.policy == revision(1)


def test_readers_do_not_wait_for_a_reload(path: Path) -> None:
    entered, go_on, block = threading.Event(), threading.Event(), False

    def load(file: Path) -> Policy:
        if block:
            entered.set()
            assert go_on.wait(10)
        return load_policy(file)

    store = PolicyStore(path, every=0.0, load=load)
    block = True
    save_policy(revision(1), path)
    reader = threading.Thread(target=store.snapshot)
    reader.start()
    assert entered.wait(10)
    assert store.policy == revision(0)  # while the other thread reads
    assert reader.is_alive()
    assert store.health().refused == 0  # nor was it waited for until it gave up
    go_on.set()
    reader.join(10)
    assert store.policy == revision(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_reload_can_reload(path: Path) -> None:
    store = PolicyStore(path, every=0.0)
    save_policy(revision(1), path)
    with store._loading:  # as if another thread were reading
        child = os.fork()
        if child == 0:
            os._exit(0 if store.policy == revision(1) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def tiny_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Traffic:
    """Threads that send requests to a store's policy for as long as they may, and check every answer."""

    def __init__(self, store: PolicyStore) -> None:
        self.router = Router(store, lambda tier, request: Reply((tier, request)))
        self.owners = {policy_id(revision(number)): f"tier{number}" for number in range(5)}
        self.seen: set[str] = set()
        self.errors: list[str] = []

    def flow(self, done: Callable[[], bool], told: Callable[[], object] = lambda: None) -> None:
        threads = [threading.Thread(target=self.send, args=(done, told)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)

    def send(self, done: Callable[[], bool], told: Callable[[], object]) -> None:
        count = 0
        try:
            while not done() or count < 100:
                routed = self.router.route(count, key=count)
                name = self.owners[routed.snapshot.id]
                assert routed.answer == (name, count)
                assert {getattr(step.action, "tier", None) for step in routed.steps} == {name}
                assert routed.cost == float(name[-1]) + 1.0
                assert routed.reasons == ()
                self.seen.add(name)
                count += 1
                told()
        except BaseException as error:
            self.errors.append(repr(error))


GOOD = [dump_policy(revision(number)).encode() for number in range(4)]


def put(path: Path, turn: int) -> None:
    """The file of this turn: a bad one every other time."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(BAD[turn // 2 % len(BAD)] if turn % 2 else GOOD[turn // 2 % len(GOOD)])
    temporary.replace(path)


RELOADS = [50, pytest.param(1000, marks=pytest.mark.slow)]


@pytest.mark.usefixtures("tiny_interval")
@pytest.mark.parametrize("reloads", RELOADS)
def test_no_decision_mixes_two_revisions_though_half_of_the_reloads_are_bad(path: Path, reloads: int) -> None:
    store = PolicyStore(path, every=0.0)
    traffic, done = Traffic(store), threading.Event()
    flow = threading.Thread(target=traffic.flow, args=(done.is_set,))
    flow.start()
    for turn in range(reloads):
        put(path, turn)
        assert store.reload().id in traffic.owners
    done.set()
    flow.join(120)
    assert traffic.errors == []
    assert len(traffic.seen) > 1
    assert store.health().reloads >= reloads // 2 - 1
    assert store.health().failures > 0


def traffic_of_a_process(path: Path, done: Any, counts: Any, told: Any) -> None:
    """Four threads of a process of its own; what became of their requests, and the policy that it ends with."""
    sys.setswitchinterval(1e-6)
    store = PolicyStore(path, every=0.0)
    traffic = Traffic(store)

    def count() -> None:
        counts.value += 1  # four threads, so that some are not counted

    traffic.flow(done.is_set, count)
    told.put((traffic.errors, sorted(traffic.seen), store.snapshot().id, store.health().refused))


@pytest.mark.parametrize("reloads", RELOADS)
def test_two_processes_of_four_threads_follow_one_file_and_mix_no_revisions(path: Path, reloads: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    done, told = spawn.Event(), spawn.Queue()
    counts = [spawn.Value("Q", 0, lock=False) for _ in range(2)]
    processes = [spawn.Process(target=traffic_of_a_process, args=(path, done, count, told)) for count in counts]
    for process in processes:
        process.start()
    for turn in range(reloads):
        before = [count.value for count in counts]
        put(path, turn)
        while any(count.value < was + 2 for count, was in zip(counts, before, strict=True)):
            assert all(process.is_alive() for process in processes)
            time.sleep(1e-4)
    save_policy(revision(4), path)
    done.set()
    for errors, seen, last, refused in (told.get(timeout=120) for _ in processes):
        assert errors == []
        assert len(seen) > 1
        assert last == policy_id(revision(4))
        assert refused > 0
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


class StoreMachine(RuleBasedStateMachine):
    """The store and the router on it against a model of three values: what is good, what stands in the file, time."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        self.path = self.folder / "policy.json"
        self.clock = Clock()
        self.good = self.file = 0  # the revision in use; the one in the file, None where that is bad
        self.looked = 0.0
        self.stale = False  # whether the file changed since it was last read
        self.write(0)
        self.store = PolicyStore(self.path, every=5.0, clock=self.clock)
        self.guards = {cap: Router(self.store, self.call, guard=Guard(cap=cap)) for cap in (2.5, 100.0)}
        self.stale = False

    def call(self, tier: str, request: object) -> Reply:
        return Reply(tier)

    def write(self, number: int | None, data: bytes | None = None) -> None:
        temporary = self.path.with_suffix(".new")
        temporary.write_bytes(dump_policy(revision(number)).encode() if number is not None else data or b"")
        os.utime(temporary, ns=(self.stamp(), self.stamp()))
        temporary.replace(self.path)
        self.file, self.stale = number, True  # type: ignore[assignment]

    def stamp(self) -> int:
        self.times = getattr(self, "times", 0) + 1
        return self.times * 1_000_000_000

    def looks(self) -> None:
        if not 0.0 <= self.clock.now - self.looked < 5.0:
            self.looked = self.clock.now
            if self.stale and self.file is not None:
                self.good = self.file
            self.stale = False

    @rule(number=st.integers(0, 5))
    def put_a_good_file(self, number: int) -> None:
        self.write(number)

    @rule(bad=st.sampled_from(BAD))
    def put_a_bad_file(self, bad: bytes) -> None:
        self.write(None, bad)

    @rule(at=st.integers(0, 200), bit=st.integers(0, 7))
    def flip_a_bit(self, at: int, bit: int) -> None:
        data = bytearray(dump_policy(revision(3)).encode())
        data[at] ^= 1 << bit
        self.write(None, bytes(data))

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 1e6, -0.5, -1e7]))
    def let_time_jump(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(cap=st.sampled_from([2.5, 100.0]))
    def decide(self, cap: float) -> None:
        routed = self.guards[cap].route("?", key=1)
        self.looks()
        if self.good + 1 <= cap:
            assert routed.answer == f"tier{self.good}"
            assert routed.cost == self.good + 1
        else:
            assert (routed.action, routed.cost) == (Abstain(), 0.0)
            assert "cap" in routed.reasons

    @rule()
    def reload(self) -> None:
        health = self.store.reload()
        self.looked = self.clock.now
        self.stale = False
        self.good = self.good if self.file is None else self.file
        assert health.id == policy_id(revision(self.good))
        assert (health.error is None) == (self.file is not None)

    @invariant()
    def health_is_of_a_good_policy(self) -> None:
        health = self.store.health()
        assert health.id == policy_id(revision(self.good))
        assert health.age >= 0.0


def test_the_store_does_what_a_small_model_does(tmp_path: Path) -> None:
    machine: Any = type("Machine", (StoreMachine,), {"folder": tmp_path})
    run_state_machine_as_test(machine, settings=settings(examples(40), stateful_step_count=25))


def test_a_signal_s_handler_that_reloads_amid_a_look_has_the_file_read_once_more(tmp_path: Path) -> None:
    """What the look was reading may be older than what the handler was told of."""
    path = tmp_path / "policy.json"
    first, second, third = (replace(revision(serial), serial=serial) for serial in (1, 2, 3))
    save_policy(first, path)
    read: list[int] = []
    told: list[int] = []

    def load(path: Path) -> Policy:
        policy = load_policy(path)
        read.append(policy.serial)
        if read == [1, 2]:
            save_policy(third, path)
            told.append(store.reload().serial)  # as a handler would, in this thread
            told.append(store.policy.serial)
        return policy

    store = PolicyStore(path, every=0.0, load=load)
    save_policy(second, path)
    assert store.policy.serial == 3
    assert (read, told) == ([1, 2, 3], [1, 1])
    assert (store.health().reloads, store.health().refused) == (2, 0)
    assert store.policy.serial == 3
