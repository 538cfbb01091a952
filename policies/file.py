"""The policy file: one canonical JSON document, read strictly and written atomically."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.graph import Ask, GraphError, Node, Read, Stop
from metaverify.policies.policy import Belief, OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier

__all__ = [
    "PolicyFileError",
    "dump_policy",
    "load_policy",
    "parse_policy",
    "policy_id",
    "save_policy",
    "write_atomically",
]

FORMAT = "metaverify-policy"
VERSION = 1
SIZE_LIMIT = 1 << 20
DEPTH_LIMIT = 12


class PolicyFileError(ValueError):
    """A policy file that is refused: a stable ``code``, the ``place`` in the document, and the way out."""

    def __init__(self, code: str, place: str, message: str) -> None:
        super().__init__(f"{code} at {place}: {message}" if place else f"{code}: {message}")
        self.code = code
        self.place = place


# ---------------------------------------------------------------------------------------------------- writing


def policy_id(policy: Policy) -> str:
    """The policy's id: the SHA-256 of its canonical body."""
    return _identify(_encode(policy))


def dump_policy(policy: Policy) -> str:
    """The policy as the text of its file: sorted keys, one node a line, the same text for the same policy."""
    body = _encode(policy)
    document = {**body, "id": _identify(body)}
    lines = [f" {json.dumps(key)}: {_layout(document[key])}" for key in sorted(document)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def save_policy(policy: Policy, path: str | os.PathLike[str]) -> str:
    """Write the policy file and return its id; a reader sees the old file or the new one, whole."""
    write_atomically(path, dump_policy(policy).encode())
    return policy_id(policy)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Put ``data`` at ``path`` in one step: a synced temporary file beside it, renamed over it."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _identify(body: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(_canonical(body).encode()).hexdigest()


def _layout(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join("  " + _canonical(item) for item in value) + "\n ]"
    return _canonical(value)


def _encode(policy: Policy) -> dict[str, Any]:
    point = policy.point
    return {
        "format": FORMAT,
        "version": VERSION,
        "salt": policy.salt,
        "context": list(policy.context),
        "abstain": policy.abstain,
        "tiers": [_encode_tier(tier) for tier in policy.tiers],
        "nodes": [_encode_node(node, policy.beliefs.get(at)) for at, node in enumerate(policy.nodes)],
        "vertices": [
            {
                "price": vertex.price,
                "cost": vertex.cost,
                "quality": vertex.quality,
                "root": vertex.root,
                "context_roots": dict(vertex.context_roots),
            }
            for vertex in policy.vertices
        ],
        "operating_point": {"low": point.low, "high": point.high, "share": point.share, "budget": point.budget},
        "evidence": dict(policy.evidence),
        "provenance": dict(policy.provenance),
    }


def _encode_tier(tier: Tier) -> dict[str, Any]:
    readings = [
        {"name": r.name, "price": r.price, "cuts": list(r.cuts), "counts": list(r.counts)} for r in tier.readings
    ]
    return {"name": tier.name, "price": tier.price, "readings": readings}


def _encode_node(node: Node, beliefs: tuple[Belief, ...] | None) -> dict[str, Any]:
    match node:
        case Stop(Accept(tier)):
            return {"accept": tier}
        case Stop(_):
            return {"abstain": True}
        case Ask(tier, then):
            return {"call": tier, "then": then}
        case Read(tier, reading, cuts, then, missing):
            body = {"read": reading, "of": tier, "cuts": list(cuts), "then": list(then), "missing": missing}
            if beliefs is not None:
                body["beliefs"] = [[b.share, list(b.quality), list(b.worth)] for b in beliefs]
            return body


# ---------------------------------------------------------------------------------------------------- reading


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy file.

    Raises:
        PolicyFileError: anything unknown, missing, duplicate, not finite, out of range, cyclic, unreachable, too
            large, or with a wrong id.
    """
    file = Path(path)
    try:
        if not file.is_file():
            reason = "is not a file" if file.exists() else "does not exist"
            raise PolicyFileError("E_NOTFILE", str(path), f"{reason}; `metaverify fit LOG -o FILE` writes one")
        with file.open("rb") as stream:
            data = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise PolicyFileError("E_NOTFILE", str(path), f"cannot be read: {error.strerror or error}") from error
    try:
        return parse_policy(data)
    except PolicyFileError as error:
        place = f"{path} {error.place}".strip()
        raise PolicyFileError(error.code, place, str(error).partition(": ")[2]) from None


def parse_policy(data: bytes) -> Policy:
    """A policy from the bytes of its file; raises as `load_policy`."""
    if not data.strip():
        raise PolicyFileError("E_EMPTY", "", "the file is empty; export the policy again")
    if len(data) > SIZE_LIMIT:
        raise PolicyFileError("E_SIZE", "", f"larger than {SIZE_LIMIT:,} bytes; no policy is")
    document = _parse_json(data)
    top = _Object(document, "document")
    if top.text("format") != FORMAT:
        top.fail("E_SCHEMA", "format", f"is {document['format']!r}, not {FORMAT!r}: not a policy file")
    version = top.whole("version")
    if version != VERSION:
        top.fail("E_VERSION", "version", f"is {version}; this metaverify reads version {VERSION}")
    claimed = top.text("id")
    body = {key: value for key, value in document.items() if key != "id"}
    if claimed != _identify(body):
        top.fail("E_CHECKSUM", "id", "does not match the content: the file was damaged or edited; export it again")
    return _decode(top)


def _parse_json(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyFileError("E_ENCODING", f"byte {error.start}", "is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise PolicyFileError("E_ENCODING", "byte 0", "is a byte-order mark; save the file without one")
    _check_depth(text)
    try:
        document = json.loads(
            text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise PolicyFileError("E_SYNTAX", place, f"{error.msg}; truncated? export the policy again") from None
    if not isinstance(document, dict):
        raise PolicyFileError("E_SCHEMA", "document", "is not a JSON object")
    return document


def _check_depth(text: str) -> None:
    depth, quoted, escaped = 0, False, False
    for letter in text:
        if quoted:
            quoted, escaped = escaped or letter != '"', not escaped and letter == "\\"
        elif letter == '"':
            quoted = True
        elif letter in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise PolicyFileError("E_DEPTH", "", f"nested deeper than {DEPTH_LIMIT} levels")
        elif letter in "]}":
            depth -= 1


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise PolicyFileError("E_DUPKEY", repr(twice), "stands twice in one object")
    for text in (*keys, *(value for _, value in pairs if isinstance(value, str))):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise PolicyFileError("E_ENCODING", repr(text), "has a lone surrogate")
    return dict(pairs)


def _no_constants(name: str) -> NoReturn:
    raise PolicyFileError("E_NONFINITE", name, "is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_constants(text)
    return value


def _whole(text: str) -> int:
    if len(text) > 19:
        raise PolicyFileError("E_RANGE", text[:24], "is too large a whole number")
    return int(text)


class _Object:
    """One JSON object under inspection: every key is asked for by name and type, then none may be left."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise PolicyFileError("E_TYPE", place, f"is {_kind(value)}, not an object")
        self.value = value
        self.place = place
        self._left = set(value)

    def fail(self, code: str, key: str, message: str) -> NoReturn:
        raise PolicyFileError(code, f"{self.place}.{key}", message)

    def get(self, key: str) -> Any:
        if key not in self.value:
            self.fail("E_SCHEMA", key, "is missing")
        self._left.discard(key)
        return self.value[key]

    def has(self, key: str) -> bool:
        return key in self.value

    def end(self, known: Iterable[str] = ()) -> None:
        for key in sorted(self._left - set(known)):
            self.fail("E_SCHEMA", key, "is not a known key")

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            self.fail("E_TYPE", key, f"is {_kind(value)}, not text")
        return value

    def whole(self, key: str, high: int | None = None) -> int:
        value = self.get(key)
        if type(value) is not int:
            self.fail("E_TYPE", key, f"is {_kind(value)}, not a whole number")
        if value < 0 or (high is not None and value >= high):
            self.fail("E_RANGE", key, f"is {value}, outside 0 .. {'' if high is None else high - 1}")
        return value

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        return _number(self.get(key), f"{self.place}.{key}", low, high)

    def numbers(self, key: str, low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
        return tuple(_number(v, f"{self.place}.{key}[{i}]", low, high) for i, v in enumerate(self.array(key)))

    def wholes(self, key: str) -> tuple[int, ...]:
        for i, value in enumerate(self.array(key)):
            if type(value) is not int:
                self.fail("E_TYPE", f"{key}[{i}]", f"is {_kind(value)}, not a whole number")
            if value < 0:
                self.fail("E_RANGE", f"{key}[{i}]", f"is {value}, below 0")
        return tuple(self.value[key])

    def texts(self, key: str) -> tuple[str, ...]:
        for i, value in enumerate(self.array(key)):
            if not isinstance(value, str):
                self.fail("E_TYPE", f"{key}[{i}]", f"is {_kind(value)}, not text")
        return tuple(self.value[key])

    def array(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list):
            self.fail("E_TYPE", key, f"is {_kind(value)}, not an array")
        return value

    def objects(self, key: str) -> list[_Object]:
        return [
            _Object(item, f"{self.place}.{key}[{i}]".removeprefix("document."))
            for i, item in enumerate(self.array(key))
        ]

    def object(self, key: str) -> _Object:
        return _Object(self.get(key), f"{self.place}.{key}".removeprefix("document."))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")


def _number(value: Any, place: str, low: float, high: float) -> float:
    if type(value) not in (int, float):
        raise PolicyFileError("E_TYPE", place, f"is {_kind(value)}, not a number")
    if not low <= value <= high:
        raise PolicyFileError("E_RANGE", place, f"is {value}, outside [{low:g}, {high:g}]")
    return float(value)


def _decode(top: _Object) -> Policy:
    tiers = tuple(_decode_tier(item) for item in top.objects("tiers"))
    if not tiers or len({tier.name for tier in tiers}) < len(tiers):
        top.fail("E_SCHEMA", "tiers", "has no tier, or two of one name")
    nodes: list[Node] = []
    beliefs: dict[int, tuple[Belief, ...]] = {}
    for at, item in enumerate(top.objects("nodes")):
        nodes.append(_decode_node(item, len(tiers), at, beliefs))
    vertices = tuple(_decode_vertex(item) for item in top.objects("vertices"))
    if not vertices:
        top.fail("E_SCHEMA", "vertices", "is empty")
    _check_order(top, vertices)
    point = _decode_point(top.object("operating_point"), len(vertices))
    salt, context = top.text("salt"), top.texts("context")
    abstain = None if top.get("abstain") is None else top.number("abstain", 0.0, 1.0)
    if len(salt.encode()) > 64:
        top.fail("E_RANGE", "salt", "is longer than 64 bytes")
    evidence, provenance = top.object("evidence").value, top.object("provenance").value
    top.end()
    try:
        return Policy(tiers, tuple(nodes), vertices, point, salt, context, abstain, beliefs, evidence, provenance)
    except GraphError as error:
        raise PolicyFileError("E_ACTION", error.place, error.message) from None


def _decode_tier(item: _Object) -> Tier:
    readings = []
    for r in item.objects("readings"):
        cuts, counts = r.numbers("cuts", 0.0, 1.0), r.wholes("counts")
        if any(not low < high for low, high in pairwise(cuts)):
            r.fail("E_RANGE", "cuts", "do not rise")
        if len(counts) != len(cuts) + 2:
            r.fail("E_SCHEMA", "counts", f"has {len(counts)} entries for {len(cuts)} cuts, not {len(cuts) + 2}")
        readings.append(Reading(r.text("name"), r.number("price", 0.0), cuts, counts))
        r.end()
    if len({reading.name for reading in readings}) < len(readings):
        item.fail("E_SCHEMA", "readings", "has two of one name")
    tier = Tier(item.text("name"), item.number("price", 0.0), tuple(readings))
    item.end()
    return tier


def _decode_node(item: _Object, tiers: int, at: int, beliefs: dict[int, tuple[Belief, ...]]) -> Node:
    node: Node
    if item.has("accept"):
        node = Stop(Accept(item.text("accept")))
    elif item.has("abstain"):
        if item.get("abstain") is not True:
            item.fail("E_TYPE", "abstain", "is not true")
        node = Stop(Abstain())
    elif item.has("call"):
        node = Ask(item.text("call"), item.whole("then"))
    elif item.has("read"):
        cuts, then = item.numbers("cuts", 0.0, 1.0), item.wholes("then")
        node = Read(item.text("of"), item.text("read"), cuts, then, item.whole("missing"))
        if item.has("beliefs"):
            beliefs[at] = _decode_beliefs(item, tiers, len(then) + 1)
    else:
        item.fail("E_SCHEMA", "*", "is none of accept, abstain, call, read")
    item.end()
    return node


def _decode_beliefs(item: _Object, tiers: int, outcomes: int) -> tuple[Belief, ...]:
    rows = item.array("beliefs")
    if len(rows) != outcomes:
        item.fail("E_SCHEMA", "beliefs", f"has {len(rows)} rows, not one for each of {outcomes} outcomes")
    beliefs = []
    for i, row in enumerate(rows):
        place = f"{item.place}.beliefs[{i}]"
        if not (
            isinstance(row, list) and len(row) == 3 and all(isinstance(x, list) and len(x) == tiers for x in row[1:])
        ):
            raise PolicyFileError("E_SCHEMA", place, "is not [share, a quality a tier, a worth a tier]")
        share = _number(row[0], place, 0.0, 1.0)
        quality = tuple(_number(value, place, 0.0, 1.0) for value in row[1])
        worth = tuple(None if value is None else _number(value, place, -math.inf, math.inf) for value in row[2])
        beliefs.append(Belief(share, quality, worth))
    return tuple(beliefs)


def _decode_vertex(item: _Object) -> Vertex:
    roots = item.object("context_roots")
    vertex = Vertex(
        item.number("price", 0.0),
        item.number("cost", 0.0),
        item.number("quality", 0.0, 1.0),
        item.whole("root"),
        {label: roots.whole(label) for label in sorted(roots.value)},
    )
    item.end()
    return vertex


def _check_order(top: _Object, vertices: tuple[Vertex, ...]) -> None:
    contexts = vertices[0].context_roots.keys()
    for at, (vertex, after) in enumerate(pairwise(vertices), start=1):
        if not vertex.cost < after.cost:
            top.fail("E_RANGE", f"vertices[{at}].cost", "is not above the one before")
        if after.context_roots.keys() != contexts:
            top.fail("E_SCHEMA", f"vertices[{at}].context_roots", "names other contexts than the first vertex")


def _decode_point(item: _Object, vertices: int) -> OperatingPoint:
    budget = None if item.get("budget") is None else item.number("budget", 0.0)
    low, high = item.whole("low", vertices), item.whole("high", vertices)
    if not low <= high <= low + 1:
        item.fail("E_RANGE", "high", f"is {high}, neither {low} nor the next one")
    point = OperatingPoint(low, high, item.number("share", 0.0, 1.0), budget)
    item.end()
    return point
