"""RouterBench's wide table: a column of scores for each model, and one of its prices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused

__all__ = ["IMPORTER"]

_COST = "|total_cost"


def read(source: Source) -> Iterator[Record | Unused]:
    """The rows; ``<model>`` is what was correct and ``<model>|total_cost`` what it cost."""
    models: list[str] = []
    for found in source.records():
        if isinstance(found, Unused):
            yield found
            continue
        row = found.values
        models = models or [name.removesuffix(_COST) for name in row if name.endswith(_COST)]
        if not models:
            yield Unused(found.line, f"has no column <model>{_COST}")
            continue
        values: dict[str, Any] = {
            name: row[name] for name in row if "|" not in name and name not in (*models, "sample_id")
        }
        values["query_id"] = row.get("sample_id")
        for model in models:
            values[f"correct_{model}"], values[f"cost_{model}"] = row.get(model), row[model + _COST]
            if values[f"correct_{model}"] in (None, ""):
                values[f"cost_{model}"] = None
        yield Record(found.line, values)


IMPORTER = Importer(read, {"eval_name": ("eval_name",)}, own=True, whole=True)
"""There are no confidences; answers that were not scored are none."""
