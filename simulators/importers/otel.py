"""OpenTelemetry: spans of models and ``gen_ai.evaluation.result`` events, as OTLP JSON has them, one request a line.

Source: OTLP/JSON (opentelemetry-proto 1.x), semantic conventions for generative AI (events, spans), in development.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused

__all__ = ["IMPORTER"]

_EVENT = ("gen_ai.evaluation.result", "event.gen_ai.evaluation.result")
_ANSWERS = ("chat", "text_completion", "generate_content")
_LABELS = {"pass": 1.0, "fail": 0.0, "correct": 1.0, "incorrect": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_LARGE = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions")


def read(source: Source) -> Iterator[Record | Unused]:
    """Spans and evaluations; each is told by its span, and by the id of the model's response where it has one."""
    for found in source.records():
        if isinstance(found, Unused):
            yield found
            continue
        spans = list(_parts(found.values, "resourceSpans", "scopeSpans", "spans"))
        events = list(_parts(found.values, "resourceLogs", "scopeLogs", "logRecords"))
        if not spans and not events:
            yield Unused(found.line, "has neither spans nor events")
        for span in spans:
            yield from _span(found.line, span)
        for event in events:
            yield from _event(found.line, event, event.get("traceId"), event.get("spanId"))


def _parts(request: Mapping[str, Any], *names: str) -> Iterator[Mapping[str, Any]]:
    """What stands in lists within lists."""
    first, *rest = names
    for part in request.get(first) or ():
        if isinstance(part, Mapping):
            if rest:
                yield from _parts(part, *rest)
            else:
                yield part


def _span(line: int, span: Mapping[str, Any]) -> Iterator[Record | Unused]:
    trace, own = span.get("traceId"), span.get("spanId")
    for event in span.get("events") or ():
        if isinstance(event, Mapping) and event.get("name") in _EVENT:
            yield from _event(line, event, trace, own)
    told = _attributes(span)
    kind = told.get("gen_ai.operation.name", "chat")
    if not {"gen_ai.request.model", "gen_ai.response.model"} & told.keys() or kind not in _ANSWERS:
        yield Unused(line, "is a span that is no answer of a model", span.get("name"))
        return
    values = {**{name: part for name, part in told.items() if name not in _LARGE}, "traceId": trace, "spanId": own}
    yield Record(line, values, f"span {trace} {own}")
    if response := told.get("gen_ai.response.id"):
        once = {name: part for name, part in values.items() if not isinstance(part, float)}  # prices are told once
        yield Record(line, {**once, "again": True}, f"response {response}")


def _event(line: int, event: Mapping[str, Any], trace: Any, span: Any) -> Iterator[Record | Unused]:
    told = _attributes(event)
    name = event.get("eventName") or event.get("name") or told.get("event.name")
    if name not in _EVENT:
        yield Unused(line, "is an event that is no evaluation", name)
        return
    score, label = told.get("gen_ai.evaluation.score.value"), told.get("gen_ai.evaluation.score.label")
    score = _LABELS.get(str(label).lower(), label) if score is None else score
    values = {"evaluation": told.get("gen_ai.evaluation.name"), "score": score}
    response = told.get("gen_ai.response.id")
    if trace and span:
        yield Record(line, values, f"span {trace} {span}")
    elif response:
        yield Record(line, values, f"response {response}")
    else:
        yield Unused(line, "is an evaluation of no span and of no response", values["evaluation"])


def _attributes(part: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value, of OTLP's list of keys and values; a plain object stays what it is."""
    given = part.get("attributes") or ()
    if isinstance(given, Mapping):
        return dict(given)
    return {str(one.get("key")): _value(one.get("value")) for one in given if isinstance(one, Mapping)}


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kind, told = next(iter(value.items()), ("", None))
    if kind in ("intValue", "doubleValue"):  # 64 bits are texts in JSON, and so is NaN
        with suppress(TypeError, ValueError):
            return int(str(told)) if kind == "intValue" else float(str(told))
    if kind == "arrayValue" and isinstance(told, Mapping):
        return [_value(one) for one in told.get("values") or ()]
    return _attributes({"attributes": told.get("values")}) if isinstance(told, Mapping) else told


def join(records: Sequence[Record]) -> Iterator[Record | Unused]:
    """The span with its ``evaluations`` by name; by the response's id only where there are any."""
    spans = [record for record in records if "evaluation" not in record.values]
    found = {str(r.values["evaluation"]): r.values["score"] for r in records if "evaluation" in r.values}
    if not spans:
        for record in records:
            yield Unused(
                record.line, "is an evaluation of a span that is not in the files", record.values["evaluation"]
            )
        return
    for span in spans[:-1]:
        yield Unused(span.line, "is a span that comes again")
    if found or "again" not in spans[-1].values:
        yield spans[-1]._replace(values={**spans[-1].values, "evaluations": found})


IMPORTER = Importer(
    read,
    {
        "query_id": ("traceId",),
        "tier": ("gen_ai.request.model", "gen_ai.response.model"),
        "correct": ("evaluations.correctness", "evaluations.Correctness"),
        "confidence": ("evaluations.confidence", "evaluations.Confidence"),
        "cost": ("gen_ai.usage.cost",),
    },
    join,
)
"""A trace is a query; prices are in no convention, but some instrumentations write them."""
