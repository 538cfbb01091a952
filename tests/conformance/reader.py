"""A reference reader of policy files: docs/policy-format.md and nothing else."""

from __future__ import annotations

import json
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from math import ceil, inf, isfinite, isnan
from typing import Any

FORMAT = "metaverify-policy"
LARGEST_FILE = 2**20
DEEPEST = 12
SLACK = 1e-9

Object = dict[str, Any]
Action = dict[str, str]
Check = Callable[[Any], bool]
Known = dict[str, dict[str, Any]]


class Refused(ValueError):  # noqa: N818
    """What a reader must not decide, with the reason in a word."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


# --- the bytes of a document ---


def _once(pairs: list[tuple[str, Any]]) -> Object:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise Refused("E_DUPKEY", "a key twice in an object")
    return keys


def _decimal(text: str) -> float:
    if not isfinite(number := float(text)):
        raise Refused("E_NONFINITE", f"{text} is no finite double")
    return number


def _constant(text: str) -> float:
    raise Refused("E_NONFINITE", f"{text} is no JSON")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def parse(data: bytes) -> Any:
    """The JSON of `data`: UTF-8 without a byte-order mark, within the limits of size and depth."""
    if len(data) > LARGEST_FILE:
        raise Refused("E_SIZE", "more than 1 MiB")
    try:
        text = data.decode()
        if text.startswith("\ufeff"):
            raise Refused("E_ENCODING", "a byte-order mark")
        value = json.loads(text, object_pairs_hook=_once, parse_float=_decimal, parse_constant=_constant)
        if _depth(value) > DEEPEST:
            raise Refused("E_DEPTH", f"nested more than {DEEPEST} deep")
        canonical(value).encode()  # a lone surrogate has no bytes
    except Refused:
        raise
    except UnicodeError as error:
        raise Refused("E_ENCODING", str(error)) from error
    except RecursionError as error:
        raise Refused("E_DEPTH", str(error)) from error
    except ValueError as error:
        raise Refused("E_SYNTAX", str(error)) from error
    return value


def canonical(value: Any) -> str:
    """The text whose UTF-8 the id is a checksum of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def identity(document: Object) -> str:
    """The id that `document` has to have."""
    body = {key: value for key, value in document.items() if key != "id"}
    return "sha256:" + sha256(canonical(body).encode()).hexdigest()


# --- the shape of a document ---


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _salt(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode()) <= 64


def _id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("sha256:[0-9a-f]{64}", value) is not None


def _free(value: Any) -> bool:
    return isinstance(value, dict)


def _exactly(what: Any) -> Check:
    return lambda value: type(value) is type(what) and value == what


def _whole(low: int = 0, high: int = 2**63 - 1) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float = -sys.float_info.max, high: float = sys.float_info.max) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def _each(check: Check, least: int = 0) -> Check:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(check, value))


def _map(check: Check, least: int = 0) -> Check:
    return lambda value: isinstance(value, dict) and len(value) >= least and all(map(check, value.values()))


def _record(needed: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    checks = needed | (optional or {})

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and needed.keys() <= value.keys() <= checks.keys()
            and all(checks[key](item) for key, item in value.items())
        )

    return check


_null = _exactly(None)
_amount = _number(0)
_share = _number(0, 1)
_place = _whole()
_cuts = _each(_share)
_part = _record({"of": _name, "cuts": _cuts, "points": _each(_share, 1), "missing": _share})
_histogram = {"name": _name, "price": _amount, "cuts": _cuts, "counts": _each(_whole(), 2)}
_reading = _either(
    _record(_histogram, {"votes": _whole(1, 1024), "sample": _exactly(True)}),
    _record(_histogram | {"parts": _each(_part, 1)}),
)
_answering = {"name": _name, "price": _amount, "readings": _each(_reading)}
_tier = _either(_record(_answering), _record(_answering | {"answer": _exactly(False), "needs": _each(_name)}))
_tally = _record({"cuts": _each(_whole(1)), "then": _each(_either(_place, _null), 1)})
_node = _either(
    _record({"call": _name, "then": _place}),
    _record({"read": _name, "of": _name, "cuts": _cuts, "then": _each(_place, 1), "missing": _place}),
    _record({"poll": _name, "of": _name, "tallies": _each(_tally, 1), "missing": _place}),
    _record({"accept": _name}),
    _record({"abstain": _exactly(True)}),
)
_roots = {"root": _place, "context_roots": _map(_place)}
_outage = _record({"without": _each(_name, 1)} | _roots)
_vertex = _record(
    {"price": _amount, "cost": _amount, "quality": _share, "beliefs": _free} | _roots,
    {"evidence": _free, "outages": _each(_outage, 1)},
)
_point = _record(
    {
        "low": _place,
        "high": _place,
        "share": _share,
        "budget": _either(_amount, _null),
        "price": _either(_amount, _null),
    }
)
_document = _record(
    {
        "format": _exactly(FORMAT),
        "version": _exactly(1),
        "id": _id,
        "salt": _salt,
        "context": _each(_name),
        "abstain": _either(_share, _null),
        "tiers": _each(_tier, 1),
        "nodes": _each(_node, 1),
        "vertices": _each(_vertex, 1),
        "operating_point": _point,
        "evidence": _free,
        "provenance": _free,
    },
    {
        "serial": _whole(1),
        "expires": _amount,
        "context_cuts": _map(_each(_number(), 1), 1),
        "certificate": _free,
    },
)


@dataclass(frozen=True)
class Policy:
    """A document, the operating point in use, and the tiers that are down."""

    document: Object
    low: int
    high: int
    share: float
    down: frozenset[str] = frozenset()

    @property
    def tiers(self) -> dict[str, dict[str, Object]]:
        """The readings of each tier by name, in the order they are listed."""
        return {tier["name"]: {one["name"]: one for one in tier["readings"]} for tier in self.document["tiers"]}

    @property
    def costs(self) -> list[float]:
        """The cost of each vertex."""
        return [float(vertex["cost"]) for vertex in self.document["vertices"]]


def load(data: bytes, now: float | None = None) -> Policy:
    """The policy of a file at its own operating point; that its nodes are a decision graph is taken on trust."""
    document = parse(data)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Refused("E_SCHEMA", "no policy file")
    version = document.get("version")
    if _whole()(version) and version != 1:
        raise Refused("E_VERSION", f"version {version}")
    if not _document(document):
        raise Refused("E_SCHEMA", "keys or values that a policy file does not have")
    if document["id"] != identity(document):
        raise Refused("E_CHECKSUM", "the id is not that of the document")
    if now is not None and now >= document.get("expires", inf):
        raise Refused("E_EXPIRED", "expired")
    point = document["operating_point"]
    return Policy(document, point["low"], point["high"], float(point["share"]))


# --- numbers that are given ---


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _double(value: float) -> float:
    """The nearest double, an infinity where there is none."""
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def _bin(cuts: list[float], value: float) -> int:
    """How many cuts are at most `value`."""
    return bisect_right([float(cut) for cut in cuts], value)


# --- the dial and outages ---


def at_budget(policy: Policy, budget: float) -> Policy:
    """The policy at a mean cost per query."""
    costs = policy.costs
    if not _is_number(budget) or isnan(spend := _double(budget)) or spend < costs[0] * (1 - SLACK):
        raise Refused("budget", f"no policy costs {budget}")
    above = bisect_right(costs, spend)
    if above == 0 or above == len(costs):
        only = max(above - 1, 0)
        return replace(policy, low=only, high=only, share=0.0)
    low, high = above - 1, above
    return replace(policy, low=low, high=high, share=(spend - costs[low]) / (costs[high] - costs[low]))


def at_price(policy: Policy, price: float) -> Policy:
    """The policy at a price in quality per unit of cost."""
    if not _is_number(price) or not 0 <= (rate := _double(price)) < inf:
        raise Refused("price", f"{price} is no price")
    vertices = policy.document["vertices"]
    worth = [vertex["quality"] - rate * cost for vertex, cost in zip(vertices, policy.costs, strict=True)]
    best = worth.index(max(worth))
    return replace(policy, low=best, high=best, share=0.0)


def certified(policy: Policy) -> bool:
    """Whether the file's certificate holds at the policy's operating point."""
    certificate = policy.document.get("certificate")
    if certificate is None or policy.down:
        return False
    cost = (1 - policy.share) * policy.costs[policy.low] + policy.share * policy.costs[policy.high]
    if certificate["promise"] == "expected quality":
        return bool(cost >= (1 - SLACK) * certificate["cost"])
    return bool(cost <= (1 + SLACK) * certificate["cost"])


def without(policy: Policy, *tiers: str) -> Policy:
    """The policy while these tiers are down, and no others."""
    down = replace(policy, down=frozenset(tiers))
    _begin(down, policy.document["vertices"][policy.low])
    return down


def _begin(policy: Policy, vertex: Object) -> Object:
    """What has the roots of a vertex: itself, or its outage for the tiers that are down."""
    if not policy.down:
        return vertex
    if not policy.down <= policy.tiers.keys():
        raise Refused("outage", "no such tier")
    covers: list[Object] = [one for one in vertex.get("outages", []) if policy.down <= set(one["without"])]
    if not covers:
        raise Refused("outage", f"no outage without {sorted(policy.down)}")
    return min(covers, key=lambda one: len(one["without"]))


def draw(salt: str, key: object) -> int:
    """The hash of a request's key, 56 bits."""
    if isinstance(key, str) or _is_whole(key):
        try:
            data = str(key).encode()
        except UnicodeEncodeError as error:
            raise Refused("key", "a lone surrogate") from error
    elif isinstance(key, bytes):
        data = key
    else:
        raise Refused("key", "neither text nor a whole number nor bytes")
    return int.from_bytes(blake2b(data, digest_size=7, key=salt.encode()).digest(), "big")


def limit(share: float) -> int:
    """Below which draws go to the high vertex."""
    return ceil(share * 2.0**56)


def _place_of(policy: Policy, key: object) -> int:
    """Which vertex a request takes."""
    if policy.low == policy.high or policy.share == 0:
        return policy.low
    if policy.share == 1:
        return policy.high
    return policy.high if draw(policy.document["salt"], key) < limit(policy.share) else policy.low


# --- contexts ---

DECIMAL = re.compile(r"[ \t\n\r\f\v]*([+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?)[ \t\n\r\f\v]*")


def _measure(value: object) -> float | None:
    """The number of a column with cuts, None where it is missing."""
    if isinstance(value, str):
        decimal = DECIMAL.fullmatch(value)
        value = float(decimal[1]) if decimal else None
    if not isinstance(value, int | float):
        return None
    return number if isfinite(number := _double(value)) else None


def _word(column: str, value: object, cuts: list[float] | None) -> str:
    if cuts is None:
        return _plain_word(column, value)
    number = _measure(value)
    if number is None:
        return f"{column} missing"
    written = [canonical(cut).removesuffix(".0") for cut in cuts]
    place = _bin(cuts, number)
    if place == 0:
        return f"{column}<{written[0]}"
    if place == len(cuts):
        return f"{column}>={written[-1]}"
    return f"{written[place - 1]}<={column}<{written[place]}"


def _plain_word(column: str, value: object) -> str:
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return canonical(value)
    raise Refused("context", f"{column} is no plain value")


def label(policy: Policy, context: object) -> str | None:
    """The label of a context."""
    if context is None or isinstance(context, str):
        return context
    if not isinstance(context, Mapping):
        raise Refused("context", "neither null nor a label nor a mapping")
    columns, cuts = policy.document["context"], policy.document.get("context_cuts", {})
    if lacking := [column for column in columns if column not in context]:
        raise Refused("context", f"lacks {lacking}")
    words = [_word(column, context[column], cuts.get(column)) for column in columns]
    if len(words) == 1:
        return words[0]
    return "/".join(word.replace("\\", "\\\\").replace("/", "\\/") for word in words)


# --- deciding ---


def decide(policy: Policy, readings: Mapping[str, Any], context: object = None, key: object = None) -> Action:
    """What to do next with a query of which `readings` is known."""
    tiers = policy.tiers
    known = {tier: _given(tiers, tier, value) for tier, value in readings.items()}
    roots = _begin(policy, policy.document["vertices"][_place_of(policy, key)])
    at: int | Action = roots["context_roots"].get(label(policy, context), roots["root"])
    while isinstance(at, int):
        at = _step(policy.document["nodes"][at], tiers, known)
    return at


def _given(tiers: dict[str, dict[str, Object]], tier: str, value: Any) -> dict[str, Any]:
    """What is known of a tier, by reading."""
    if tier not in tiers:
        raise Refused("tier", f"no tier is named {tier}")
    if isinstance(value, Mapping):
        return dict(value)
    return dict.fromkeys(list(tiers[tier])[:1], value)


def _step(node: Object, tiers: dict[str, dict[str, Object]], known: Known) -> int | Action:
    """The node after this one, or the action that it wants."""
    match node:
        case {"accept": tier}:
            return {"action": "accept", "tier": tier}
        case {"abstain": _}:
            return {"action": "abstain"}
        case {"call": tier, "then": then}:
            return then if tier in known else {"action": "call", "tier": tier}
    tier = node["of"]
    reading = tiers[tier][node["poll"] if "poll" in node else node["read"]]
    follow = _votes if "votes" in reading else _confidence
    return follow(node, reading, tier, known.get(tier, {}))


def _verify(tier: str, reading: str) -> Action:
    return {"action": "verify", "tier": tier, "reading": reading}


def _confidence(node: Object, reading: Object, tier: str, read: dict[str, Any]) -> int | Action:
    """What a read node says to a confidence, or to a fused score."""
    name = reading["name"]
    if name in read:
        value = _checked(name, read[name])
    elif "parts" in reading:
        score = 0.0
        for part in reading["parts"]:
            if part["of"] not in read:
                return _verify(tier, part["of"])
            one = _checked(part["of"], read[part["of"]])
            score += part["missing"] if one is None else part["points"][_bin(part["cuts"], one)]
        value = min(score, 1.0)
    else:
        return _verify(tier, name)
    then: int = node["missing"] if value is None else node["then"][_bin(node["cuts"], value)]
    return then


def _checked(name: str, value: Any) -> float | None:
    """A confidence, None where it is missing."""
    if value is None:
        return None
    if not _is_number(value):
        raise Refused("reading", f"{name} is neither a number nor null")
    number = _double(value)
    return number if 0 <= number <= 1 else None


def _votes(node: Object, reading: Object, tier: str, read: dict[str, Any]) -> int | Action:
    """What a poll, or a read node of votes, says to those that are in."""
    name = reading["name"]
    more = _verify(tier, name)
    if name not in read:
        return more
    value = read[name]
    if value is None or (isinstance(value, float) and isnan(value)):
        missing: int = node["missing"]
        return missing
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_count, value))):
        raise Refused("votes", f"{name} is no pair of whole numbers")
    yes, asked = map(int, value)
    if not 0 <= yes <= asked:
        raise Refused("votes", f"{name} has {yes} yes of {asked}")
    if asked == 0:
        return more
    most = len(node["tallies"]) if "poll" in node else reading["votes"]
    if asked > most:
        yes, asked = (2 * yes * most + asked) // (2 * asked), most
    then: int | None
    if "poll" in node:
        tally = node["tallies"][asked - 1]
        then = tally["then"][_bin(tally["cuts"], yes)]
    elif asked == most:
        then = node["then"][_bin(node["cuts"], yes / most)]
    else:
        then = None
    return more if then is None else then
