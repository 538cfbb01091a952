"""A reader that knows only the file: what a policy's JSON says to do, without any code of the library."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

Document = dict[str, Any]


def canonical(value: Any) -> str:
    """The canonical text of JSON: sorted keys and no space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def identity(document: Mapping[str, Any]) -> str:
    """The id that a document's content has."""
    body = canonical({key: value for key, value in document.items() if key != "id"})
    return "sha256:" + hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def sealed(document: Mapping[str, Any]) -> bytes:
    """The document as a file, with the id that its content has."""
    return json.dumps({**document, "id": identity(document)}).encode()


def labelled(document: dict[str, Any], context: Any) -> str | None:
    """The label of a context, from the file alone; no value here has a "/" or a backslash."""
    if not isinstance(context, dict):
        return None if context is None else str(context)
    words = []
    for column in document["context"]:
        value, cuts = context[column], document.get("context_cuts", {}).get(column)
        if cuts is None:
            words.append(str(value))
        elif not isinstance(value, int | float) or abs(value) >= 10**309:
            words.append(f"{column} missing")
        else:
            below = [f"{cut:g}" for cut in cuts if cut <= value]
            above = [f"{cut:g}" for cut in cuts if cut > value]
            if not below:
                words.append(f"{column}<{above[0]}")
            else:
                words.append(f"{below[-1]}<={column}<{above[0]}" if above else f"{column}>={below[-1]}")
    return "/".join(words)


def drawn(document: dict[str, Any], key: str | int) -> int:
    """The vertex of a request, from the file alone."""
    point = document["operating_point"]
    if point["low"] == point["high"]:
        return int(point["low"])
    digest = hashlib.blake2b(str(key).encode(), digest_size=7, key=document["salt"].encode()).hexdigest()
    return int(point["high"] if int(digest, 16) / 2**56 < point["share"] else point["low"])


def started(vertex: dict[str, Any], down: Collection[str]) -> dict[str, Any]:
    """What says where a vertex begins while these tiers are down: the vertex itself, or one of its outages."""
    covering = [outage for outage in vertex.get("outages", []) if {*down} <= {*outage["without"]}]
    return min(covering, key=lambda outage: len(outage["without"])) if down else vertex


def followed(document: dict[str, Any], root: int, readings: dict[str, Any]) -> dict[str, Any]:
    """The action from a root, from the file alone."""
    listed = {tier["name"]: {reading["name"]: reading for reading in tier["readings"]} for tier in document["tiers"]}
    at = root
    while True:
        node = document["nodes"][at]
        if "call" in node:
            if node["call"] not in readings:
                return {"action": "call", "tier": node["call"]}
            at = node["then"]
        elif "read" in node:
            of = listed[node["of"]]
            given = readings.get(node["of"], {})
            by_name = given if isinstance(given, dict) else {next(iter(of)): given}
            parts = [] if node["read"] in by_name else of[node["read"]].get("parts", [])
            for name in [part["of"] for part in parts] or [node["read"]]:
                if name not in by_name:
                    return {"action": "verify", "tier": node["of"], "reading": name}
            confidence = scored(parts, by_name) if parts else by_name[node["read"]]
            if confidence is not None and "votes" in of[node["read"]]:
                (yes, asked), most = confidence, of[node["read"]]["votes"]
                if asked < most:
                    return {"action": "verify", "tier": node["of"], "reading": node["read"]}
                confidence = math.floor(yes * most / asked + 0.5) / most
            if confidence is None or not 0 <= confidence <= 1:
                at = node["missing"]
            else:
                at = node["then"][len([cut for cut in node["cuts"] if cut <= confidence])]
        elif "poll" in node:
            given = readings.get(node["of"], {})
            by_name = given if isinstance(given, dict) else {next(iter(listed[node["of"]])): given}
            tally = by_name.get(node["poll"], [0, 0])
            after: int | None = node["missing"]
            if tally is not None:
                (yes, asked), most = tally, len(node["tallies"])
                if asked > most:
                    yes, asked = math.floor(yes * most / asked + 0.5), most
                row = node["tallies"][asked - 1] if asked else {"cuts": [], "then": [None]}
                after = row["then"][len([cut for cut in row["cuts"] if cut <= yes])]
            if after is None:
                return {"action": "verify", "tier": node["of"], "reading": node["poll"]}
            at = after
        elif "accept" in node:
            return {"action": "accept", "tier": node["accept"]}
        else:
            return {"action": "abstain"}


def scored(parts: list[dict[str, Any]], by_name: dict[str, Any]) -> float:
    """The score that fused readings add up to."""
    score = 0.0
    for part in parts:
        confidence = by_name[part["of"]]
        known = confidence is not None and 0 <= confidence <= 1
        score += part["points"][len([c for c in part["cuts"] if c <= confidence])] if known else part["missing"]
    return min(score, 1.0)
