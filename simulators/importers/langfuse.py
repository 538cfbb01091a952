"""Langfuse's observations and scores, as its API and its exports give them: pages, arrays or JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused, moment

__all__ = ["IMPORTER"]

_LEFT_OUT = ("input", "output")


def read(source: Source) -> Iterator[Record | Unused]:
    """Generations and scores, by their traces."""
    for found in source.records():
        if isinstance(found, Unused):
            yield found
            continue
        page = found.values.get("data")
        for value in page if isinstance(page, list) else [found.values]:
            yield _keyed(found.line, value)


def _keyed(line: int, value: Any) -> Record | Unused:
    if not isinstance(value, Mapping):
        return Unused(line, "is no JSON object", value)
    if _is_score(value):
        time = moment(value.get("timestamp") or value.get("updatedAt") or value.get("createdAt"))
        subject = value.get("subject")
        subject = subject if isinstance(subject, Mapping) else {}
        of_trace = subject.get("kind") == "trace"
        trace = value.get("traceId") or subject.get("traceId") or (subject.get("id") if of_trace else None)
        observation = value.get("observationId") or (
            subject.get("id") if subject.get("kind") == "observation" else None
        )
        value = {"name": value.get("name"), "value": _told(value), "of": observation, "score": True}
    else:
        trace = value.get("traceId")
        kind = value.get("type", "GENERATION")
        if kind != "GENERATION":
            return Unused(line, "is an observation that is no generation", kind)
        if value.get("level") == "ERROR":
            return Unused(line, "is a call that failed", value.get("statusMessage"))
        time = moment(value.get("startTime"))
        value = {name: part for name, part in value.items() if name not in _LEFT_OUT}
    return Record(line, value, str(trace), time) if trace else Unused(line, "belongs to no trace", value.get("name"))


def _is_score(value: Mapping[str, Any]) -> bool:
    return "name" in value and ("dataType" in value or "subject" in value or "value" in value) and "type" not in value


def _told(score: Mapping[str, Any]) -> Any:
    """A category says itself; its number is only a place among categories."""
    return score.get("stringValue") if score.get("dataType") == "CATEGORICAL" else score.get("value")


def join(records: Sequence[Record]) -> Iterator[Record | Unused]:
    """The generations of a trace, each with ``scores`` by name; a score of the whole trace is that of its only one."""
    records = sorted(records, key=lambda record: record.time)
    answers = {r.values.get("id"): r for r in records if not r.values.get("score")}
    scores: dict[Any, dict[str, Record]] = {}
    for record in records:
        if not record.values.get("score"):
            if answers[record.values.get("id")] is not record:
                yield Unused(record.line, "is an observation that comes again, and the last one counts")
            continue
        of, name = record.values["of"], str(record.values["name"])
        if of is None and len(answers) == 1:
            (of,) = answers
        if of in answers:
            told = scores.setdefault(of, {})
            if name in told:
                yield Unused(told[name].line, "is a score that comes again, and the last one counts", name)
            told[name] = record
        elif of is None:
            yield Unused(record.line, "is a score of a trace that has none or several generations", name)
        else:
            yield Unused(record.line, "is a score of no answer in the files", name)
    for own, record in answers.items():
        told = {name: score.values["value"] for name, score in scores.get(own, {}).items()}
        yield record._replace(values={**record.values, "scores": told})


IMPORTER = Importer(
    read,
    {
        "query_id": ("traceId",),
        "tier": ("model", "providedModelName"),
        "correct": ("scores.correctness", "scores.correct"),
        "confidence": ("scores.confidence",),
        "cost": ("totalCost", "costDetails.total", "calculatedTotalCost"),
    },
    join,
)
"""A trace is a query, a generation the answer of the tier that its model is."""
