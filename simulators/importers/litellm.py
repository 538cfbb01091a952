"""LiteLLM's StandardLoggingPayload, one JSON object a call, as its loggers write it to files and buckets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metaverify.simulators.importers.importer import Importer
from metaverify.simulators.importers.sources import Record, Source, Unused, moment

__all__ = ["IMPORTER"]

_COMPLETIONS = ("completion", "text_completion", "responses", "anthropic_messages", "generate_content")
_NO_PRICE = "response_cost_failure_debug_info"


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
                found = Record(found.line, _told(found.values), time=moment(found.values.get("startTime")))
        yield found


def _told(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """The call as LiteLLM means it: it writes null for ``cache_hit`` where nothing was looked up, and a price of 0
    where it found none."""
    told = {**call, "cache_hit": str(call.get("cache_hit")).lower() == "true"}
    if call.get(_NO_PRICE) and not call.get("response_cost"):
        told["response_cost"] = None
    return told


IMPORTER = Importer(
    read,
    {"query_id": ("trace_id",), "tier": ("model_group", "model"), "cost": ("response_cost",)},
)
"""Confidence and correctness stand where the caller put them, so they are mapped."""
