"""The jsonl of the AutoMix release (``automix_release_with_decision.jsonl``), and what its notebooks write."""

from __future__ import annotations

from collections.abc import Iterator

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused

__all__ = ["IMPORTER"]


def read(source: Source) -> Iterator[Record | Unused]:
    """The records; a query is a data set's ``id``."""
    for found in source.records():
        if isinstance(found, Record) and "id" in found.values:
            own = f"{found.values.get('dataset')}/{found.values['id']}"
            found = found._replace(values={"query_id": own, **found.values})
        yield found


IMPORTER = Importer(
    read,
    {
        "query_id": ("query_id",),
        "correct_llama13b": ("llama13b_f1",),
        "conf_llama13b": ("p_ver_13b",),
        "cost_llama13b": (1.0,),
        "verify_cost_llama13b": (1.0,),
        "correct_llama70b": ("llama70b_f1",),
        "cost_llama70b": (50.0,),
        "dataset": ("dataset",),
    },
    whole=True,
)
"""F1 is what was correct, the share of votes the confidence; the prices are those of ``automix.Automix``."""
