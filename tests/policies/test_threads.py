"""Jobs run in so many threads and no more, once each, in the order in which they came; what is given up never runs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import wait

import pytest

from metaverify.policies.threads import Threads

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="none")


@pytest.fixture
def held() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_at_most_so_many_run_at_once_and_all_run_in_the_end() -> None:
    lock, now, most = threading.Lock(), 0, 0
    begun = list[int]()

    def job(number: int) -> int:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
            begun.append(number)
        with lock:
            now -= 1
        return number

    threads = Threads(4)
    futures = [threads.begin(lambda number=number: job(number)) for number in range(300)]
    assert [future.result(30) for future in futures] == list(range(300))
    assert 1 <= most <= 4
    assert sorted(begun) == list(range(300))


def test_jobs_wait_for_a_free_thread_in_the_order_in_which_they_came(held: threading.Event) -> None:
    threads, begun, runs = Threads(1), list[int](), threading.Event()
    first = threads.begin(lambda: (runs.set(), held.wait(30)))
    assert runs.wait(30)
    others = [threads.begin(lambda number=number: begun.append(number)) for number in range(5)]
    assert threads.give_up(others[2])
    assert not threads.give_up(others[2])
    assert not threads.give_up(first)
    others[3].cancel()
    held.set()
    wait([first, *(others[at] for at in (0, 1, 4))], 30)
    assert begun == [0, 1, 4]
    assert not others[2].done()
    assert threads.give_up(others[3])  # it was cancelled, never began, and is known not to have
    assert not threads.give_up(others[4])


def test_a_job_runs_in_a_daemon_thread_in_the_context_of_who_asked_for_it() -> None:
    NAME.set("asker")
    told = Threads(1).begin(lambda: (NAME.get(), threading.current_thread().daemon, threading.current_thread().name))
    NAME.set("later")
    assert told.result(30) == ("asker", True, "metaverify-call")


def test_what_a_job_raises_is_told_and_ends_no_thread(held: threading.Event) -> None:
    def bad() -> None:
        raise KeyboardInterrupt

    threads = Threads(1)
    first, failing, last = threads.begin(lambda: held.wait(30)), threads.begin(bad), threads.begin(lambda: 7)
    held.set()
    assert first.result(30)
    assert isinstance(failing.exception(30), KeyboardInterrupt)
    assert last.result(30) == 7


def test_where_the_system_has_no_thread_a_job_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = Threads(1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        first = threads.begin(lambda: 1)
    assert not first.done()
    assert threads.begin(lambda: 2).result(30) == 2
    assert first.result(30) == 1


def test_a_forked_child_has_all_its_threads(held: threading.Event) -> None:
    threads = Threads(1)
    threads.begin(lambda: held.wait(30))
    threads.begin(lambda: None)
    threads._renew()  # as it is told in a child, in which no thread of the parent lives
    assert threads.begin(lambda: 3).result(30) == 3
