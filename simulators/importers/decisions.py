"""Our own decision log, and the labels that were found for its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from metaverify.simulators.decisions import request_rows
from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused

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
    """The answers of a request with their labels; of a key that came several times the last request counts."""
    labels = {str(r.values["tier"]): r for r in records if "step" not in r.values}
    steps = sorted((r for r in records if "step" in r.values), key=lambda r: _time(r.values))
    begins = [at for at, record in enumerate(steps) if record.values["step"] == 0]
    last = steps[begins[-1] :] if begins else []
    for record in steps[: len(steps) - len(last)]:
        yield Unused(record.line, "is of a request whose key came again" if begins else "is of a request cut short")
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
