"""LiteLLM's StandardLoggingPayload, one JSON object a call, as its loggers write it to files and buckets."""

from __future__ import annotations

from collections.abc import Iterator

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused, moment

__all__ = ["IMPORTER"]

_COMPLETIONS = ("completion", "text_completion", "responses", "anthropic_messages", "generate_content")


def read(source: Source) -> Iterator[Record | Unused]:
    """The completions that succeeded."""
    for found in source.records():
        if isinstance(found, Record):
            kind = str(found.values.get("call_type") or "completion")
            if found.values.get("status", "success") != "success":
                found = Unused(found.line, "is a call that failed", found.values.get("error_str"))
            elif kind.removeprefix("a").removesuffix("_stream") not in (*_COMPLETIONS, "nthropic_messages"):
                found = Unused(found.line, "is no completion", kind)
            else:
                found = found._replace(time=moment(found.values.get("startTime")))
        yield found


IMPORTER = Importer(
    read,
    {"query_id": ("trace_id",), "tier": ("model_group", "model"), "cost": ("response_cost",)},
)
"""Confidence and correctness stand where the caller put them, so they are mapped."""
