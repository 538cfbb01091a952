"""OpenTelemetry: spans of models and ``gen_ai.evaluation.result`` events, as OTLP JSON has them, one request a line.

Source: OTLP/JSON (opentelemetry-proto 1.x), semantic conventions for generative AI (events, spans), in development.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused, moment

__all__ = ["IMPORTER"]

_EVENT = ("gen_ai.evaluation.result", "event.gen_ai.evaluation.result")
_ANSWERS = ("chat", "text_completion", "generate_content")
_LABELS = {"pass": 1.0, "fail": 0.0, "correct": 1.0, "incorrect": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_LARGE = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions")


def read(source: Source) -> Iterator[Record | Unused]:
    """Spans and evaluations, each by the id of the model's response, or where it has none by its span."""
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
    if "error.type" in told or _failed(span.get("status")):
        yield Unused(line, "is a call that failed", told.get("error.type"))
        return
    values = {**{name: part for name, part in told.items() if name not in _LARGE}, "traceId": trace, "spanId": own}
    response = told.get("gen_ai.response.id")
    yield Record(line, values, _key(response, trace, own), _time(span, "startTimeUnixNano"))


def _failed(status: Any) -> bool:
    return isinstance(status, Mapping) and status.get("code") in (2, "STATUS_CODE_ERROR")


def _key(response: Any, trace: Any, span: Any) -> str:
    """What the first join goes by; the second goes by the span of an answer."""
    return f"response {response}" if response else f"of {trace} {span}"


def _time(part: Mapping[str, Any], *names: str) -> float:
    """In seconds, of nanoseconds in numbers or texts; 0 where there is none."""
    for name in names:
        with suppress(TypeError, ValueError):
            return moment(int(part.get(name) or "") / 1e9)
    return 0.0


def _event(line: int, event: Mapping[str, Any], trace: Any, span: Any) -> Iterator[Record | Unused]:
    told = _attributes(event)
    name = event.get("eventName") or event.get("name") or told.get("event.name")
    if name not in _EVENT:
        yield Unused(line, "is an event that is no evaluation", name)
        return
    score, label = told.get("gen_ai.evaluation.score.value"), told.get("gen_ai.evaluation.score.label")
    score = _LABELS.get(str(label).lower(), label) if score is None else score
    response = told.get("gen_ai.response.id")
    values = {"evaluation": told.get("gen_ai.evaluation.name"), "score": score, "response": response}
    if response or (trace and span):
        values |= {"traceId": trace, "spanId": span}
        time = _time(event, "timeUnixNano", "observedTimeUnixNano")
        yield Record(line, values, _key(response, trace, span), time)
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
    """First every evaluation is given to the span whose response it names, or to its own where that response is not
    there; then spans have their ``evaluations`` by name."""
    if (records[0].key or "").startswith("span "):
        yield from _evaluated(records)
        return
    spans = {_span_key(record): record for record in records if not _is_evaluation(record)}
    last = max(spans.values(), key=lambda span: (span.time, span.line), default=None)
    for record in records:
        own = _span_key(record)
        if _is_evaluation(record) and last is not None and own not in spans:
            yield record._replace(key=_span_key(last))
        elif not _is_evaluation(record) or (record.values["traceId"] and record.values["spanId"]):
            yield record._replace(key=own)
        else:
            yield _lost(record)


def _evaluated(records: Sequence[Record]) -> Iterator[Record | Unused]:
    found: dict[str, Record] = {}
    span: Record | None = None
    for record in sorted(records, key=lambda record: record.time):
        if not _is_evaluation(record):
            if span is not None:
                yield Unused(span.line, "is a span that comes again")
            span = record
    for record in sorted(filter(_is_evaluation, records), key=lambda record: record.time):
        name, response = str(record.values["evaluation"]), record.values["response"]
        if span is None or (response and span.values.get("gen_ai.response.id") not in (None, response)):
            yield _lost(record)
            continue
        if name in found:
            yield Unused(found[name].line, "is an evaluation that comes again, and the last one counts", name)
        found[name] = record
    if span is not None:
        told = {name: record.values["score"] for name, record in found.items()}
        yield span._replace(values={**span.values, "evaluations": told})


def _is_evaluation(record: Record) -> bool:
    return "evaluation" in record.values


def _span_key(record: Record) -> str:
    return f"span {record.values['traceId']} {record.values['spanId']}"


def _lost(evaluation: Record) -> Unused:
    return Unused(evaluation.line, "is an evaluation of no answer in the files", evaluation.values["evaluation"])


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
