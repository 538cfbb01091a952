"""Our own decision log, and the labels that were found for its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from metaverify.simulators.decisions import request_rows
from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused
from metaverify.simulators.steps import ENDS

__all__ = ["IMPORTER"]

_NEEDED = ("key", "step", "action", "tier", "reading", "confidence", "cost", "propensity", "reason")
_LABEL = ("query_id", "tier", "correct")


def read(source: Source) -> Iterator[Record | Unused]:
    """Steps by their requests, and labels: rows of ``query_id``, ``tier``, ``correct`` in a table of any kind."""
    for found in source.records():
        if isinstance(found, Unused):
            yield found
        elif all(name in found.values for name in _NEEDED):
            key = found.values["key"]
            yield Unused(found.line, "is of a request without a key") if key is None else found._replace(key=str(key))
        elif all(name in found.values for name in _LABEL):
            yield found._replace(key=str(found.values["query_id"]))
        else:
            yield Unused(found.line, "is neither a step of a decision log nor a label")


def join(records: Sequence[Record]) -> Iterator[Record | Unused]:
    """The answers of a request with their labels; of a key that came several times the last whole request counts."""
    labels: dict[str, Record] = {}
    for record in records:
        if "step" not in record.values:
            tier = str(record.values["tier"])
            if tier in labels:
                yield Unused(labels[tier].line, "is a label that comes again, and the last one counts", tier)
            labels[tier] = record
    steps = sorted((r for r in records if "step" in r.values), key=lambda r: _time(r.values))
    runs = _runs(steps)
    whole = [run for run in runs if _is_whole(run)]
    last = whole[-1] if whole else []
    for run in runs:
        if run is not last:
            why = "is of a request whose key came again" if _is_whole(run) else "is of a request cut short"
            yield from (Unused(record.line, why) for record in run)
    try:
        rows = list(request_rows(last[0].key or "", [record.values for record in last])) if last else []
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        yield Unused(last[0].line, "is a request that does not read as one", error)
        return
    if any(row["propensity"] is None for row in rows):
        yield Unused(last[0].line, "is a request that a guard moved to a cheaper graph, with no propensity")
        return
    bought = {row["tier"] for row in rows if row["cost"] is not None}
    for tier, label in labels.items():
        if tier not in bought:
            yield Unused(label.line, "is a label of an answer that was not bought", tier)
    for row in rows:
        known = labels[row["tier"]].values if row["tier"] in labels and row["tier"] in bought else {}
        own = {name: known[name] for name in ("correct", "label_propensity") if name in known}
        yield Record(last[0].line, {**row, **own})


def _runs(steps: Sequence[Record]) -> list[Sequence[Record]]:
    """The steps of one key, in order, by the requests that they belong to."""
    ended = [True, *(step.values["action"] in ENDS for step in steps)]
    begins = [at for at, step in enumerate(steps) if ended[at] or step.values["step"] == 0]
    return [steps[begin:end] for begin, end in pairwise([*begins, len(steps)])]


def _is_whole(run: Sequence[Record]) -> bool:
    """Whether the steps of a request are all there."""
    numbers = [record.values["step"] for record in run]
    return numbers == [*range(len(run))] and run[-1].values["action"] in ENDS


def _time(step: Any) -> float:
    time = step.get("time")
    return float(time) if isinstance(time, int | float) else 0.0


IMPORTER = Importer(
    read,
    {name: (name,) for name in ("query_id", "tier", "reading", "confidence", "verify_cost", "cost", "propensity")}
    | {name: (name,) for name in ("correct", "label_propensity", "context")},
    join,
    form="long",
)
"""A partial log: what was bought, how likely that was, and what was right."""
