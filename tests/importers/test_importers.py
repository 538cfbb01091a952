"""Every format on a file that its own project wrote: the log that it should become was written by hand."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import itertools
import json
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.fit import fit
from metaverify.simulators.importers.importer import known_formats
from metaverify.simulators.importers.importing import Imported, import_log
from metaverify.simulators.reader import read_log

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Case:
    """One format: its files, what is mapped, and what of them is no answer, with how often."""

    files: Sequence[str]
    mapping: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    budget: float = 2.0
    context: str = ""


NOTED = "metadata.spend_logs_metadata"
CASES = {
    "automix": Case(["automix.jsonl"], budget=20.0, context="dataset"),
    "routerbench": Case(["routerbench.csv"], budget=0.002, context="eval_name"),
    "lm-eval": Case(
        [str(path.relative_to(FIXTURES)) for path in sorted((FIXTURES / "lm-eval").rglob("*.jsonl"))],
        faults={"is the same sample after another filter": 24},
        costs={"made__small": 0.5, "made__large": 4.0},
        context="task",
    ),
    "litellm": Case(
        ["litellm.jsonl.gz"],
        {"confidence": f"{NOTED}.verifier.p", "correct": f"{NOTED}.graded", "task": f"{NOTED}.task"},
        {"is a call that failed": 1},
        budget=0.0001,
        context="task",
    ),
    "langfuse": Case(
        ["langfuse-observations-1.json", "langfuse-observations-2.json", "langfuse-scores.jsonl"],
        faults={"is an observation that is no generation": 1},
    ),
    "otel": Case(
        ["otel-events.jsonl", "otel-spans.jsonl"],
        {"task": "app.task"},
        {"is a span that is no answer of a model": 12},
        context="task",
    ),
    "inspect-ai": Case(
        ["inspect-small.eval", "inspect-large.eval"],
        {"confidence": "scores.sureness.value", "subject": "metadata.subject"},
        context="task",
    ),
}
TEXTS = ("automix", "lm-eval", "litellm", "langfuse", "otel")  # made of lines that can be torn


@pytest.fixture(params=CASES)
def format(request: pytest.FixtureRequest) -> str:
    if request.param == "inspect-ai" and importlib.util.find_spec("inspect_ai") is None:
        pytest.skip("inspect-ai is not installed: pip install 'metaverify[inspect]'")
    return str(request.param)


def imported(format: str, out: Path, files: Sequence[Path] | None = None, **options: Any) -> Imported:
    case = CASES[format]
    files = [FIXTURES / name for name in case.files] if files is None else files
    return import_log(format, files, out, mapping=case.mapping, **options)


def rows(path: Path) -> list[dict[str, Any]]:
    """A CSV file as values: numbers where there are, None where a cell is empty."""

    def value(cell: str) -> Any:
        try:
            return float(cell) if cell else None
        except ValueError:
            return cell

    with path.open() as file:
        return [
            {name: cell if name == "query_id" else value(cell) for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert [list(row) for row in found] == [list(row) for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        for name, value in other.items():
            close = isinstance(value, float) and one[name] is not None and math.isclose(one[name], value, rel_tol=1e-12)
            assert close or one[name] == value, (name, one, other)


def test_every_format_of_ours_has_a_case_or_a_test_of_its_own() -> None:
    assert {*CASES, "decisions", "long", "wide"} <= set(known_formats())


def test_a_format_becomes_the_log_that_was_written_by_hand(format: str, tmp_path: Path) -> None:
    report = imported(format, tmp_path / "log.parquet")
    wanted = rows(GOLDEN / f"{format}.csv")
    same(pl.read_parquet(tmp_path / "log.parquet").to_dicts(), wanted)
    assert {fault.why: fault.count for fault in report.faults} == CASES[format].faults
    assert report.queries == len(wanted)
    assert list(report.columns) == list(wanted[0])


def test_a_fit_reads_it(format: str, tmp_path: Path) -> None:
    case = CASES[format]
    report = imported(format, tmp_path / "log.parquet", whole=True)
    assert set(report.unpriced) == set(case.costs)
    log = read_log(tmp_path / "log.parquet", costs=case.costs, context=case.context or ())
    assert len(log.tiers) == 2
    fitted = fit(log, budget=case.budget, folds=2, compare=False, learner=Thresholds())
    assert fitted.policy.tiers[0].name == log.tier_names[0]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".jsonl"])
def test_neither_the_order_of_files_nor_the_size_of_pieces_changes_a_byte(
    format: str, suffix: str, tmp_path: Path
) -> None:
    imported(format, tmp_path / f"log{suffix}")
    wanted = (tmp_path / f"log{suffix}").read_bytes()
    names = [FIXTURES / name for name in CASES[format].files]
    for rows_at_once, files in zip((1, 7, 100), itertools.cycle(itertools.permutations(names)), strict=False):
        report = imported(format, tmp_path / f"other{suffix}", files[::-1], rows=rows_at_once)
        assert (tmp_path / f"other{suffix}").read_bytes() == wanted
        assert {fault.why: fault.count for fault in report.faults} == CASES[format].faults
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"log{suffix}", f"other{suffix}"])


def spoiled(source: Path, target: Path, spoil: Callable[[list[str]], list[str]]) -> Path:
    """A copy of a file of lines with other lines."""
    raw = source.read_bytes()
    packed = source.suffix == ".gz"
    text = (gzip.decompress(raw) if packed else raw).decode()
    data = "".join(spoil(text.splitlines(keepends=True))).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(data) if packed else data)
    return target


@pytest.mark.parametrize("format", TEXTS)
def test_lines_that_are_none_are_counted_and_named(format: str, tmp_path: Path) -> None:
    def spoil(lines: list[str]) -> list[str]:
        return [lines[0][:9] + "\n", *lines, "[1, 2]\n", "\n", '"text"\n', "{}\n"]

    files = [FIXTURES / name for name in CASES[format].files]
    at = next(i for i, path in enumerate(files) if ".jsonl" in path.name)
    count = len(spoiled(files[at], tmp_path / "lines", list).read_bytes().splitlines())
    if files[at].suffix == ".gz":
        count = len(gzip.decompress((tmp_path / "lines").read_bytes()).splitlines())
    copies = tmp_path / "in"
    files = [Path(shutil.copytree(FIXTURES, copies, dirs_exist_ok=True)) / name for name in CASES[format].files]
    spoiled(FIXTURES / CASES[format].files[at], files[at], spoil)
    report = imported(format, tmp_path / "log.parquet", files)
    same(pl.read_parquet(tmp_path / "log.parquet").to_dicts(), rows(GOLDEN / f"{format}.csv"))
    faults = {fault.why: fault for fault in report.faults}
    assert faults["is not JSON"].count == 1
    assert files[at].name in faults["is not JSON"].first[0]
    assert "line 1 (" in faults["is not JSON"].first[0]
    assert [place.rpartition(files[at].name)[2] for place in faults["is no JSON object"].first] == [
        f" line {count + 2} ([1, 2])",
        f" line {count + 4} (text)",
    ]
    new = {why: fault.count for why, fault in faults.items() if why not in CASES[format].faults}
    assert sum(new.values()) == 4  # the empty object is no answer either


def test_a_value_that_cannot_be_is_named_and_the_benchmark_goes_on_without_the_query(tmp_path: Path) -> None:
    def spoil(lines: list[str]) -> list[str]:
        row = json.loads(lines[2])
        return [*lines[:2], json.dumps({**row, "p_ver_13b": 1.5}) + "\n", *lines[3:]]

    path = spoiled(FIXTURES / "automix.jsonl", tmp_path / "automix.jsonl", spoil)
    report = import_log("automix", [path], tmp_path / "log.parquet")
    (fault,) = report.faults
    assert (fault.why, fault.count, fault.first) == (
        "conf_llama13b is outside [0, 1]",
        1,
        ("automix.jsonl line 3 (1.5)",),
    )
    wanted = [row for row in rows(GOLDEN / "automix.csv") if row["query_id"] != "cnli/q03"]
    same(pl.read_parquet(tmp_path / "log.parquet").to_dicts(), wanted)


def test_a_tier_that_lacks_a_query_leaves_it_out_of_a_benchmark_and_partial_in_traffic(tmp_path: Path) -> None:
    files = sorted((FIXTURES / "lm-eval").rglob("samples_colours*"))
    large = spoiled(files[0], tmp_path / "made__large" / files[0].name, lambda lines: lines[1:])
    for whole, count in ((None, 11), (True, 11), (False, 12)):
        report = import_log("lm-eval", [large, files[1]], tmp_path / "log.parquet", whole=whole)
        table = pl.read_parquet(tmp_path / "log.parquet")
        assert (report.queries, report.partial, len(table)) == (count, 1, count)
        assert table["correct_made__large"].null_count() == count - 11


def test_files_can_be_named_after_their_tiers(tmp_path: Path) -> None:
    files = sorted((FIXTURES / "lm-eval").rglob("samples_colours*"))
    named = [f"{tier}={path}" for tier, path in zip(("large", "small"), files, strict=True)]
    report = import_log("lm-eval", named, tmp_path / "log.parquet")
    assert set(report.answers) == {"large", "small"}
    wanted = [row for row in rows(GOLDEN / "lm-eval.csv") if row["task"] == "colours"]
    found = pl.read_parquet(tmp_path / "log.parquet").rename(
        lambda name: name.replace("_", "_made__", 1) if name[:4] in ("corr", "conf") else name
    )
    same(found.to_dicts(), wanted)


def test_another_filter_and_another_metric_can_be_asked_for(tmp_path: Path) -> None:
    files = sorted((FIXTURES / "lm-eval").rglob("*.jsonl"))
    adding = [path for path in files if "adding" in path.name]
    report = import_log("lm-eval", adding, tmp_path / "log.parquet", where={"filter": "flexible-extract"})
    assert report.passed_over == 24
    assert pl.read_parquet(tmp_path / "log.parquet")["correct_made__small"].to_list() == [1.0] * 12  # the last number
    colours = [path for path in files if "colours" in path.name]
    mapping = {"correct": "acc_norm", "confidence": "confidence_norm"}
    import_log("lm-eval", colours, tmp_path / "norm.parquet", mapping=mapping)
    of_task = {json.loads(line)["doc_hash"]: json.loads(line) for line in colours[1].read_text().splitlines()}
    for row in pl.read_parquet(tmp_path / "norm.parquet").iter_rows(named=True):
        sample = of_task[row["query_id"].partition(":")[2]]
        odds = [
            2.718281828459045 ** (float(answer[0]) / len(option))
            for answer, option in zip(sample["filtered_resps"], ("red", "green", "deep blue"), strict=True)
        ]
        assert row["correct_made__small"] == sample["acc_norm"]
        assert row["conf_made__small"] == pytest.approx(max(odds) / sum(odds))


def test_an_evaluation_is_found_by_its_span_or_by_the_response_and_told_where_it_is_lost(tmp_path: Path) -> None:
    lines = (FIXTURES / "otel-events.jsonl").read_text().replace("chatcmpl-q05-small", "chatcmpl-lost")
    (tmp_path / "events.jsonl").write_text(lines)
    report = import_log("otel", [tmp_path / "events.jsonl", FIXTURES / "otel-spans.jsonl"], tmp_path / "log.parquet")
    faults = {fault.why: fault for fault in report.faults}
    assert faults["is an evaluation of no answer in the files"].first == ("events.jsonl line 1 (correctness)",)
    wanted = rows(GOLDEN / "otel.csv")
    wanted[4]["correct_small"] = None
    found = pl.read_parquet(tmp_path / "log.parquet").to_dicts()
    same(found, [{name: cell for name, cell in row.items() if name != "task"} for row in wanted])
    assert report.partial == 1


def test_a_price_is_that_of_the_model_and_not_of_its_judge(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log
    from inspect_ai.model import ModelConfig, ModelUsage
    from inspect_ai.scorer import Score

    def used(**costs: float | None) -> dict[str, ModelUsage]:
        return {name.replace("_", "/"): ModelUsage(total_cost=cost) for name, cost in costs.items()}

    graded = {"match": Score(value="C")}
    cases = [  # usage by model, usage by role, price
        (used(own_a=0.5), {}, 0.5),
        (used(own_a=0.5, own_judge=3.0), used(grader=3.0), 0.5),
        (used(own_a=0.5, own_judge=None), used(grader=None), 0.5),
        (used(own_a=0.75), used(critic=0.25), 0.5),
        (used(own_judge=3.0), {}, None),
        (used(own_a=None, own_judge=3.0), {}, None),
    ]
    samples = [
        EvalSample(id=at, epoch=1, input="?", target="!", scores=graded, model_usage=models, role_usage=roles)
        for at, (models, roles, _) in enumerate(cases)
    ]
    bound = {"grader": ModelConfig(model="own/judge"), "critic": [ModelConfig(model="own/a")]}
    spec = EvalSpec(
        created="2026-11-20T10:00:00+00:00",
        task="quiz",
        dataset=EvalDataset(sample_ids=list(range(len(cases)))),
        model="own/a",
        config=EvalConfig(),
        model_roles=bound,
    )
    write_eval_log(EvalLog(eval=spec, samples=samples, status="success"), str(tmp_path / "log.eval"))
    report = import_log("inspect-ai", [tmp_path / "log.eval"], tmp_path / "log.parquet")
    wanted = [(f"quiz/{at}", cost) for at, (_, _, cost) in enumerate(cases) if cost is not None]
    assert pl.read_parquet(tmp_path / "log.parquet").select("query_id", "cost_own/a").rows() == wanted
    assert [(fault.why, fault.count) for fault in report.faults] == [
        ("has no cost, which other answers of the tier have", 2)
    ]


def otel(path: Path, spans: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> Path:
    """Two requests of the Collector's, one of spans and one of evaluations; keys with dots are attributes."""

    def part(values: Mapping[str, Any]) -> dict[str, Any]:
        told = {"eventName": "gen_ai.evaluation.result"} if "gen_ai.evaluation.name" in values else {}
        kinds = {str: "stringValue", float: "doubleValue"}
        attributes = [{"key": n, "value": {kinds[type(v)]: v}} for n, v in values.items() if "." in n]
        return {**told, **{n: v for n, v in values.items() if "." not in n}, "attributes": attributes}

    requests = [
        {"resourceSpans": [{"scopeSpans": [{"spans": list(map(part, spans))}]}]},
        {"resourceLogs": [{"scopeLogs": [{"logRecords": list(map(part, events))}]}]},
    ]
    path.write_text("".join(json.dumps(request) + "\n" for request in requests))
    return path


def span(trace: str, own: str, response: str | None = None, cost: float = 1.0, **more: Any) -> dict[str, Any]:
    named = {"gen_ai.response.id": response} if response else {}
    told = {"gen_ai.request.model": "a", "gen_ai.usage.cost": cost}
    return {"traceId": trace, "spanId": own, **told, **named, **more}


def verdict(value: float, response: str | None = None, trace: str = "", own: str = "", at: int = 0) -> dict[str, Any]:
    named = {"gen_ai.response.id": response} if response else {}
    told = {"gen_ai.evaluation.name": "correctness", "gen_ai.evaluation.score.value": value}
    return {"traceId": trace, "spanId": own, "timeUnixNano": str(at), **told, **named}


def test_an_evaluation_is_of_the_answer_that_it_names_and_not_of_the_span_that_made_it(tmp_path: Path) -> None:
    judge = {"gen_ai.request.model": "judge"}
    spans = [
        *(span(f"t{at}", "s", f"r{at}") for at in range(4)),
        span("t1", "j", "rj", 0.5, **judge),  # judges in the trace of an answer,
        span("other", "j", None, 0.5, **judge),  # and in one of its own
        span("t4", "s"),
        span("\ud800", "s", "r9"),
    ]
    events = [
        verdict(1.0, "r0", "t0", "s"),
        verdict(0.0, "r1", "t1", "j"),
        verdict(1.0, "r2", "other", "j"),
        verdict(1.0, "r3"),
        verdict(0.0, "not told by its span", "t4", "s"),
        verdict(1.0, "not in the files", "t1", "j"),
        verdict(1.0, "not in the files"),
    ]
    for order in (1, -1):
        path = otel(tmp_path / "otel.jsonl", spans[::order], events[::order])
        for rows in (1, 1000):
            report = import_log("otel", [path], tmp_path / "log.parquet", rows=rows)
            found = pl.read_parquet(tmp_path / "log.parquet").select("query_id", "correct_a", "cost_a").drop_nulls()
            assert found.rows() == [("t0", 1, 1), ("t1", 0, 1), ("t2", 1, 1), ("t3", 1, 1), ("t4", 0, 1)]
            assert {fault.why: fault.count for fault in report.faults} == {
                "is an evaluation of no answer in the files": 2,
                "has a key that is not UTF-8 text": 1,
            }


@pytest.mark.parametrize("order", [1, -1])
def test_what_comes_twice_in_one_request_goes_by_its_time_and_failed_calls_are_no_answers(
    order: int, tmp_path: Path
) -> None:
    spans = [
        span("q", "9", cost=0.5, startTimeUnixNano="1795392888000000000"),
        span("q", "1", cost=0.75, startTimeUnixNano="1795392889000000000"),
        span("r", "1", status={"code": 2}, cost=0.0, startTimeUnixNano="3"),
        span("r", "2", status={"code": "STATUS_CODE_ERROR"}, startTimeUnixNano="3"),
        span("r", "3", **{"error.type": "timeout"}, startTimeUnixNano="3"),
        span("r", "4", status={"code": 1}),
    ]
    events = [
        verdict(1.0, None, "q", "9"),  # of the answer that came first
        verdict(1.0, None, "r", "1"),
        verdict(0.0, None, "r", "4", at=2_000_000_000),
        verdict(1.0, None, "r", "4", at=1_000_000_000),
    ]
    path = otel(tmp_path / "otel.jsonl", spans[::order], events[::order])
    report = import_log("otel", [path], tmp_path / "log.parquet")
    wanted = [("q", None, 0.75), ("r", 0.0, 1.0)]
    assert pl.read_parquet(tmp_path / "log.parquet").select("query_id", "correct_a", "cost_a").rows() == wanted
    assert {fault.why: fault.count for fault in report.faults} == {
        "has an answer that comes again, and the last one counts": 1,
        "is a call that failed": 3,
        "is an evaluation of no answer in the files": 1,
        "is an evaluation that comes again, and the last one counts": 1,
    }


def test_scores_of_a_trace_belong_to_its_only_generation(tmp_path: Path) -> None:
    names = CASES["langfuse"].files
    mapping = {"verdict": "scores.verdict"}
    import_log("langfuse", [FIXTURES / name for name in names], tmp_path / "log.parquet", mapping=mapping)
    table = pl.read_parquet(tmp_path / "log.parquet").filter(pl.col("verdict").is_not_null())
    assert table.select("query_id", "verdict").rows() == [("trace-q13", "good")]
    (tmp_path / "scores.jsonl").write_text(
        "".join(
            json.dumps({"dataType": "NUMERIC", "name": "x", "value": 1, **of}) + "\n"
            for of in ({"traceId": "trace-q01"}, {"traceId": "trace-q01", "observationId": "gone"}, {"sessionId": "s"})
        )
    )
    files = [*(FIXTURES / name for name in names), tmp_path / "scores.jsonl"]
    report = import_log("langfuse", files, tmp_path / "log.parquet")
    assert {fault.why: fault.count for fault in report.faults} == {
        "is an observation that is no generation": 1,
        "is a score of a trace that has none or several generations": 1,
        "is a score of no answer in the files": 1,
        "belongs to no trace": 1,
    }


def page(path: Path, *values: Mapping[str, Any]) -> Path:
    """One page of Langfuse's API, on one line."""
    path.write_text(json.dumps({"data": values}))
    return path


def generation(trace: str, own: str, cost: float, **more: Any) -> dict[str, Any]:
    return {"id": own, "traceId": trace, "type": "GENERATION", "model": "a", "totalCost": cost, **more}


def score(own: str, name: str, value: float, **more: Any) -> dict[str, Any]:
    return {"traceId": own[0], "observationId": own, "name": name, "value": value, "dataType": "NUMERIC", **more}


@pytest.mark.parametrize("order", [1, -1])
def test_a_score_that_comes_twice_goes_by_its_time(order: int, tmp_path: Path) -> None:
    answers = [generation(trace, f"{trace}1", 1.0) for trace in "qrs"]
    january, february = ({"timestamp": f"2026-0{month}-01T00:00:00.000Z"} for month in (1, 2))
    scores = [
        score("q1", "correctness", 0, **february),
        score("q1", "correctness", 1, **january),
        score("r1", "correctness", 1, updatedAt="2026-03-01T00:00:00+01:00"),
        score("r1", "correctness", 0, createdAt="2026-02-28T23:30:00Z"),  # half an hour later
        score("s1", "correctness", 1),
        score("s1", "confidence", 0.75),
    ]
    path = page(tmp_path / "page.json", *answers[::order], *scores[::order])
    report = import_log("langfuse", [path], tmp_path / "log.parquet")
    wanted = [("q", 0.0, 1.0, None), ("r", 0.0, 1.0, None), ("s", 1.0, 1.0, 0.75)]
    assert pl.read_parquet(tmp_path / "log.parquet").rows() == wanted
    (fault,) = report.faults
    assert (fault.why, fault.count) == ("is a score that comes again, and the last one counts", 2)


def test_scores_without_a_time_go_by_their_place_on_the_page(tmp_path: Path) -> None:
    for values in ((0, 1, 0), (1, 0, 1)):
        scores = [score("q1", "correctness", value) for value in values]
        import_log("langfuse", [page(tmp_path / "p.json", generation("q", "q1", 1), *scores)], tmp_path / "log.parquet")
        assert pl.read_parquet(tmp_path / "log.parquet")["correct_a"].to_list() == [values[-1]]


def test_of_several_generations_of_a_trace_the_last_stands_whole_and_failed_ones_are_none(tmp_path: Path) -> None:
    path = page(
        tmp_path / "page.json",
        generation("q", "q2", 0.75, startTime="2026-01-02T00:00:00Z"),
        generation("q", "q1", 0.5, startTime="2026-01-01T00:00:00Z"),
        generation("r", "r2", 0.0, level="ERROR", statusMessage="timeout"),
        generation("r", "r1", 0.5, level="DEFAULT"),
        score("q1", "correctness", 1),
        score("q1", "confidence", 0.9),
        score("q2", "confidence", 0.25),
        score("r1", "correctness", 1),
        score("r2", "confidence", 0.5),
    )
    report = import_log("langfuse", [path], tmp_path / "log.parquet")
    table = pl.read_parquet(tmp_path / "log.parquet")
    assert table.rows() == [("q", None, 0.75, 0.25), ("r", 1.0, 0.5, None)]
    assert {fault.why: fault.first for fault in report.faults} == {
        "has an answer that comes again, and the last one counts": ("page.json line 1",),
        "is a call that failed": ("page.json line 1 (timeout)",),
        "is a score of no answer in the files": ("page.json line 1 (confidence)",),
    }


def test_scores_of_the_third_api_name_their_subject(tmp_path: Path) -> None:
    lines = []
    for line in (FIXTURES / "langfuse-scores.jsonl").read_text().splitlines():
        score = json.loads(line)
        trace, own = score.pop("traceId"), score.pop("observationId", None)
        of_own = {"kind": "observation", "id": own, "traceId": trace}
        lines.append(json.dumps({**score, "subject": of_own if own else {"kind": "trace", "id": trace}}))
    random.Random(1).shuffle(lines)
    (tmp_path / "scores.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    files = [FIXTURES / name for name in CASES["langfuse"].files[:2]]
    import_log("langfuse", [*files, tmp_path / "scores.json"], tmp_path / "log.parquet")
    same(pl.read_parquet(tmp_path / "log.parquet").to_dicts(), rows(GOLDEN / "langfuse.csv"))
