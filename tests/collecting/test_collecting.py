"""A log from nothing: what mock models did is what it says, no call is paid for twice, and caps hold."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

litellm: Any = pytest.importorskip("litellm", reason="needs the extra `litellm`")

from metaverify.cli import main  # noqa: E402
from metaverify.policies.integrations.models import Model, Request  # noqa: E402
from metaverify.policies.integrations.settings import read_settings  # noqa: E402
from metaverify.policies.router import Look  # noqa: E402
from metaverify.simulators.collecting import collecting  # noqa: E402
from metaverify.simulators.collecting.collected import Collected  # noqa: E402
from metaverify.simulators.collecting.collecting import collect  # noqa: E402
from metaverify.simulators.collecting.collection import Grading  # noqa: E402
from metaverify.simulators.collecting.journal import journal_path, read_journal  # noqa: E402
from metaverify.simulators.collecting.prompts import read_prompts  # noqa: E402
from metaverify.simulators.collecting.purchases import Limits  # noqa: E402
from metaverify.simulators.log import LogError  # noqa: E402
from metaverify.simulators.reader import read_log  # noqa: E402

from .mocks import (  # noqa: E402
    PRICE,
    SKILL,
    SURE,
    TOKENS,
    VOTES,
    YES,
    Mock,
    grade,
    is_right,
    sureness,
    write_prompts,
    write_settings,
)

COST = {name: PRICE[name] * TOKENS[name] for name in PRICE}
"""Dollars of a call."""

QUICK = Limits(at_once=4, pause=0.001)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Items? .* using the `ReadOnly` qualifier:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"
)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is killed keeps what it wrote; to be synced is for a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def mock() -> Iterator[Mock]:
    """The models, as a provider of LiteLLM's."""
    before, found = litellm.custom_provider_map, Mock()
    provide(found)
    yield found
    litellm.custom_provider_map = before


def provide(mock: Mock) -> None:
    litellm.custom_provider_map = [{"provider": "mock", "custom_handler": mock}]


def run(folder: Path, count: int, more: str = VOTES, **told: Any) -> Collected:
    """Collect on so many questions, in a folder."""
    settings = read_settings(write_settings(folder / "cascades.toml", more))["shop"]
    prompts = read_prompts(write_prompts(folder / "prompts.jsonl", count))
    return collect(prompts, settings, folder / "log.parquet", **{"limits": QUICK, **told})


# --------------------------------------------------------------------------------------------- what is in the log


def test_the_log_says_of_every_query_what_the_models_did(tmp_path: Path) -> None:
    found = run(tmp_path, 40)
    log = pl.read_parquet(tmp_path / "log.parquet")
    assert (found.prompts, found.asked, found.queries, len(log)) == (40, 40, 40, 40)
    for tier in SKILL:
        assert log[f"correct_{tier}"].to_list() == [float(is_right(tier, at)) for at in range(40)]
        assert log[f"cost_{tier}"].to_list() == pytest.approx([1000 * COST[tier]] * 40)
    assert log["conf_small"].to_list() == pytest.approx([sureness("small", at) for at in range(40)])
    assert log["conf_judge_large"].to_list() == [grade(at, is_right("large", at)) / 100 for at in range(40)]
    assert log["verify_cost_judge_large"].to_list() == pytest.approx([1000 * COST["judge"]] * 40)
    assert log["verify_cost_votes_small"].to_list() == pytest.approx([3000 * COST["small"]] * 40)
    assert set(log["conf_votes_small"].round(6)) == {0.0, 0.333333, 0.666667, 1.0}
    assert log["kind"].to_list() == ["a", "b"] * 20
    assert "verify_cost_small" not in log.columns  # it comes with the answer
    assert read_log(tmp_path / "log.parquet", votes={"votes": 3}, context="kind").tiers[0].readings[1].votes == 3


@pytest.mark.parametrize("count", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_quality_and_confidences_are_those_that_the_models_have(tmp_path: Path, count: int) -> None:
    run(tmp_path, count, VOTES.replace("3", "2"))
    log = pl.read_parquet(tmp_path / "log.parquet")
    for tier, skill in SKILL.items():
        assert log[f"correct_{tier}"].mean() == pytest.approx(skill, abs=4 * (skill * (1 - skill) / count) ** 0.5)
    for right, (a, b) in SURE.items():
        some = log.filter(pl.col("correct_small") == float(right))
        spread = (a * b / (a + b) ** 2 / (a + b + 1)) ** 0.5
        assert some["conf_small"].mean() == pytest.approx(a / (a + b), abs=4 * spread / len(some) ** 0.5)
        yes = YES[right]
        assert some["conf_votes_small"].mean() == pytest.approx(yes, abs=4 * (yes * (1 - yes) / 2 / len(some)) ** 0.5)


def test_the_costs_add_up_to_what_was_paid(tmp_path: Path, mock: Mock) -> None:
    found = run(tmp_path, 20)
    by_name = {(of.tier, of.reading): of for of in found.sources}
    assert found.dollars == pytest.approx(mock.paid)
    assert found.dollars == pytest.approx(20 * (4 * COST["small"] + COST["large"] + COST["judge"]))
    assert (by_name["small", "votes"].calls, by_name["small", "votes"].bought) == (60, 60)
    assert by_name["small", "votes"].dollars == pytest.approx(60 * COST["small"])
    assert by_name["large", None].quality == pytest.approx(sum(is_right("large", at) for at in range(20)) / 20)
    assert json.loads(json.dumps(found.to_json()))["queries"] == 20


def test_a_judge_grades_at_a_cost_that_is_no_tiers(tmp_path: Path, mock: Mock) -> None:
    found = run(tmp_path, 20, "", grading=Grading("judge", judge="large"))
    assert mock.asked["large"] == 60  # its own answers, and two grades a query
    by_name = {(of.tier, of.reading): of for of in found.sources}
    assert by_name["small", "grade"].calls == by_name["large", "grade"].calls == 20
    assert pl.read_parquet(tmp_path / "log.parquet")["cost_large"].to_list() == pytest.approx([200.0] * 20)


def of_two(prompt: Any, answer: str) -> float | None:
    """Questions divisible by 5 cannot be graded, those by 2 half."""
    question = int(prompt.split()[1])
    return None if question % 5 == 0 else 0.5 if question % 2 == 0 else float(answer == f"answer {question}")


@pytest.mark.parametrize("whole", [True, False])
def test_what_cannot_be_graded_is_left_out_or_null(
    tmp_path: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_grader", sys.modules[__name__])
    found = run(tmp_path, 10, "", grading=Grading("my_grader:of_two"), whole=whole)
    grades = pl.read_parquet(tmp_path / "log.parquet")["correct_small"].to_list()
    expected = [of_two(f"question {at}", f"answer {at if is_right('small', at) else -1}") for at in range(10)]
    assert (found.queries, found.partial) == (8 if whole else 10, 2)
    assert grades == [grade for grade in expected if grade is not None or not whole]


def test_a_grade_that_is_none_ends_the_run_and_keeps_what_was_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock: Mock
) -> None:
    monkeypatch.setitem(sys.modules, "my_grader", sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "of_two", lambda prompt, answer: 1.5)
    with pytest.raises(LogError, match=r"E_RANGE: --grade my_grader:of_two: query \w+ got 1\.5; return a number"):
        run(tmp_path, 10, "", grading=Grading("my_grader:of_two"))
    kept, asked = len(read_journal(journal_path(tmp_path / "log.parquet")).done), mock.asked.total()
    assert 0 < kept <= asked
    assert run(tmp_path, 10, "").queries == 10
    assert mock.asked.total() == asked + 30 - kept


# ------------------------------------------------------------------------------------------------ going on


def test_what_is_changed_costs_only_what_is_new(tmp_path: Path, mock: Mock) -> None:
    run(tmp_path, 10, "")
    first = dict(mock.asked)
    assert run(tmp_path, 10, "", grading=Grading("f1")).sources[0].bought == 0
    assert dict(mock.asked) == first
    run(tmp_path, 12, VOTES)
    assert mock.asked == Counter(small=12 + 36, large=12, judge=12)


def read_alone(tier: Model, request: Request, answer: Any) -> Look:
    """A verifier that asks nobody."""
    SEEN.append(answer.choices[0].message.content)
    return Look(0.25, 3.0)


SEEN: list[str] = []


def test_a_verifier_of_ones_own_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_verifier", sys.modules[__name__])
    SEEN.clear()
    for _ in range(2):
        found = run(tmp_path, 5, 'readings.own = { verifier = "my_verifier:read_alone" }\n')
    log = pl.read_parquet(tmp_path / "log.parquet")
    assert len(SEEN) == 5
    assert log["conf_own_small"].to_list() == [0.25] * 5
    assert log["verify_cost_own_small"].to_list() == [3.0] * 5
    assert found.dollars == pytest.approx(5 * (COST["small"] + COST["large"] + COST["judge"] + 0.003))


def test_the_journal_is_its_owners_alone_and_a_torn_line_does_no_harm(tmp_path: Path, mock: Mock) -> None:
    run(tmp_path, 3, "")
    path = journal_path(tmp_path / "log.parquet")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    log = (tmp_path / "log.parquet").read_bytes()
    whole = path.read_bytes()
    for cut in range(len(whole) - 700, len(whole), 61):
        path.write_bytes(whole[:cut])
        run(tmp_path, 3, "")
        assert (tmp_path / "log.parquet").read_bytes() == log
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"nonsense\n", *lines[2:]]))
    with pytest.raises(LogError, match=r"E_DAMAGED: log\.parquet\.journal line 3 is damaged"):
        run(tmp_path, 3, "")
    path.write_bytes(b"dear diary")
    with pytest.raises(LogError, match=r"E_FILE: .* no journal of collect; move it away"):
        run(tmp_path, 3, "")
    assert path.read_bytes() == b"dear diary"


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = journal_path(tmp_path / "log.parquet")
    with path.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LogError, match=r"E_FILE: .* written by another process"):
            run(tmp_path, 3, "")


QUERIES, AT_ONCE = 30, 4
NEEDED = QUERIES * 6  # an answer and three votes of small, an answer of large, and its judge


def die_somewhere(folder: Path, seed: int) -> None:
    """In a process of its own: collect, and be killed before a call, after it was paid, amid a line of the journal, or
    just then."""
    draw = random.Random(seed)
    count, how = draw.randint(1, 10), seed % 4
    left = [count]

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def when_it_is_time() -> None:
        left[0] -= 1
        if not left[0]:
            killed()

    mock = Mock(folder / "ledger.jsonl", steady=True)
    provide(mock)
    write = os.write
    if how == 0:
        mock.before = lambda model, question: when_it_is_time()
    elif how == 1:
        mock.after = when_it_is_time
    elif how == 2:

        def torn(handle: int, data: bytes) -> int:
            if left[0] == 1:
                write(handle, data[: draw.randrange(len(data))])
            when_it_is_time()
            return write(handle, data)

        os.write = torn
    else:
        threading.Timer(draw.uniform(0.0, 0.06), killed).start()
    collecting.written = lambda *_: None  # which uses polars, whose threads no child has
    run(folder, QUERIES, limits=Limits(AT_ONCE, pause=0.001))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, since LiteLLM takes seconds to import")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_twenty_times_it_ends_in_the_same_log_and_nothing_finished_is_paid_twice(tmp_path: Path) -> None:
    at_once, broken = tmp_path / "at once", tmp_path / "broken"
    at_once.mkdir()
    broken.mkdir()
    provide(Mock(steady=True))
    run(at_once, QUERIES)
    ledger, journal = broken / "ledger.jsonl", journal_path(broken / "log.parquet")
    ledger.touch()
    paid, known = 0, 0
    for seed in range(20):
        child = os.fork()
        if not child:
            try:
                signal.alarm(30)
                die_somewhere(broken, seed)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        now, done = len(ledger.read_text().splitlines()), len(read_journal(journal).done)
        assert 0 <= (now - paid) - (done - known) <= AT_ONCE  # what was paid is kept, but for what was under way
        paid, known = now, done
    assert NEEDED // 4 < known < NEEDED
    provide(Mock(ledger, steady=True))
    found = run(broken, QUERIES)
    assert (broken / "log.parquet").read_bytes() == (at_once / "log.parquet").read_bytes()
    ids = [line["id"] for line in map(json.loads, ledger.read_text().splitlines())]
    kept = [value["response"]["id"] for value in read_journal(journal).done.values()]
    assert len({*kept}) == len(kept) == NEEDED
    assert {*kept} <= {*ids}
    assert len(ids) - NEEDED <= len(found.lost) <= 20 * AT_ONCE  # each that was paid twice had been under way


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, mock: Mock, capsys: pytest.CaptureFixture[str]) -> None:
    settings, prompts = write_settings(tmp_path / "s.toml"), write_prompts(tmp_path / "p.jsonl", 20)
    argv = ["collect", str(prompts), "--settings", str(settings), "-o", str(tmp_path / "log.csv")]
    left = [25]

    def interrupt() -> None:
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGINT)

    mock.after = interrupt
    assert main(argv) == 1
    err = capsys.readouterr().err
    assert f"interrupted; what is finished is in {tmp_path / 'log.csv'}.journal, and the same command goes on" in err
    assert not (tmp_path / "log.csv").exists()
    kept = len(read_journal(journal_path(tmp_path / "log.csv")).done)
    assert kept == mock.asked.total()  # those under way were waited for
    asked = mock.asked.total()
    assert main(argv) == 0
    assert mock.asked.total() - asked == 120 - kept
    assert "next: metaverify inspect" in capsys.readouterr().out


def test_a_call_is_on_the_disk_before_the_next_one_of_its_query_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    write = os.write

    def seen(handle: int, data: bytes) -> int:
        events.append(next(iter(json.loads(data))))
        return write(handle, data)

    monkeypatch.setattr(os, "write", seen)
    monkeypatch.setattr(os, "fsync", lambda handle: events.append("synced"))
    run(tmp_path, 2, limits=Limits(1))
    assert events == ["journal", *["begun", "done", "synced"] * 12, "synced", "synced"]  # and the log and its folder


# -------------------------------------------------------------------------------------------------- the cap


@pytest.mark.parametrize("dollars", [1.1, 1.3, 2.0])
def test_the_cap_holds_to_one_request(tmp_path: Path, mock: Mock, dollars: float) -> None:
    found = run(tmp_path, 12, cap=dollars)
    assert found.capped
    assert dollars - COST["large"] < mock.paid <= dollars + 1e-9
    assert found.dollars == pytest.approx(mock.paid)
    assert 0 < found.queries == found.asked < 12
    again = run(tmp_path, 12, cap=dollars)
    assert (again.dollars, again.queries) == (found.dollars, found.queries)
    more = run(tmp_path, 12, cap=100.0)
    assert (more.queries, more.stopped) == (12, None)
    assert more.dollars == pytest.approx(mock.paid) == pytest.approx(12 * (4 * 0.01 + 0.2 + 0.001))


def test_calls_under_way_are_reserved_at_their_dearest(tmp_path: Path, mock: Mock) -> None:
    settings = write_settings(tmp_path / "s.toml", "")
    settings.write_text(
        settings.read_text().replace("max_tokens = 20 ", "max_tokens = 100 ")
    )  # $1, of which it pays $0.2
    prompts = read_prompts(write_prompts(tmp_path / "p.jsonl", 40))
    found = collect(prompts, read_settings(settings)["shop"], tmp_path / "log.csv", cap=3.0, limits=Limits(8))
    assert found.capped
    assert 2.0 < mock.paid <= 3.0
    assert mock.most["large"] <= 3


def test_a_cap_wants_prices(tmp_path: Path, mock: Mock) -> None:
    settings = write_settings(tmp_path / "s.toml", "")
    settings.write_text(settings.read_text().replace(", max_tokens = 20", ""))
    prompts = read_prompts(write_prompts(tmp_path / "p.jsonl", 4))
    with pytest.raises(LogError, match=r"E_PRICE: --cap 3: nobody knows what a call of large can cost; give its"):
        collect(prompts, read_settings(settings)["shop"], tmp_path / "log.csv", cap=3.0)
    assert not mock.asked


def test_a_cap_that_nothing_fits_under_writes_no_log(tmp_path: Path, mock: Mock) -> None:
    with pytest.raises(LogError, match=r"E_UNUSABLE: the cap of \$0.001 is reached: \$0.0000 are spent, and the next"):
        run(tmp_path, 4, cap=0.001)
    assert not mock.asked
    assert not (tmp_path / "log.parquet").exists()


# ------------------------------------------------------------------------------------------- failures, limits


def failing(times: int, error: Exception, model: str = "small") -> tuple[Any, Counter[int]]:
    """Calls of a model that fail so often for each question."""
    failed: Counter[int] = Counter()

    def fail(of: str, question: int) -> None:
        if of == model and failed[question] < times:
            failed[question] += 1
            raise error

    return fail, failed


@pytest.mark.parametrize(
    "error",
    [
        litellm.RateLimitError("too many", "mock", "small"),
        litellm.InternalServerError("oh", "mock", "small"),
        TimeoutError("slow"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_for_a_while_is_asked_again(tmp_path: Path, mock: Mock, error: Exception) -> None:
    mock.before, failed = failing(3, error)
    found = run(tmp_path, 5, "")
    assert (found.queries, [*failed.values()]) == (5, [3] * 5)
    assert mock.asked["small"] == 20
    assert found.dollars == pytest.approx(mock.paid)


def test_refusals_cost_nothing_and_what_is_not_known_is_told(tmp_path: Path, mock: Mock) -> None:
    mock.before, _ = failing(1, litellm.RateLimitError("too many", "mock", "small"))
    assert run(tmp_path, 5, "").lost == []
    mock.before, _ = failing(1, litellm.Timeout("slow", "small", "mock"), "large")
    assert run(tmp_path, 7, "").lost == pytest.approx([COST["large"]] * 2)


def test_what_never_works_is_missing_and_tried_again_another_time(tmp_path: Path, mock: Mock) -> None:
    def fail(model: str, question: int) -> None:
        if model == "small" and question == 3:
            raise litellm.BadRequestError("no such question", "small", "mock")

    mock.before = fail
    found = run(tmp_path, 6, whole=False)
    row = pl.read_parquet(tmp_path / "log.parquet").row(3, named=True)
    assert (row["correct_small"], row["cost_small"], row["conf_small"]) == (None, None, None)
    assert row["correct_large"] is not None
    assert (found.sources[0].missing, dict(found.sources[0].failed)) == (1, {"BadRequestError": 1})
    assert run(tmp_path, 6).queries == 5
    mock.before = lambda model, question: None
    assert run(tmp_path, 6).queries == 6


def test_a_vote_that_fails_makes_the_share_missing(tmp_path: Path, mock: Mock) -> None:
    def fail(model: str, question: int) -> None:
        if model == "small" and question == 3 and mock.asked["small"] % 2:
            raise litellm.BadRequestError("no", "small", "mock")

    mock.before = fail
    run(tmp_path, 6, limits=Limits(1), whole=False)
    shares = pl.read_parquet(tmp_path / "log.parquet")["conf_votes_small"].to_list()
    assert [share is None for share in shares] == [at == 3 for at in range(6)]


@pytest.mark.parametrize(
    ("error", "most"),
    [
        (litellm.AuthenticationError("who are you", "mock", "small"), 4),
        (litellm.BadRequestError("no logprobs here", "small", "mock"), 14),
    ],
    ids=["key", "never"],
)
def test_a_model_that_answers_nothing_ends_the_run(tmp_path: Path, mock: Mock, error: Exception, most: int) -> None:
    mock.before, _ = failing(100, error)
    with pytest.raises(LogError, match=f"E_UNUSABLE: small does not answer: {type(error).__name__}: "):
        run(tmp_path, 40, "")
    assert mock.asked["small"] <= most


def test_limits_hold(tmp_path: Path, mock: Mock) -> None:
    mock.wait = 0.002
    run(tmp_path, 20, limits=Limits(at_once=6, by_model={"large": 2}))
    assert (mock.most["all"], mock.most["large"]) == (6, 2)


def test_calls_are_timed_out(tmp_path: Path, mock: Mock) -> None:
    settings = write_settings(tmp_path / "s.toml", "timeout = 0.05\n")
    prompts = read_prompts(write_prompts(tmp_path / "p.jsonl", 2))
    mock.wait = 0.1
    found = collect(
        prompts, read_settings(settings)["shop"], tmp_path / "l.csv", whole=False, limits=Limits(tries=2, pause=0.001)
    )
    assert (mock.asked["small"], found.sources[0].missing) == (4, 2)
    assert found.sources[0].failed == {"TimeoutError": 2}


def test_models_are_asked_as_the_settings_say(tmp_path: Path, mock: Mock) -> None:
    settings = write_settings(tmp_path / "s.toml", "")
    settings.write_text(settings.read_text().replace('"mock/large",', '"mock/large", temperature = 0.3, seed = 7,'))
    collect(read_prompts(write_prompts(tmp_path / "p.jsonl", 1)), read_settings(settings)["shop"], tmp_path / "l.csv")
    asked = {of["model"]: of for of in mock.params}
    assert (asked["large"]["temperature"], asked["large"]["seed"]) == (0.3, 7)
    assert asked["small"]["logprobs"] is True
    assert "logprobs" not in asked["large"]


def test_signals_are_read_of_the_answers_that_they_need(tmp_path: Path) -> None:
    more = '\n[shop.tiers.look]\nneeds = ["small", "large"]\nreadings.conf = { verifier = "my_signal:agree" }\n'
    module: Any = type(sys)("my_signal")
    module.agree = lambda tier, request, answer: Look(
        float(len({of.choices[0].message.content for of in request.answers.values()}) == 1), 0.5
    )
    sys.modules["my_signal"] = module
    try:
        run(tmp_path, 10, more)
    finally:
        del sys.modules["my_signal"]
    log = pl.read_parquet(tmp_path / "log.parquet")
    assert log["conf_look"].to_list() == [float(is_right("small", at) == is_right("large", at)) for at in range(10)]
    assert (
        read_log(tmp_path / "log.parquet", signals={"look": ("small", "large")}).signals[0].readings[0].price[0] == 0.5
    )
