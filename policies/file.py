"""The policy file: one canonical JSON document, read strictly and written atomically."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import reduce
from itertools import compress, pairwise
from operator import and_

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.document import (
    SIZE_LIMIT,
    Fields,
    PolicyFileError,
    check_number,
    parse_document,
    read_at_most,
    shown,
)
from metaverify.policies.graph import Ask, Graph, GraphError, Node, Poll, Read, Stop, Tally, always_next
from metaverify.policies.names import did_you_mean
from metaverify.policies.policy import Belief, OperatingPoint, Outage, Policy, Vertex, VertexEvidence
from metaverify.policies.tiers import Points, Reading, Tier

TYPE_CHECKING = False  # the module `typing` is dear to import
if TYPE_CHECKING:
    from typing import Any

    from metaverify.policies.certificate import Certificate

__all__ = [
    "PolicyFileError",
    "check_serial",
    "dump_policy",
    "load_policy",
    "parse_policy",
    "policy_id",
    "save_policy",
]

FORMAT = "metaverify-policy"
VERSION = 1
ROW = re.compile("[0-9a-f]+:[0-9a-f]+(:[0-9a-f]+)?")  # of the rows that are remembered
VOTES_LIMIT = 1 << 10
BOUGHT_LIMIT = 1 << 9  # tiers, signals and readings in all: what proofs and memory take grows with nodes times these
FAR_BELOW = 0.5  # the sum of mean prices: costs of honest files of 12 rows were found down to 0.87 of it
ROUNDING = 0.0005 + 1e-9  # shares are told to three decimals


def policy_id(policy: Policy) -> str:
    """The policy's id: the SHA-256 of its canonical body."""
    return _identify(_encode(policy))


def dump_policy(policy: Policy) -> str:
    """The policy as the text of its file: sorted keys, one node a line, the same text for the same policy."""
    body = _encode(policy)
    document = {**body, "id": _identify(body)}
    lines = [f" {json.dumps(key)}: {_layout(document[key])}" for key in sorted(document)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def save_policy(policy: Policy, path: str | os.PathLike[str], *, key: bytes | None = None) -> str:
    """Write the policy file and return its id; a reader sees the old file or the new one, whole.

    With a key its signature is written beside it (``policy.json.sig``): HMAC-SHA256 of a shared secret of at least 16
    bytes, or ed25519 where the key is the text of a PEM file, which needs the extra ``ed25519``.

    Raises:
        ImportError: the extra is not installed.
        PolicyFileError: the policy would not load again, or what is there is no file; nothing is written.
        TypeError: the key is not bytes.
        ValueError: the key is too short, or public, or none.
    """
    from metaverify.policies.storage import write_atomically  # which a router does not need

    try:
        data = dump_policy(policy).encode()
    except UnicodeEncodeError as error:
        raise PolicyFileError("E_ENCODING", repr(error.object[error.start]), "is a lone surrogate") from None
    parse_policy(data)
    write_atomically(path, data, key=key)
    return policy_id(policy)


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
        **({"serial": policy.serial} if policy.serial else {}),
        **({} if policy.expires is None else {"expires": _float(policy.expires)}),
        "context": list(policy.context),
        **_encode_cuts(policy.context_cuts),
        "abstain": None if policy.abstain is None else _float(policy.abstain),
        "tiers": [_encode_tier(tier) for tier in policy.tiers],
        "nodes": [_encode_node(node) for node in policy.nodes],
        "vertices": [
            {
                "price": _float(vertex.price),
                "cost": _float(vertex.cost),
                "quality": _float(vertex.quality),
                "root": vertex.root,
                "context_roots": dict(vertex.context_roots),
                "beliefs": {str(node): _encode_beliefs(rows) for node, rows in vertex.beliefs.items()},
                **({} if vertex.evidence is None else {"evidence": _encode_evidence(vertex.evidence)}),
                **({"outages": [_encode_outage(outage) for outage in vertex.outages]} if vertex.outages else {}),
            }
            for vertex in policy.vertices
        ],
        "operating_point": {
            "low": point.low,
            "high": point.high,
            "share": _float(point.share),
            "budget": None if point.budget is None else _float(point.budget),
            "price": None if point.price is None else _float(point.price),
        },
        "evidence": dict(policy.evidence),
        "provenance": dict(policy.provenance),
        **({} if policy.certificate is None else {"certificate": _encode_certificate(policy.certificate)}),
    }


def _encode_certificate(certificate: Certificate) -> dict[str, Any]:
    """The certificate's fields; what is usual or does not apply is left out."""
    dearest = certificate.dearest
    return {
        "promise": certificate.promise,
        "limit": _float(certificate.limit),
        "delta": _float(certificate.delta),
        "level": certificate.level,
        "method": certificate.method,
        "bound": _float(certificate.bound),
        "cost": _float(certificate.cost),
        "rows": certificate.rows,
        "groups": certificate.groups,
        "largest_group": _float(certificate.largest_group),
        **({} if dearest is None else {"dearest": _float(dearest), "dearest_from": certificate.dearest_from}),
        "looks": certificate.looks,
        **({"next": certificate.next} if certificate.next else {}),
    }


def _float(value: float) -> float:
    """A number as files have it: with a point, and no negative zero."""
    return float(value) + 0.0


def _encode_cuts(context_cuts: Mapping[str, tuple[float, ...]]) -> dict[str, Any]:
    cuts = {name: [_float(cut) for cut in cuts] for name, cuts in context_cuts.items()}
    return {"context_cuts": cuts} if cuts else {}


def _encode_tier(tier: Tier) -> dict[str, Any]:
    readings = [_encode_reading(reading) for reading in tier.readings]
    signal = {} if tier.answer else {"answer": False, "needs": list(tier.needs)}
    return {"name": tier.name, "price": _float(tier.price), "readings": readings, **signal}


def _encode_reading(reading: Reading) -> dict[str, Any]:
    body = {"name": reading.name, "price": _float(reading.price), "cuts": [_float(c) for c in reading.cuts]}
    parts = [
        {
            "of": part.reading,
            "cuts": [_float(c) for c in part.cuts],
            "points": [_float(p) for p in part.points],
            "missing": _float(part.missing),
        }
        for part in reading.parts
    ]
    votes = {"votes": reading.votes} if reading.votes else {}
    sample = {"sample": True} if reading.sample else {}
    return {**body, "counts": list(reading.counts), **({"parts": parts} if parts else {}), **votes, **sample}


def _encode_node(node: Node) -> dict[str, Any]:
    match node:
        case Stop(Accept(tier)):
            return {"accept": tier}
        case Stop(_):
            return {"abstain": True}
        case Ask(tier, then):
            return {"call": tier, "then": then}
        case Read(tier, reading, cuts, then, missing):
            cut_points = [_float(c) for c in cuts]
            return {"read": reading, "of": tier, "cuts": cut_points, "then": list(then), "missing": missing}
        case poll:
            rows = [{"cuts": list(tally.cuts), "then": list(tally.then)} for tally in poll.tallies]
            return {"poll": poll.reading, "of": poll.tier, "tallies": rows, "missing": poll.missing}


def _encode_beliefs(rows: tuple[Belief, ...]) -> list[list[Any]]:
    return [
        [_float(b.share), *([None if v is None else _float(v) for v in values] for values in (b.quality, b.worth))]
        for b in rows
    ]


def _encode_outage(outage: Outage) -> dict[str, Any]:
    return {"without": list(outage.without), "root": outage.root, "context_roots": dict(outage.context_roots)}


def _encode_evidence(evidence: VertexEvidence) -> dict[str, Any]:
    lists = {
        name: [None if value is None else _float(value) for value in values]
        for name, values in (
            ("cost", evidence.cost),
            ("quality", evidence.quality),
            ("calls", evidence.calls),
            ("accepts", evidence.accepts),
        )
    }
    return {**lists, **({} if evidence.cost_sd is None else {"cost_sd": _float(evidence.cost_sd)})}


def load_policy(
    path: str | os.PathLike[str],
    *,
    key: bytes | None = None,
    tiers: Iterable[str] | None = None,
    at_least: int = 0,
    now: float | None = None,
) -> Policy:
    """Read a policy file.

    Args:
        path: the file.
        key: what its signature beside it was made with, as in `save_policy`, or the public half of it, again the text
            of a PEM file; None asks for no signature, so take care that a key which is not set is an error.
        tiers: what the router can call and read; the file may name nothing else.
        at_least: the lowest serial that is taken, to which an older file cannot be put back.
        now: the time in seconds since 1970, as `time.time()`; without, no file is too old.

    Raises:
        PolicyFileError: anything unknown, missing, duplicate, not finite, out of range, cyclic, unreachable, too
            large, or with a wrong id; or what was asked for above is not so.  The codes are in docs/policy-file.md.
        ImportError: the key is ed25519, and the extra is not installed.
        TypeError: the key is not bytes.
        ValueError: the key is too short, or none.
    """
    try:
        out = "`metaverify fit LOG -o FILE` writes one"
        data = read_at_most(path, SIZE_LIMIT, out) if key is None else _read_signed(path, out, key)
        policy = parse_policy(data)
        _check_use(policy, tiers, at_least, now)
    except PolicyFileError as error:
        place = f"{path} {error.place}".strip()
        raise PolicyFileError(error.code, place, error.message) from error.__cause__
    return policy


def _read_signed(path: str | os.PathLike[str], way_out: str, key: bytes) -> bytes:
    from metaverify.policies.storage import read_signed  # which brings more than most routers need

    return read_signed(path, SIZE_LIMIT, way_out, key)


def _check_use(policy: Policy, tiers: Iterable[str] | None, at_least: int, now: float | None) -> None:
    known = None if tiers is None else frozenset(tiers)
    for at, tier in enumerate(policy.tiers):
        if known is not None and tier.name not in known:
            message = f"is {shown(tier.name)}, which the router does not have{did_you_mean(tier.name, known)}"
            raise PolicyFileError("E_TIERS", f"tiers[{at}].name", message)
    check_serial(policy, at_least)
    if now is not None and policy.expires is not None and not now < policy.expires:
        message = f"was {now - policy.expires:,.0f} seconds ago; export a new one"
        raise PolicyFileError("E_EXPIRED", "expires", message)


def check_serial(policy: Policy, at_least: int) -> None:
    """Make sure that a policy is no older edition than that.

    Raises:
        PolicyFileError: E_ROLLBACK.
    """
    if policy.serial < at_least:
        message = f"is {policy.serial}, before {at_least}: an older file was put back; export a new one"
        raise PolicyFileError("E_ROLLBACK", "serial", message)


def parse_policy(data: bytes) -> Policy:
    """A policy from the bytes of its file; raises as `load_policy`."""
    if not data.strip():
        raise PolicyFileError("E_EMPTY", "", "the file is empty; export the policy again")
    if len(data) > SIZE_LIMIT:
        raise PolicyFileError("E_SIZE", "", f"larger than {SIZE_LIMIT:,} bytes; no policy is")
    document = parse_document(data)
    top = Fields(document, "document")
    if "format" not in document or top.text("format") != FORMAT:
        top.fail("E_SCHEMA", "format", f"is {shown(document.get('format'))}, not {FORMAT!r}: not a policy file")
    version = top.whole("version")
    if version != VERSION:
        newer = version > VERSION
        way_out = "install a newer one, or export the policy with this one" if newer else "no other was ever written"
        top.fail("E_VERSION", "version", f"is {version}; this metaverify reads version {VERSION}: {way_out}")
    claimed = top.text("id")
    body = dict(document)
    del body["id"]
    if claimed != _identify(body):
        top.fail("E_CHECKSUM", "id", "does not match the content: the file was damaged or edited; export it again")
    policy = _decode(top)
    _check_numbers(body, _encode(policy), "document")
    return policy


def _check_numbers(found: Any, canonical: Any, place: str) -> None:
    """Make sure that every number is written as files have it, so that a policy has one id."""
    if found is canonical:  # what is carried along as it stands
        return
    if isinstance(canonical, dict):
        for key in sorted(canonical):
            _check_numbers(found[key], canonical[key], f"{place}.{key}".removeprefix("document."))
    elif isinstance(canonical, list | tuple):
        for at, (value, wanted) in enumerate(zip(found, canonical, strict=True)):
            _check_numbers(value, wanted, f"{place}[{at}]")
    elif repr(found) != repr(canonical):
        raise PolicyFileError("E_NUMBER", place, f"is {found!r}, which files have as {canonical!r}")


def _decode(top: Fields) -> Policy:
    listed = top.objects("tiers")
    if len(listed) + sum(len(item.array("readings")) for item in listed) > BOUGHT_LIMIT:
        top.fail("E_SIZE", "tiers", f"has more than {BOUGHT_LIMIT} tiers, signals and readings; keep the best of them")
    tiers = tuple(_decode_tier(item) for item in listed)
    if not tiers or len({tier.name for tier in tiers}) < len(tiers):
        top.fail("E_SCHEMA", "tiers", "has no tier, or two of one name")
    top.names("tiers", [tier.name for tier in tiers])
    if not math.isfinite(sum(tier.price + sum(reading.price for reading in tier.readings) for tier in tiers)):
        top.fail("E_RANGE", "tiers", "has prices that add up to more than any number")
    answering = {tier.name for tier in tiers if tier.answer}
    for at, tier in enumerate(tiers):
        if not answering.issuperset(tier.needs) or len(set(tier.needs)) < len(tier.needs):
            top.fail("E_SCHEMA", f"tiers[{at}].needs", "names what has no answer, or a tier twice")
    nodes = tuple(_decode_node(item) for item in top.objects("nodes"))
    vertices = tuple(_decode_vertex(item, nodes, tiers) for item in top.objects("vertices"))
    if not vertices:
        top.fail("E_SCHEMA", "vertices", "is empty")
    _check_order(top, vertices)
    point = _decode_point(top.object("operating_point"), len(vertices))
    salt, context = top.text("salt"), top.texts("context")
    top.names("context", context)
    serial = top.whole("serial") if top.has("serial") else 0
    if top.has("serial") and serial == 0:
        top.fail("E_RANGE", "serial", "is 0; leave it out")
    expires = top.number("expires", 0.0) if top.has("expires") else None
    abstain = None if top.get("abstain") is None else top.number("abstain", 0.0, 1.0)
    if len(salt.encode()) > 64:
        top.fail("E_RANGE", "salt", "is longer than 64 bytes")
    cuts = _decode_cuts(top.object("context_cuts"), context) if top.has("context_cuts") else {}
    evidence, provenance = top.object("evidence").value, top.object("provenance").value
    _check_provenance(top.object("provenance"))
    certificate = _decode_certificate(top.object("certificate")) if top.has("certificate") else None
    if certificate is not None:
        if not certificate.covers(_cost_at(vertices, point)):
            top.fail("E_SCHEMA", "certificate.cost", f"is {certificate.cost}, which does not cover the operating point")
        if fault := certificate.fault(vertices[0].cost):
            top.fail("E_RANGE", f"certificate.{fault[0]}", fault[1])
    top.end()
    try:
        policy = Policy(
            tiers,
            nodes,
            vertices,
            point,
            salt,
            context,
            abstain,
            evidence,
            provenance,
            cuts,
            serial,
            expires,
            certificate,
        )
    except GraphError as error:
        raise PolicyFileError("E_ACTION", error.place, error.message) from None
    _check_costs(top, policy)
    return policy


def _check_provenance(item: Fields) -> None:
    """Make sure that what is read of the provenance is as it is written; the rest may be anything."""
    for key in ("log", "queries"):
        if item.has(key):
            item.text(key)
    for at, entry in enumerate(item.texts("rows") if item.has("rows") else ()):
        if not ROW.fullmatch(entry):
            item.fail("E_SCHEMA", f"rows[{at}]", f"is {shown(entry)}, not the hashes of an id and of its readings")
    for row in _purchases(item, "dearest", "price"):
        row.number("price", 0.0)
    for row in _purchases(item, "prices", "cuts", "counts"):
        cuts, counts = _rising(row, "cuts", 0.0, math.inf), row.wholes("counts")
        if len(counts) != len(cuts) + 1:
            row.fail("E_SCHEMA", "counts", f"has {len(counts)} entries for {len(cuts)} cuts, not {len(cuts) + 1}")


def _purchases(item: Fields, key: str, *told: str) -> Iterator[Fields]:
    """The rows at ``key``, each of a tier, a reading or null, and what is told of it, by name."""
    names = ("tier", "reading", *told)
    for at, entry in enumerate(item.array(key) if item.has(key) else ()):
        if not isinstance(entry, list) or len(entry) != len(names):
            item.fail("E_SCHEMA", f"{key}[{at}]", f"is {shown(entry)}, not [{', '.join(names)}]")
        row = Fields(dict(zip(names, entry, strict=True)), f"{item.place}.{key}[{at}]")
        row.text("tier")
        if row.get("reading") is not None:
            row.text("reading")
        yield row


def _check_costs(top: Fields, policy: Policy) -> None:
    """Make sure that no vertex costs far less than what every query buys there, before anything depends on it.

    Costs are found on queries that the policies did not see, and differ from the sum of mean prices by chance.
    """
    listed: dict[tuple[str, str | None], float] = {(tier.name, None): tier.price for tier in policy.tiers}
    listed |= {(tier.name, reading.name): reading.price for tier in policy.tiers for reading in tier.readings}
    prices, bit = [*listed.values()], {one: 1 << at for at, one in enumerate(listed)}
    first = [0] * len(policy.nodes)  # what is bought from each node on before anything depends on it
    for at in range(len(policy.nodes) - 1, -1, -1):
        node = policy.nodes[at]
        if isinstance(node, Ask | Read):
            then = always_next(node)
            own = bit[node.tier, None if isinstance(node, Ask) else node.reading]
            first[at] = own if then is None else own | first[then]
    least: dict[int, float] = {}
    for at, vertex in enumerate(policy.vertices):
        if any(vertex.root == outage.root for outage in vertex.outages):
            continue  # what is said to be spent is so while all tiers are up, and this may be the graph of an outage
        bought = reduce(and_, (first[root] for root in vertex.context_roots.values()), first[vertex.root])
        if bought not in least:
            taken = bin(bought)[:1:-1].encode().replace(b"0", b"\0")  # a byte for each price, 0 where it is not paid
            least[bought] = math.fsum(compress(prices, taken))
        if vertex.cost < FAR_BELOW * least[bought]:
            message = (
                f"is {vertex.cost}, less than half of what every query buys there, {least[bought]:g} by the prices"
            )
            top.fail("E_RANGE", f"vertices[{at}].cost", message)


def _cost_at(vertices: tuple[Vertex, ...], point: OperatingPoint) -> float:
    return (1.0 - point.share) * vertices[point.low].cost + point.share * vertices[point.high].cost


def _decode_certificate(item: Fields) -> Certificate:
    from metaverify.policies.certificate import LEVELS, METHODS, PROMISES, SOURCES, Certificate  # few files have one

    promise: Any = _one_of(item, "promise", PROMISES)
    level: Any = _one_of(item, "level", LEVELS)
    most = 1.0 if promise == "expected quality" else math.inf
    dearest = item.number("dearest", 0.0) if item.has("dearest") else None
    count = item.whole("next") if item.has("next") else 0
    if (count > 0) != (promise == "realised cost"):
        item.fail("E_SCHEMA", "next", "is a number of queries above 0 just where their realised cost is promised")
    certificate = Certificate(
        promise,
        item.number("limit", 0.0, most),
        item.number("delta", 0.0, 0.5),
        level,
        _one_of(item, "method", METHODS),
        item.number("bound", 0.0, most),
        item.number("cost", 0.0),
        item.whole("rows"),
        item.whole("groups"),
        item.number("largest_group", 0.0),
        dearest,
        "" if dearest is None else _one_of(item, "dearest_from", SOURCES),
        item.whole("looks"),
        count,
    )
    if not 1 <= certificate.groups <= certificate.rows:
        item.fail("E_RANGE", "groups", f"is {certificate.groups}, outside 1 .. {certificate.rows} rows")
    if certificate.looks == 0:
        item.fail("E_RANGE", "looks", "is 0, but there was one")
    item.end()
    return certificate


def _one_of(item: Fields, key: str, known: Sequence[str]) -> str:
    value = item.text(key)
    for name in known:
        if name == value:
            return name
    item.fail("E_SCHEMA", key, f"is {shown(value)}, none of {', '.join(known)}")


def _decode_cuts(item: Fields, context: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    if not item.value:
        item.fail("E_SCHEMA", "*", "is empty; leave it out")
    for name in item.value:
        if name not in context:
            item.fail("E_SCHEMA", name, "is no column of the context")
        if not item.array(name):
            item.fail("E_SCHEMA", name, "has no cuts; leave it out")
    return {name: _rising(item, name, -math.inf, math.inf) for name in sorted(item.value)}


def _decode_tier(item: Fields) -> Tier:
    readings: list[Reading] = []
    for listed in item.objects("readings"):
        readings.append(_decode_reading(listed, [r.name for r in readings if not r.parts and not r.votes]))
    if len({reading.name for reading in readings}) < len(readings):
        item.fail("E_SCHEMA", "readings", "has two of one name")
    item.names("readings", [reading.name for reading in readings])
    needs = None
    if item.has("answer"):
        if item.get("answer") is not False:
            item.fail("E_TYPE", "answer", "is not false")
        needs = item.texts("needs")
    tier = Tier(item.text("name"), item.number("price", 0.0), tuple(readings), needs is None, needs or ())
    item.end()
    return tier


def _decode_reading(item: Fields, before: list[str]) -> Reading:
    cuts, counts = _rising(item), item.wholes("counts")
    if len(counts) != len(cuts) + 2:
        item.fail("E_SCHEMA", "counts", f"has {len(counts)} entries for {len(cuts)} cuts, not {len(cuts) + 2}")
    parts: tuple[Points, ...] = ()
    if item.has("parts"):
        parts = tuple(_decode_points(part, before) for part in item.objects("parts"))
        if not parts or len({part.reading for part in parts}) < len(parts):
            item.fail("E_SCHEMA", "parts", "is empty, or names a reading twice")
    votes = item.whole("votes", VOTES_LIMIT + 1) if item.has("votes") else 0
    if item.has("votes") and votes == 0:
        item.fail("E_RANGE", "votes", "is 0; leave it out")
    if item.has("sample") and item.get("sample") is not True:
        item.fail("E_TYPE", "sample", "is not true; leave it out")
    if parts and (votes or item.has("sample")):
        item.fail("E_SCHEMA", "parts", "make a score, which is neither votes nor a sample")
    reading = Reading(item.text("name"), item.number("price", 0.0), cuts, counts, parts, votes, item.has("sample"))
    item.end()
    return reading


def _decode_points(item: Fields, before: list[str]) -> Points:
    cuts, points = _rising(item), item.numbers("points", 0.0, 1.0)
    if len(points) != len(cuts) + 1:
        item.fail("E_SCHEMA", "points", f"has {len(points)} entries for {len(cuts)} cuts, not {len(cuts) + 1}")
    if item.text("of") not in before:
        named = shown(item.value["of"])
        item.fail("E_SCHEMA", "of", f"is {named}, not a reading listed before that is neither fused nor votes")
    part = Points(item.text("of"), cuts, points, item.number("missing", 0.0, 1.0))
    item.end()
    return part


def _rising(item: Fields, key: str = "cuts", low: float = 0.0, high: float = 1.0) -> tuple[float, ...]:
    cuts = item.numbers(key, low, high)
    if any(not before < after for before, after in pairwise(cuts)):
        item.fail("E_RANGE", key, "do not rise")
    return cuts


def _decode_node(item: Fields) -> Node:
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
    elif item.has("poll"):
        tallies = tuple(_decode_tally(row) for row in item.objects("tallies"))
        node = Poll(item.text("of"), item.text("poll"), tallies, item.whole("missing"))
    else:
        item.fail("E_SCHEMA", "*", "is none of accept, abstain, call, read, poll")
    item.end()
    return node


def _decode_tally(item: Fields) -> Tally:
    then: list[int | None] = []
    for at, node in enumerate(item.array("then")):
        if node is not None and (type(node) is not int or node < 0):
            item.fail("E_TYPE", f"then[{at}]", "is neither a node nor null, for one vote more")
        then.append(node)
    tally = Tally(item.wholes("cuts"), tuple(then))
    item.end()
    return tally


def _decode_vertex(item: Fields, nodes: Graph, tiers: Sequence[Tier]) -> Vertex:
    beliefs, answers = item.object("beliefs"), tuple(tier.answer for tier in tiers)
    vertex = Vertex(
        item.number("price", 0.0),
        item.number("cost", 0.0),
        item.number("quality", 0.0, 1.0),
        item.whole("root"),
        _decode_roots(item),
        {_place(node): _decode_beliefs(beliefs, node, nodes, answers) for node in sorted(beliefs.value, key=_place)},
        _decode_evidence(item.object("evidence"), answers) if item.has("evidence") else None,
        _decode_outages(item, frozenset(tier.name for tier in tiers if tier.answer)) if item.has("outages") else (),
    )
    item.end()
    return vertex


def _decode_roots(item: Fields) -> dict[str, int]:
    roots = item.object("context_roots")
    return {label: roots.whole(label) for label in sorted(roots.value)}


def _decode_outages(item: Fields, answering: Set[str]) -> tuple[Outage, ...]:
    outages = tuple(_decode_outage(outage, answering) for outage in item.objects("outages"))
    if not outages or len({outage.without for outage in outages}) < len(outages):
        item.fail("E_SCHEMA", "outages", "is empty, or has one outage twice")
    contexts = item.value["context_roots"].keys()
    for at, outage in enumerate(outages):
        if outage.context_roots.keys() != contexts:
            item.fail("E_SCHEMA", f"outages[{at}].context_roots", "names other contexts than the vertex")
    return outages


def _decode_outage(item: Fields, answering: Set[str]) -> Outage:
    without = item.texts("without")
    for at, name in enumerate(without):
        if name not in answering:
            item.fail("E_SCHEMA", f"without[{at}]", f"is {shown(name)}, not a tier{did_you_mean(name, answering)}")
    if not 0 < len(without) < len(answering) or list(without) != sorted({*without}):
        item.fail("E_SCHEMA", "without", "is not some of the tiers, sorted, that leave others")
    outage = Outage(without, item.whole("root"), _decode_roots(item))
    item.end()
    return outage


def _decode_evidence(item: Fields, answers: tuple[bool, ...]) -> VertexEvidence:
    calls, accepts = (_decode_shares(item, key, answers) for key in ("calls", "accepts"))
    _check_sum(item, "accepts", [share for share in accepts if share is not None])
    for at, (called, accepted) in enumerate(zip(calls, accepts, strict=True)):
        if called is not None and accepted is not None and accepted > called + 2 * ROUNDING:
            item.fail("E_PROB", f"accepts[{at}]", f"is {accepted}, above the share {called} that is called")
    cost_sd = item.number("cost_sd", 0.0) if item.has("cost_sd") else None
    evidence = VertexEvidence(
        _decode_interval(item, "cost"), _decode_interval(item, "quality"), calls, accepts, cost_sd
    )
    item.end()
    return evidence


def _decode_interval(item: Fields, key: str) -> tuple[float, float]:
    ends = item.numbers(key)
    if len(ends) != 2 or not ends[0] <= ends[1]:
        item.fail("E_RANGE", key, "is not [low, high]")
    return ends[0], ends[1]


def _decode_shares(item: Fields, key: str, answers: tuple[bool, ...]) -> tuple[float | None, ...]:
    values = item.array(key)
    if [value is not None for value in values] != [*answers]:
        item.fail("E_SCHEMA", key, "is not a share for each tier, null for a signal")
    places = (f"{item.place}.{key}[{at}]" for at in range(len(values)))
    return tuple(
        None if value is None else check_number(value, place, 0.0, 1.0)
        for value, place in zip(values, places, strict=True)
    )


def _check_sum(item: Fields, key: str, shares: Sequence[float]) -> None:
    """Refuse shares of what excludes each other that are more than everything."""
    if sum(shares) > 1.0 + ROUNDING * len(shares):
        item.fail("E_PROB", key, f"and what stands beside it are shares that add up to {sum(shares):.9g}, above 1")


def _place(text: str) -> int:
    """The node that a key names; -1 where it names none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def _decode_beliefs(item: Fields, key: str, nodes: Graph, answers: tuple[bool, ...]) -> tuple[Belief, ...]:
    rows, at = item.array(key), _place(key)
    node = nodes[at] if key == str(at) and 0 <= at < len(nodes) else None
    if not isinstance(node, Read | Poll):
        item.fail("E_SCHEMA", key, "names no node that reads")
    outcomes = 1 + sum(len(tally.then) for tally in ([node] if isinstance(node, Read) else node.tallies))
    if len(rows) != outcomes:
        item.fail("E_SCHEMA", key, f"has {len(rows)} rows, not one for each of {outcomes} outcomes")
    beliefs = tuple(_decode_belief(row, f"{item.place}.{key}[{i}]", answers) for i, row in enumerate(rows))
    shares, last = [belief.share for belief in beliefs], 0
    for tally in [node] if isinstance(node, Read) else node.tallies:
        first, last = last, last + len(tally.then)
        _check_sum(item, f"{key}[{first}]", [*shares[first:last], shares[-1]])
    return beliefs


def _decode_belief(row: Any, place: str, answers: tuple[bool, ...]) -> Belief:
    lists = row[1:] if isinstance(row, list) and len(row) == 3 else [None]
    if not all(isinstance(values, list) and len(values) == len(answers) for values in lists):
        raise PolicyFileError("E_SCHEMA", place, "is not [share, a quality a tier, a worth a tier]")
    share, quality, worth = row
    if any(value is None and answer for value, answer in zip(quality, answers, strict=True)):
        raise PolicyFileError("E_TYPE", place, "has no quality of a tier that answers")
    return Belief(
        check_number(share, place, 0.0, 1.0),
        tuple(None if value is None else check_number(value, place, 0.0, 1.0) for value in quality),
        tuple(None if value is None else check_number(value, place, -math.inf, math.inf) for value in worth),
    )


def _check_order(top: Fields, vertices: tuple[Vertex, ...]) -> None:
    contexts, outages = vertices[0].context_roots.keys(), [outage.without for outage in vertices[0].outages]
    for at, (vertex, after) in enumerate(pairwise(vertices), start=1):
        if not vertex.cost < after.cost:
            top.fail("E_RANGE", f"vertices[{at}].cost", "is not above the one before")
        if after.context_roots.keys() != contexts:
            top.fail("E_SCHEMA", f"vertices[{at}].context_roots", "names other contexts than the first vertex")
        if [outage.without for outage in after.outages] != outages:
            top.fail("E_SCHEMA", f"vertices[{at}].outages", "names other outages than the first vertex")


def _decode_point(item: Fields, vertices: int) -> OperatingPoint:
    budget = None if item.get("budget") is None else item.number("budget", 0.0)
    low, high = item.whole("low", vertices), item.whole("high", vertices)
    if not low <= high <= low + 1:
        item.fail("E_RANGE", "high", f"is {high}, neither {low} nor the next one")
    price = None if item.get("price") is None else item.number("price", 0.0)
    point = OperatingPoint(low, high, item.number("share", 0.0, 1.0), budget, price)
    item.end()
    return point
