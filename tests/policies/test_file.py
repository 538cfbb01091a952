"""A policy file comes back as it went out, or is refused with its code and place, and is never half written."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import math
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.file import (
    PolicyFileError,
    dump_policy,
    load_policy,
    parse_policy,
    policy_id,
    save_policy,
)
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import Belief, OperatingPoint, Policy, Vertex
from metaverify.policies.storage import write_atomically
from metaverify.policies.tiers import Reading, Tier

from .strategies import examples, plain_json, policies

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "policy.json"
LIMIT = 1 << 20  # bytes
CODES = {
    *("E_EMPTY", "E_SIZE", "E_NOTFILE", "E_ENCODING", "E_SYNTAX", "E_DUPKEY", "E_DEPTH", "E_NONFINITE"),
    *("E_NUMBER", "E_TYPE", "E_SCHEMA", "E_NAME", "E_RANGE", "E_ACTION", "E_PROB", "E_VERSION", "E_CHECKSUM"),
}

Document = dict[str, Any]


def golden() -> Document:
    document: Document = json.loads(GOLDEN.read_text("utf-8"))
    return document


def sealed(document: Mapping[str, Any]) -> bytes:
    """The document as a file, with the id that its content has."""
    body = {key: value for key, value in document.items() if key != "id"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps({**body, "id": f"sha256:{digest}"}).encode()


def refusal(data: bytes) -> PolicyFileError:
    with pytest.raises(PolicyFileError) as caught:
        parse_policy(data)
    assert caught.value.code in CODES
    assert str(caught.value).startswith(caught.value.code)
    return caught.value


# ------------------------------------------------------------------------------------------------ there and back


@examples(150)
@given(policies(votes=True, outages=True))
def test_a_policy_comes_back_equal_and_is_written_again_byte_for_byte(policy: Policy) -> None:
    text = dump_policy(policy)
    back = parse_policy(text.encode())
    assert back == policy
    assert dump_policy(back) == text
    assert policy_id(back) == policy_id(policy) == json.loads(text)["id"]
    assert parse_policy(sealed(json.loads(text))) == policy


@examples(50)
@given(policies())
def test_the_file_is_json_with_sorted_keys_and_the_id_of_its_canonical_body(policy: Policy) -> None:
    document = json.loads(dump_policy(policy))
    assert list(document) == sorted(document)
    assert json.loads(sealed(document))["id"] == document["id"]


def test_a_saved_policy_decides_as_before(tmp_path: Path) -> None:
    policy = load_policy(GOLDEN)
    assert save_policy(policy, tmp_path / "p.json") == policy_id(policy)
    back = load_policy(tmp_path / "p.json")
    for key in range(100):
        assert back.decide({"small": 0.4}, key=key) == policy.decide({"small": 0.4}, key=key)


def test_a_vertex_that_costs_far_less_than_what_every_query_buys_is_refused() -> None:
    """All costs divided by a hundred would make a budget of a few cents buy dollars."""
    document = golden()  # every query buys small's answer, for 1, and a free reading
    for vertex in document["vertices"]:
        vertex["cost"] /= 100
    error = refusal(sealed(document))
    assert str(error) == (
        "E_RANGE at document.vertices[0].cost: is 0.03, less than half of what every query buys there, 1 by the prices"
    )


@pytest.mark.parametrize(
    ("cost", "root", "contexts", "taken"),
    [
        (0.75, 0, {}, True),  # small for 1 and a look at it for a half; large for 20 is not bought of all
        (math.nextafter(0.75, 0.0), 0, {}, False),
        (10.0, 3, {}, True),  # large at once
        (9.99, 3, {}, False),
        (0.75, 0, {"a": 0, "b": 1}, True),
        (0.7, 0, {"a": 0, "b": 1}, False),  # whatever follows the look
        (0.0, 0, {"a": 0, "b": 3}, True),  # nothing is bought in every context, and what is bought may be cheap there
    ],
)
def test_a_vertex_costs_half_of_what_every_query_buys_there_at_the_least(
    cost: float, root: int, contexts: dict[str, int], taken: bool
) -> None:
    nodes = (
        *(Ask("small", 2), Ask("small", 4), Read("small", "look", (0.5,), (3, 5), 3), Ask("large", 6)),
        *(Read("small", "look", (0.5,), (5, 5), 5), Stop(Accept("small")), Stop(Accept("large"))),
    )
    tiers = (Tier("small", 1.0, (Reading("look", 0.5, (), (1, 0)),)), Tier("large", 20.0))
    dear = Vertex(0.0, 100.0, 0.9, 0, dict.fromkeys(contexts, 1) if contexts else {})
    unused = () if contexts else (replace(dear, cost=200.0, root=1),)  # so that every node is reached
    policy = Policy(tiers, nodes, (Vertex(0.1, cost, 0.5, root, contexts), dear, *unused), OperatingPoint(0, 0, 0.0))
    data = dump_policy(policy).encode()
    if taken:
        assert parse_policy(data) == policy
    else:
        assert refusal(data).place == "document.vertices[0].cost"


def test_the_layout_and_the_order_of_keys_do_not_matter() -> None:
    document = golden()
    policy = load_policy(GOLDEN)
    for text in (
        json.dumps(document, indent=8),
        json.dumps(dict(reversed(document.items())), ensure_ascii=False, separators=(",", ":")),
        f"\n\t {json.dumps(document)} \r\n",
    ):
        assert parse_policy(text.encode()) == policy


def believing(policy: Policy, beliefs: dict[int, tuple[Belief, ...]]) -> Policy:
    """The policy with these beliefs at its first vertex."""
    return replace(policy, vertices=(replace(policy.vertices[0], beliefs=beliefs), *policy.vertices[1:]))


@pytest.mark.parametrize(
    ("name", "changed"),
    {
        "a tier's name": lambda p: replace(
            p,
            tiers=(Tier("tiny", 1.0),),
            nodes=(Ask("tiny", 1), Stop(Accept("tiny"))),
            vertices=(Vertex(0.0, 1.0, 0.5, 0),),
            point=OperatingPoint(0, 0, 0.0),
        ),
        "a tier's price": lambda p: replace(
            p, tiers=(replace(p.tiers[0], price=math.nextafter(1.0, 2.0)), *p.tiers[1:])
        ),
        "the order of tiers": lambda p: replace(p, tiers=p.tiers[::-1]),
        "a reading's histogram": lambda p: replace(
            p,
            tiers=(
                replace(
                    p.tiers[0], readings=(p.tiers[0].readings[0], replace(p.tiers[0].readings[1], counts=(50, 45, 6)))
                ),
                *p.tiers[1:],
            ),
        ),
        "a cut": lambda p: replace(p, nodes=(*p.nodes[:3], replace(p.nodes[3], cuts=(0.5000001,)), *p.nodes[4:])),
        "a branch": lambda p: replace(p, nodes=(*p.nodes[:3], replace(p.nodes[3], then=(8, 7)), *p.nodes[4:])),
        "a missing branch": lambda p: replace(p, nodes=(*p.nodes[:3], replace(p.nodes[3], missing=8), *p.nodes[4:])),
        "a root": lambda p: replace(p, vertices=(replace(p.vertices[0], root=1), p.vertices[1])),
        "a context's root": lambda p: replace(
            p, vertices=(replace(p.vertices[0], context_roots={"code": 12, "résumé": 2}), p.vertices[1])
        ),
        "a vertex's price": lambda p: replace(p, vertices=(replace(p.vertices[0], price=0.6), p.vertices[1])),
        "a vertex's cost": lambda p: replace(p, vertices=(replace(p.vertices[0], cost=3.5), p.vertices[1])),
        "a vertex's quality": lambda p: replace(p, vertices=(replace(p.vertices[0], quality=0.7), p.vertices[1])),
        "the share": lambda p: replace(p, point=replace(p.point, share=0.26)),
        "the vertex in use": lambda p: replace(p, point=replace(p.point, high=0)),
        "the budget": lambda p: replace(p, point=replace(p.point, budget=None)),
        "the price": lambda p: replace(p, point=replace(p.point, price=0.1)),
        "the salt": lambda p: replace(p, salt=""),
        "the context's columns": lambda p: replace(p, context=("tenant",)),
        "where a context is cut": lambda p: replace(p, context_cuts={"task": (120.0,)}),
        "the worth of abstaining": lambda p: replace(p, abstain=0.3),
        "a belief": lambda p: believing(
            p, {3: (*p.vertices[0].beliefs[3][:2], replace(p.vertices[0].beliefs[3][2], share=0.04))}
        ),
        "no beliefs": lambda p: believing(p, {}),
        "the evidence": lambda p: replace(p, evidence={**p.evidence, "rows": 101}),
        "the provenance": lambda p: replace(p, provenance={**p.provenance, "parent": "x"}),
    }.items(),
)
def test_the_id_changes_with(name: str, changed: Callable[[Policy], Policy]) -> None:
    policy = load_policy(GOLDEN)
    other = changed(policy)
    assert policy_id(other) != policy_id(policy), name
    assert parse_policy(dump_policy(other).encode()) == other


def test_whole_numbers_in_a_policy_leave_its_id_as_it_is() -> None:
    nodes = (Ask("small", 1), Read("small", "conf", (0, 1), (2, 2, 2), 2), Stop(Accept("small")))
    tier = Tier("small", 1, (Reading("conf", 0, (0, 1), (0, 5, 5, 1)),))
    policy = Policy(
        (tier,),
        nodes,
        (Vertex(0, 1, 1, 0, {}, {1: (Belief(0, (1,), (2,)),) * 4}),),
        OperatingPoint(0, 0, 0, 2, 1),
        abstain=0,
    )
    back = parse_policy(dump_policy(policy).encode())
    assert back == policy
    assert policy_id(back) == policy_id(policy)


@pytest.mark.parametrize("number", [4, -0.0, 0])
@pytest.mark.parametrize(
    "path",
    [
        ("tiers", 0, "price"),
        ("tiers", 0, "readings", 1, "price"),
        ("vertices", 0, "cost"),
        ("vertices", 0, "price"),
        ("operating_point", "budget"),
        ("operating_point", "price"),
        ("vertices", 0, "beliefs", "3", 0, 2, 0),
        ("evidence", "rows"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_file_that_is_read_has_the_id_that_it_claims(path: tuple[Any, ...], number: float) -> None:
    document = golden()
    changed(*path, to=number)(document)
    data = sealed(document)
    try:
        policy = parse_policy(data)
    except PolicyFileError:
        return
    assert policy_id(policy) == json.loads(data)["id"]


@pytest.mark.parametrize(
    ("what", "kept"),
    {
        "a view of a mapping": MappingProxyType({"rows": 1}),
        "a tuple": {"range": (1, 2)},
        "text that needs escapes": {'a"b\\c\n\t\u2028\x00\x7f': "\U0001f600\ufeff"},
        "deep enough": {"a": {"b": {"c": [[[{"d": 1}]]]}}},
        "a big whole number": {"rows": 10**18},
    }.items(),
)
def test_evidence_is_kept_through_the_file(what: str, kept: Mapping[str, Any]) -> None:
    policy = replace(load_policy(GOLDEN), evidence=kept)
    text = dump_policy(policy)
    assert dump_policy(parse_policy(text.encode())) == text, what


# --------------------------------------------------------------------------------------------------- refusing


def changed(*path: Any, to: Any) -> Callable[[Document], None]:
    """Put a value at a place of the document."""

    def change(document: Document) -> None:
        inner: Any = document
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = to

    return change


def without(*path: Any) -> Callable[[Document], None]:
    """Take a key out of the document."""

    def change(document: Document) -> None:
        inner: Any = document
        for step in path[:-1]:
            inner = inner[step]
        del inner[path[-1]]

    return change


def structural() -> Iterator[tuple[str, str, Callable[[Document], None], str]]:
    """(what, code, change, a part of the place) of every structural refusal."""
    for key in ("abstain", "context", "evidence", "format", "nodes", "operating_point", "provenance", "salt", "tiers"):
        yield f"no {key}", "E_SCHEMA", without(key), key
    for key in ("version", "vertices"):
        yield f"no {key}", "E_SCHEMA", without(key), key
    nested: dict[tuple[Any, ...], tuple[str, ...]] = {
        ("tiers", 0): ("name", "price", "readings"),
        ("tiers", 0, "readings", 1): ("name", "price", "cuts", "counts"),
        ("vertices", 1): ("price", "cost", "quality", "root", "context_roots", "beliefs"),
        ("operating_point",): ("low", "high", "share", "budget", "price"),
        ("nodes", 0): ("then",),
        ("nodes", 3): ("of", "cuts", "then", "missing"),
    }
    for path, keys in nested.items():
        for key in keys:
            yield f"no {key} in {path}", "E_SCHEMA", without(*path, key), f"{path[0]}"
    for path in ((), ("tiers", 2), ("tiers", 0, "readings", 0), ("vertices", 0), ("operating_point",)):
        yield f"an unknown key in {path}", "E_SCHEMA", changed(*path, "colour", to="red"), "colour"
    for at in (0, 3, 8, 9):
        yield f"an unknown key in node {at}", "E_SCHEMA", changed("nodes", at, "colour", to="red"), f"nodes[{at}]"
    yield "a node of two kinds", "E_SCHEMA", changed("nodes", 8, "call", to="small"), "nodes[8]"
    yield "a node of no kind", "E_SCHEMA", changed("nodes", 8, to={}), "nodes[8]"
    yield "another format", "E_SCHEMA", changed("format", to="other"), "format"
    yield "no tiers", "E_SCHEMA", changed("tiers", to=[]), "tiers"
    yield "no vertices", "E_SCHEMA", changed("vertices", to=[]), "vertices"
    yield "a tier's name twice", "E_SCHEMA", changed("tiers", 1, "name", to="small"), "tiers"
    yield (
        "a reading's name twice",
        "E_SCHEMA",
        changed("tiers", 0, "readings", 1, "name", to="self_verify"),
        "tiers[0].readings",
    )
    yield "counts for other cuts", "E_SCHEMA", changed("tiers", 0, "readings", 1, "counts", to=[1, 2]), "counts"
    yield "a context less", "E_SCHEMA", without("vertices", 1, "context_roots", "code"), "context_roots"
    yield "another context", "E_SCHEMA", changed("vertices", 1, "context_roots", "prose", to=1), "context_roots"
    for cuts in ({}, {"tokens": [1.0]}, {"task": []}):
        yield f"context cuts {cuts}", "E_SCHEMA", changed("context_cuts", to=cuts), "context_cuts"
    for cuts in ({"task": [2.0, 1.0]}, {"task": [1.0, 1.0]}, {"task": [1.0, 2.0, 1.5]}):
        yield f"context cuts {cuts}", "E_RANGE", changed("context_cuts", to=cuts), "context_cuts.task"
    yield "a belief's row less", "E_SCHEMA", without("vertices", 0, "beliefs", "3", 0), "vertices[0].beliefs.3"
    yield (
        "a belief's tier less",
        "E_SCHEMA",
        without("vertices", 0, "beliefs", "3", 0, 1, 0),
        "vertices[0].beliefs.3[0]",
    )
    yield (
        "a belief that is no row",
        "E_SCHEMA",
        changed("vertices", 0, "beliefs", "3", 1, to=0.5),
        "vertices[0].beliefs.3[1]",
    )

    for node in ("8", "99", "-1", "03", "x", "", "3.0", "²", "9" * 40):
        change = changed("vertices", 0, "beliefs", node, to=[])
        yield f"beliefs of node {node!r}", "E_SCHEMA", change, "vertices[0].beliefs"

    typed: dict[tuple[Any, ...], tuple[Any, ...]] = {
        ("version",): (True, 1.0, "1", None),
        ("format",): (1, None),
        ("salt",): (1, None, []),
        ("context",): ("task", None, {}, [1]),
        ("context_cuts",): ([], None, 1.0, {"task": {}}, {"task": 1.0}, {"task": ["1"]}, {"task": [True]}),
        ("abstain",): (True, "0.5"),
        ("tiers",): ({}, "x", None, [1], [[]]),
        ("nodes",): ({}, [None]),
        ("vertices",): ({}, ["x"]),
        ("evidence",): ([], "none", None),
        ("provenance",): ([], 1),
        ("operating_point",): ([], None),
        ("operating_point", "low"): (True, 0.0, "0", None),
        ("operating_point", "share"): (True, "0.25", None),
        ("operating_point", "budget"): (True, "5"),
        ("operating_point", "price"): (True, "5"),
        ("tiers", 0, "name"): (1, None, True),
        ("tiers", 0, "price"): (True, False, "1", None, [1]),
        ("tiers", 0, "readings"): ({}, None),
        ("tiers", 0, "readings", 0, "cuts"): (0.5, [True], ["0.5"], [None]),
        ("tiers", 0, "readings", 1, "counts"): (3, [1.0, 2, 3], [True, 2, 3]),
        ("nodes", 0, "call"): (0, None),
        ("nodes", 0, "then"): (3.0, True, "3", None, [3]),
        ("nodes", 3, "read"): (1, None),
        ("nodes", 3, "of"): (1, None),
        ("nodes", 3, "cuts"): (0.5, [True]),
        ("nodes", 3, "then"): (7, [7.0, 8], [True, 8]),
        ("nodes", 3, "missing"): (7.0, False, None),
        ("vertices", 0, "beliefs", "3"): ({}, "x", None),
        ("vertices", 0, "beliefs", "3", 0, 0): (True, "x", None),
        ("vertices", 0, "beliefs", "3", 0, 1, 0): (True, None),
        ("vertices", 0, "beliefs", "3", 0, 2, 0): (True, "x"),
        ("nodes", 8, "accept"): (True, None, 0),
        ("nodes", 9, "abstain"): (False, 1, None, "yes"),
        ("vertices", 0, "cost"): (True, "3", None),
        ("vertices", 0, "root"): (0.0, True, None),
        ("vertices", 0, "context_roots"): ([], None),
        ("vertices", 0, "context_roots", "code"): (0.0, True, None),
    }
    for path, values in typed.items():
        for value in values:
            yield f"{path} is {value!r}", "E_TYPE", changed(*path, to=value), str(path[0])

    ranged: dict[tuple[Any, ...], tuple[Any, ...]] = {
        ("abstain",): (-0.1, 1.1),
        ("salt",): ("x" * 65, "é" * 33),
        ("operating_point", "low"): (-1, 2),
        ("operating_point", "high"): (-1, 2),
        ("operating_point", "share"): (-0.01, 1.01),
        ("operating_point", "budget"): (-1,),
        ("operating_point", "price"): (-0.5,),
        ("tiers", 0, "price"): (-1, -0.5),
        ("tiers", 0, "readings", 1, "price"): (-1,),
        ("tiers", 0, "readings", 1, "cuts"): ([-0.1], [1.1]),
        ("tiers", 0, "readings", 0, "cuts"): ([0.5, 0.25, 0.8], [0.25, 0.25, 0.8]),
        ("tiers", 0, "readings", 1, "counts"): ([1, 2, -3],),
        ("nodes", 0, "then"): (-1,),
        ("nodes", 3, "then"): ([-1, 8],),
        ("nodes", 3, "missing"): (-1,),
        ("nodes", 3, "cuts"): ([-0.1], [1.5]),
        ("vertices", 0, "beliefs", "3", 0, 0): (-0.1, 1.1),
        ("vertices", 0, "beliefs", "3", 0, 1, 0): (-0.1, 1.1),
        ("vertices", 0, "price"): (-1,),
        ("vertices", 0, "cost"): (-1, 11.0, 12.0),
        ("vertices", 0, "quality"): (-0.1, 1.1),
        ("vertices", 0, "root"): (-1,),
        ("vertices", 0, "context_roots", "code"): (-1,),
    }
    for path, values in ranged.items():
        for value in values:
            yield f"{path} is {value!r}", "E_RANGE", changed(*path, to=value), str(path[0])

    found = {"cost": [2.5, 3.5], "quality": [0.7, 0.8], "calls": [1.0, 0.5, 0.25], "accepts": [0.5, 0.25, 0.25]}
    for key, code, values in (
        ("cost", "E_RANGE", ([3.5, 2.5], [3.0], [1.0, 2.0, 3.0], [])),
        ("cost", "E_TYPE", (3.0, ["2.5", 3.5], [None, 3.5], None)),
        ("quality", "E_RANGE", ([0.8, 0.7],)),
        ("cost_sd", "E_RANGE", (-0.5,)),
        ("cost_sd", "E_TYPE", ([0.5], "0.5", None)),
        ("calls", "E_RANGE", ([1.1, 0.5, 0.25], [-0.1, 0.5, 0.25])),
        ("calls", "E_SCHEMA", ([1.0, 0.5], [1.0, None, 0.25])),
        ("accepts", "E_TYPE", ({"small": 1.0}, [True, 0.5, 0.25])),
    ):
        for value in values:
            change = changed("vertices", 0, "evidence", to={**found, key: value})
            yield f"evidence of a vertex with {key} {value!r}", code, change, f"vertices[0].evidence.{key}"
    for key in found:
        less = {name: value for name, value in found.items() if name != key}
        change = changed("vertices", 0, "evidence", to=less)
        yield f"evidence of a vertex without {key}", "E_SCHEMA", change, f"vertices[0].evidence.{key}"
    more = changed("vertices", 0, "evidence", to={**found, "more": 1})
    yield "evidence of a vertex with more", "E_SCHEMA", more, "vertices[0].evidence.more"
    yield "evidence of a vertex that is null", "E_TYPE", changed("vertices", 0, "evidence", to=None), "vertices[0]"

    yield "a backward branch", "E_ACTION", changed("nodes", 7, "then", to=7), "nodes[7]"
    yield "a branch to nowhere", "E_ACTION", changed("nodes", 7, "then", to=14), "nodes[7]"
    yield "a root that is nowhere", "E_ACTION", changed("vertices", 0, "root", to=14), "root 14"
    yield "a context's root that is nowhere", "E_ACTION", changed("vertices", 0, "context_roots", "code", to=99), "root"
    yield "a node that nothing reaches", "E_ACTION", changed("nodes", 6, "then", to=[12, 12]), "nodes["
    yield "accepting an uncalled tier", "E_ACTION", changed("nodes", 8, "accept", to="large"), "nodes[8]"
    yield "calling an unknown tier", "E_ACTION", changed("nodes", 12, "call", to="huge"), "nodes[12]"
    yield "an unknown reading", "E_ACTION", changed("nodes", 6, "read", to="votes"), "nodes[6]"
    yield "reading twice", "E_ACTION", changed("nodes", 6, "read", to="self_verify"), "nodes[6]"
    yield "calling twice", "E_ACTION", changed("nodes", 7, "call", to="small"), "nodes[7]"
    yield "cuts that do not rise", "E_ACTION", changed("nodes", 4, "cuts", to=[0.8, 0.25]), "nodes[4]"
    yield "a branch too many", "E_ACTION", changed("nodes", 4, "then", to=[12, 6, 8, 8]), "nodes[4]"
    for what, name in {
        "a tab": "sma\tll",
        "a NUL": "\x00",
        "a C1 control": "a\x9f",
        "a line separator": "a\u2028",
        "an override": "a\u202eb",
        "an isolate": "\u2066a",
        "a mark": "a\u200f",
        "a zero-width space": "a\u200bb",
        "a space at its end": "a ",
        "nothing": "",
    }.items():
        yield f"a tier's name with {what}", "E_NAME", changed("tiers", 1, "name", to=name), "tiers[1]"
        change = changed("tiers", 0, "readings", 1, "name", to=name)
        yield f"a reading's name with {what}", "E_NAME", change, "tiers[0].readings[1]"
        yield f"a column's name with {what}", "E_NAME", changed("context", to=["task", name]), "context[1]"
    yield "tiers that look alike", "E_NAME", changed("tiers", 1, "name", to="sm\u0430ll"), "tiers[1]"
    yield "columns that look alike", "E_NAME", changed("context", to=["\u00e9", "e\u0301"]), "context[1]"
    high = changed("tiers", 0, "readings", 1, "price", to=1.7e308)
    yield (
        "prices beyond all numbers",
        "E_RANGE",
        lambda d: (high(d), changed("tiers", 2, "price", to=1e308)(d))[0],
        "tiers",
    )
    for votes in (0, -1, 1025, 10**18):
        change = changed("tiers", 0, "readings", 1, "votes", to=votes)
        yield f"{votes} votes", "E_RANGE", change, "tiers[0].readings[1].votes"
    yield "a serial of 0", "E_RANGE", changed("serial", to=0), "serial"
    yield "a serial below 0", "E_RANGE", changed("serial", to=-1), "serial"
    yield "a serial that is no count", "E_TYPE", changed("serial", to=1.0), "serial"
    yield "an end before all time", "E_RANGE", changed("expires", to=-1.0), "expires"
    yield "an end that is text", "E_TYPE", changed("expires", to="2030-01-01"), "expires"
    yield "an end that is null", "E_TYPE", changed("expires", to=None), "expires"

    yield "too much after a reading", "E_PROB", changed("vertices", 0, "beliefs", "3", 0, 0, to=0.55), "beliefs.3[0]"
    for key, values in {"accepts": [0.5, 0.5, 0.25], "calls": [0.25, 0.5, 0.25]}.items():
        change = changed("vertices", 0, "evidence", to={**found, key: values})
        yield f"evidence of a vertex with {key} {values}", "E_PROB", change, "vertices[0].evidence.accepts"

    for path, number in {
        ("tiers", 0, "price"): 1,
        ("abstain",): 0,
        ("vertices", 0, "cost"): 3,
        ("nodes", 3, "cuts", 0): 1,
        ("operating_point", "budget"): -0.0,
        ("vertices", 0, "beliefs", "3", 0, 2, 1): 1,
    }.items():
        yield f"{path} is {number!r}", "E_NUMBER", changed(*path, to=number), str(path[0])
    for version in (0, 2, 99):
        yield f"version {version}", "E_VERSION", changed("version", to=version), "version"


STRUCTURAL = list(structural())


@pytest.mark.parametrize(
    ("what", "code", "change", "place"), STRUCTURAL, ids=[ascii(case[0]).replace("\\", "") for case in STRUCTURAL]
)
def test_a_sealed_file_is_refused_for(what: str, code: str, change: Callable[[Document], None], place: str) -> None:
    error = refusal(sealed(structurally_wrong(what, change)))
    assert (error.code, place in error.place) == (code, True), str(error)


def structurally_wrong(what: str, change: Callable[[Document], None]) -> Document:
    document = golden()
    change(document)
    if what == "a node that nothing reaches":
        changed("nodes", 3, "then", to=[7, 7])(document)
        changed("nodes", 4, "then", to=[12, 6, 12])(document)
        changed("nodes", 5, "then", to=[7, 7])(document)
    return document


def refusals() -> str:
    """What each refusal says, of those in the same words the first: `python -m tests.policies.test_file` writes it."""
    wrong = [(what, structurally_wrong(what, change)) for what, _, change, _ in STRUCTURAL]
    for name, path, value, _, _ in OF_EACH_KIND:
        document = json.loads(GOLDEN.with_name(f"{name}.json").read_text("utf-8"))
        changed(*path, to=value)(document)
        wrong.append((f"{name}: {path} is {value!r}", document))
    told: dict[tuple[str, str], str] = {}
    for what, document in wrong:
        error = refusal(sealed(document))
        told.setdefault((error.code, re.sub(r"\d+", "#", error.message)), f"{what!a}\n    {str(error)!a}\n")
    return "".join(told.values())


def test_every_refusal_is_told_in_the_words_of_the_golden_file() -> None:
    words = GOLDEN.with_name("refusals.txt").read_text("utf-8")
    assert refusals() == words, "changed on purpose? run `python -m tests.policies.test_file`"


@pytest.mark.parametrize(
    ("path", "wrong", "meant"),
    [
        (("operating_point",), "budgte", "budget"),
        (("tiers", 0), "redings", "readings"),
        (("vertices", 1), "context_root", "context_roots"),
        ((), "abstian", "abstain"),
        ((), "seral", "serial"),
    ],
)
def test_a_misspelt_key_is_told_beside_the_one_that_was_meant(path: tuple[Any, ...], wrong: str, meant: str) -> None:
    document = golden()
    inner: Any = document
    for step in path:
        inner = inner[step]
    there = meant in inner
    inner[wrong] = inner.pop(meant, 1)
    error = refusal(sealed(document))
    told, hinted = (meant, wrong) if there else (wrong, meant)  # the missing key is met first
    assert error.code == "E_SCHEMA"
    assert error.place.endswith(told)
    assert f"did you mean {hinted!r}?" in error.message


OF_EACH_KIND: list[tuple[str, tuple[Any, ...], Any, str, str]] = [
    ("signals", ("tiers", 3, "answer"), True, "E_TYPE", "tiers[3].answer"),
    ("signals", ("tiers", 3, "needs"), ["length"], "E_SCHEMA", "tiers[3].needs"),
    ("signals", ("tiers", 3, "needs"), ["small", "small"], "E_SCHEMA", "tiers[3].needs"),
    ("signals", ("tiers", 3, "needs"), "small", "E_TYPE", "tiers[3].needs"),
    ("scores", ("tiers", 0, "readings", 3, "sample"), False, "E_TYPE", "tiers[0].readings[3].sample"),
    ("votes", ("nodes", 1, "tallies", 0, "then", 0), "2", "E_TYPE", "nodes[1].tallies[0].then[0]"),
    ("votes", ("nodes", 1, "tallies", 0, "then", 0), -1, "E_TYPE", "nodes[1].tallies[0].then[0]"),
    ("votes", ("nodes", 1, "tallies", 4, "then", 0), None, "E_ACTION", "nodes[1]"),
    ("votes", ("nodes", 1, "tallies", 1, "cuts"), [3], "E_ACTION", "nodes[1]"),
    ("votes", ("tiers", 0, "readings", 0, "votes"), 4, "E_ACTION", "nodes[1]"),
    ("votes", ("vertices", 0, "beliefs", "1", 0, 0), 0.96, "E_PROB", "vertices[0].beliefs.1[0]"),
    ("votes", ("vertices", 0, "beliefs", "1", 1, 0), 0.2, "E_PROB", "vertices[0].beliefs.1[1]"),
    ("numbers", ("operating_point", "high"), 1, "E_RANGE", "operating_point.high"),
    *(
        ("policy", ("provenance", key), value, code, f"provenance.{key}{place}")
        for key, value, code, place in (
            ("log", None, "E_TYPE", ""),
            ("queries", 5, "E_TYPE", ""),
            ("rows", 5, "E_TYPE", ""),
            ("rows", None, "E_TYPE", ""),
            ("rows", ["0a:1b", 5], "E_TYPE", "[1]"),
            ("rows", ["nocolon"], "E_SCHEMA", "[0]"),
            ("rows", ["0a:1b", "0a:1b:2c:3d"], "E_SCHEMA", "[1]"),
            ("dearest", 3, "E_TYPE", ""),
            ("dearest", [["small"]], "E_SCHEMA", "[0]"),
            ("dearest", ["abc"], "E_SCHEMA", "[0]"),
            ("dearest", [["small", None, 1.0], ["small", None, "x"]], "E_TYPE", "[1].price"),
            ("dearest", [["small", None, -5.0]], "E_RANGE", "[0].price"),
            ("dearest", [[1, None, 5.0]], "E_TYPE", "[0].tier"),
            ("dearest", [["small", 1, 5.0]], "E_TYPE", "[0].reading"),
            ("prices", {"a": 1}, "E_TYPE", ""),
            ("prices", [["small", None, [0.5]]], "E_SCHEMA", "[0]"),
            ("prices", [["small", None, ["nan"], [1, 2]]], "E_TYPE", "[0].cuts[0]"),
            ("prices", [["small", None, [2.0, 1.0], [1, 2, 3]]], "E_RANGE", "[0].cuts"),
            ("prices", [["small", None, [-1.0], [1, 2]]], "E_RANGE", "[0].cuts[0]"),
            ("prices", [["small", None, [0.5], [1, -2]]], "E_RANGE", "[0].counts[1]"),
            ("prices", [["small", None, [0.5], [1]]], "E_SCHEMA", "[0].counts"),
        )
    ),
    ("outages", ("vertices", 0, "outages"), [], "E_SCHEMA", "vertices[0].outages"),
    ("outages", ("vertices", 0, "outages"), None, "E_TYPE", "vertices[0].outages"),
    ("outages", ("vertices", 0, "outages", 0), None, "E_TYPE", "vertices[0].outages[0]"),
    ("outages", ("vertices", 0, "outages", 0, "colour"), 1, "E_SCHEMA", "vertices[0].outages[0].colour"),
    ("outages", ("vertices", 1, "outages", 2, "root"), 13, "E_ACTION", "root 13"),
    ("outages", ("vertices", 1, "outages", 2, "root"), -1, "E_RANGE", "vertices[1].outages[2].root"),
    ("outages", ("vertices", 1, "outages", 2, "root"), 10, "E_ACTION", "nodes[10]"),
    ("outages", ("vertices", 1, "outages", 2, "root"), 8, "E_ACTION", "vertices[1].outages[2]"),
    ("outages", ("vertices", 1, "outages", 0, "context_roots", "code"), 9, "E_ACTION", "vertices[1].outages[0]"),
    ("outages", ("vertices", 1, "outages", 0, "context_roots"), {}, "E_SCHEMA",
     "vertices[1].outages[0].context_roots"),
    ("outages", ("vertices", 1, "outages", 0, "without"), [], "E_SCHEMA", "vertices[1].outages[0].without"),
    ("outages", ("vertices", 1, "outages", 0, "without"), ["lagre"], "E_SCHEMA",
     "vertices[1].outages[0].without[0]"),
    ("outages", ("vertices", 1, "outages", 0, "without"), ["medium"], "E_SCHEMA", "vertices[1].outages"),
    ("outages", ("vertices", 1, "outages", 0, "without"), ["small"], "E_SCHEMA", "vertices[1].outages"),
    ("outages", ("vertices", 1, "outages", 1, "without"), ["small", "large"], "E_SCHEMA",
     "vertices[1].outages[1].without"),
    ("outages", ("vertices", 1, "outages", 1, "without"), ["large", "large"], "E_SCHEMA",
     "vertices[1].outages[1].without"),
    ("outages", ("vertices", 1, "outages", 1, "without"), ["large", "medium", "small"], "E_SCHEMA",
     "vertices[1].outages[1].without"),
    ("policy", ("operating_point",), {"low": 1, "high": 0, "share": 0.5, "budget": None, "price": None}, "E_RANGE",
     "operating_point.high"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "value", "code", "place"), OF_EACH_KIND)
def test_a_golden_file_of_each_kind_is_refused_for(
    name: str, path: tuple[Any, ...], value: Any, code: str, place: str
) -> None:
    document = json.loads(GOLDEN.with_name(f"{name}.json").read_text("utf-8"))
    changed(*path, to=value)(document)
    error = refusal(sealed(document))
    assert error.code == code
    assert error.place.removeprefix("document.") == place


def test_what_is_read_of_the_provenance_may_be_there_or_not_beside_anything_else() -> None:
    told = {
        "rows": ["0a1b:2c"],
        "dearest": [["small", None, 5.0], ["gone", "look", 0]],
        "prices": [["small", None, [0.0, 2.5], [1, 2, 0]], ["small", "conf", [], [3]]],
        "queries": "sha256:1",
        **{"log": "", "tier": None, "dear": [3], "seed": 7},
    }
    for kept in ({}, told, {"rows": [], "dearest": [], "prices": []}):
        policy = parse_policy(sealed({**golden(), "provenance": kept}))
        assert policy.provenance == kept


def test_names_of_any_script_are_names() -> None:
    document = golden()
    document["context"] = [
        "aufgabe",
        "\u00e9t\u00e9",
        "\u05d2\u05d5\u05d3\u05dc",
        "\U0001f468\u200d\U0001f469 x",
        "\u00e8t\u00e9",
    ]
    assert parse_policy(sealed(document)).context == tuple(document["context"])


def test_a_score_is_neither_votes_nor_a_sample_and_adds_up_no_votes() -> None:
    scores = GOLDEN.with_name("scores.json")
    for path, key, value in (
        ((2,), "votes", 3),
        ((2,), "sample", True),
        ((0,), "votes", 3),
    ):
        document = json.loads(scores.read_text("utf-8"))
        document["tiers"][0]["readings"][path[0]][key] = value
        error = refusal(sealed(document))
        assert error.code == "E_SCHEMA"
        assert "readings[2].parts" in error.place


@pytest.mark.parametrize(("serial", "expires"), [(1, None), (2**63 - 1, 0.0), (0, 4e9)])
def test_an_edition_and_an_end_come_back_and_are_left_out_where_there_is_none(
    serial: int, expires: float | None
) -> None:
    policy = replace(load_policy(GOLDEN), serial=serial, expires=expires)
    text = dump_policy(policy)
    assert parse_policy(text.encode()) == policy
    assert ("serial" in json.loads(text), "expires" in json.loads(text)) == (serial != 0, expires is not None)
    assert policy.at(budget=4.0).serial == serial


def test_shares_may_add_up_to_what_rounding_makes_of_one() -> None:
    document = golden()
    for share, taken in ((0.5015, True), (0.502, False)):
        document["vertices"][0]["beliefs"]["3"][0][0] = share
        if taken:
            parse_policy(sealed(document))
        else:
            assert refusal(sealed(document)).code == "E_PROB"


def test_messages_are_short_whatever_the_file_holds() -> None:
    long = "x" * 5_000
    changes = [
        changed("format", to=long),
        changed(long, to=1),
        changed("context", to=[f"{long}\t"]),
        changed("nodes", 12, "call", to=long),
        changed("nodes", 6, "read", to=long),
        changed("vertices", 0, "beliefs", long, to=[]),
        changed("vertices", 0, "context_roots", long, to=1),
        changed("context_cuts", to={long: [1.0]}),
        changed("evidence", long, to=10**400),
    ]
    for change in changes:
        document = golden()
        change(document)
        data = sealed(document)
        assert len(str(refusal(data))) < 400
    assert len(str(refusal(f'{{"{long}": 1, "{long}": 2}}'.encode()))) < 400


def test_the_page_on_policy_files_names_every_code_that_the_library_has_and_no_other() -> None:
    root = GOLDEN.parents[2]
    source = "".join((root / "policies" / f"{name}.py").read_text("utf-8") for name in ("file", "document", "storage"))
    page = (root / "docs" / "policy-file.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(E_[A-Z]+)`", page, re.M)) == set(re.findall(r'"(E_[A-Z]+)"', source))


def test_the_golden_document_is_accepted_when_sealed_by_hand() -> None:
    assert parse_policy(sealed(golden())) == load_policy(GOLDEN)


@pytest.mark.parametrize("data", [b"", b" ", b"\n\t\r "])
def test_an_empty_file_is_refused(data: bytes) -> None:
    assert refusal(data).code == "E_EMPTY"


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    assert refusal(b"[" * (LIMIT + 1)).code == "E_SIZE"
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PolicyFileError, match="E_SIZE"):
        load_policy(path)


def test_what_is_no_file_is_refused_with_its_path(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "none" / "p.json", tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(PolicyFileError) as caught:
            load_policy(path)
        assert caught.value.code == "E_NOTFILE"
        assert caught.value.place == str(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + GOLDEN.read_bytes(),
        GOLDEN.read_bytes().decode().encode("utf-16"),
        GOLDEN.read_bytes().decode().encode("latin-1"),
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b'{"a": "x\\udfffy"}',
        b'{"\\ud800": 1}',
    ],
    ids=["byte-order mark", "utf-16", "latin-1", "encoded surrogate", "lone high", "lone low", "lone in a key"],
)
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    assert refusal(data).code == "E_ENCODING"


@pytest.mark.parametrize(
    "change",
    [
        changed("context", to=["\ud800"]),
        changed("evidence", "certificate", to=["\udfff"]),
        changed("evidence", "certificate", to=[[["\udfff"]]]),
        changed("salt", to="\ud800"),
        changed("vertices", 0, "context_roots", "\ud800", to=0),
    ],
    ids=["context", "an array", "an inner array", "salt", "a context's name"],
)
def test_a_lone_surrogate_is_refused_wherever_it_stands(change: Callable[[Document], None]) -> None:
    document = golden()
    change(document)
    assert refusal(sealed(document)).code == "E_ENCODING"


def test_a_pair_of_surrogates_is_a_letter() -> None:
    document = golden()
    document["evidence"]["note"] = "\U0001f600"
    assert b"\\ud83d\\ude00" in sealed(document)
    assert parse_policy(sealed(document)).evidence["note"] == "\U0001f600"


@pytest.mark.parametrize(
    "data",
    [
        *(b"{", b"x", b'{"a": 1,}', b"{'a': 1}", b'{"a": 01}', b'{"a": .5}', b'{"a": "\n"}', b"{} {}", b"\x00"),
        *(b'{"a" 1}', b'{"a": +1}', b'{"a": 0x1}', b"// {}", b'{"a": "\\x"}', b'{"a": True}', b"}", b'{"a": 1]', b'"'),
    ],
)
def test_what_is_not_json_is_refused_with_line_and_column(data: bytes) -> None:
    error = refusal(data)
    assert error.code == "E_SYNTAX"
    assert "line 1 column" in error.place or "line 2 column" in error.place


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null", b"true"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    assert refusal(data).code == "E_SCHEMA"


@pytest.mark.parametrize("data", [b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 2}}', b'{"a": [{"b": 1, "\\u0062": 2}]}'])
def test_a_key_that_stands_twice_is_refused(data: bytes) -> None:
    assert refusal(data).code == "E_DUPKEY"


def test_a_golden_file_with_any_line_of_an_object_twice_is_refused() -> None:
    lines = GOLDEN.read_text("utf-8").splitlines()
    for at, line in enumerate(lines):
        if line.startswith(' "') and line.endswith(","):
            assert refusal("\n".join([*lines[:at], line, *lines[at:]]).encode()).code == "E_DUPKEY"


def test_nesting_is_limited_but_brackets_in_text_are_not() -> None:
    for deep in (b'{"a": ' + b"[" * 100_000, b"[" * 13 + b"]" * 13, b'{"a":' * 13 + b"1" + b"}" * 13):
        assert refusal(deep).code == "E_DEPTH"
    document = golden()
    document["evidence"]["note"] = '[[[[[[[[[[[[[[[[[[{{{{ " \\ [[[ \\" [[[['
    assert parse_policy(sealed(document)).evidence == document["evidence"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400 + ".0"])
def test_a_number_that_is_not_finite_is_refused(number: str) -> None:
    data = GOLDEN.read_text("utf-8")
    for place in ('"rows":100', '"budget":5.0', '"share":0.25'):
        key = place.partition(":")[0]
        assert refusal(data.replace(place, f"{key}:{number}").encode()).code == "E_NONFINITE"


@pytest.mark.parametrize("digits", [20, 400, 5000])
def test_a_whole_number_beyond_sixty_four_bits_is_refused(digits: int) -> None:
    data = GOLDEN.read_text("utf-8").replace('"rows":100', f'"rows":{"9" * digits}')
    assert refusal(data.encode()).code == "E_NUMBER"


@pytest.mark.parametrize("claimed", ["", "sha256:", "sha256:" + "0" * 64, "x"])
def test_a_wrong_id_is_refused(claimed: str) -> None:
    assert refusal(json.dumps({**golden(), "id": claimed}).encode()).code == "E_CHECKSUM"


def test_an_id_in_capitals_or_of_another_type_is_refused() -> None:
    document = golden()
    assert refusal(json.dumps({**document, "id": document["id"].upper()}).encode()).code == "E_CHECKSUM"
    assert refusal(json.dumps({**document, "id": 1}).encode()).code == "E_TYPE"
    del document["id"]
    assert refusal(json.dumps(document).encode()).code == "E_SCHEMA"


def test_any_edit_of_a_value_without_a_new_id_is_refused() -> None:
    document = golden()
    document["operating_point"]["share"] = 0.26
    assert refusal(json.dumps(document).encode()).code == "E_CHECKSUM"


@examples(300)
@given(data=st.data())
def test_a_sealed_document_with_any_one_value_replaced_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    document = golden()
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            places.append((value, key))
            visit(inner)

    visit(document)
    holder, key = data.draw(st.sampled_from(places))
    match data.draw(st.sampled_from(["replace", "replace", "remove", "copy"])):
        case "remove":
            del holder[key]
        case "copy":
            other, at = data.draw(st.sampled_from(places))
            holder[key] = copy.deepcopy(other[at])
        case _:
            holder[key] = data.draw(plain_json)
    text = sealed(document)
    try:
        policy = parse_policy(text)
    except PolicyFileError as error:
        code = error.code
    else:
        code = "none"
        assert parse_policy(dump_policy(policy).encode()) == policy
    assert code in {*CODES, "none"}


def test_loading_adds_the_path_to_the_place(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    document = golden()
    document["tiers"][0]["price"] = -1
    path.write_bytes(sealed(document))
    with pytest.raises(PolicyFileError) as caught:
        load_policy(path)
    assert caught.value.code == "E_RANGE"
    assert caught.value.place == f"{path} tiers[0].price"
    assert str(caught.value) == f"E_RANGE at {path} tiers[0].price: is -1, outside [0, inf]"


@pytest.mark.parametrize("text", ["", '{"a: b": 1, "a: b": 2}', '{"x": "c: \\ud800"}'])
def test_loading_says_what_parsing_says(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    error = refusal(text.encode())
    message = str(error).removeprefix(error.code).removeprefix(f" at {error.place}").removeprefix(": ")
    with pytest.raises(PolicyFileError) as caught:
        load_policy(path)
    assert str(caught.value) == f"{error.code} at {f'{path} {error.place}'.strip()}: {message}"


# ----------------------------------------------------------------------------------------------------- saving


def policy_of(**changes: Any) -> Policy:
    return replace(load_policy(GOLDEN), **changes)


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def unsaveable() -> dict[str, Callable[[], Policy]]:
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    twin = (Vertex(0.5, 3.0, 0.75, 0), Vertex(0.1, 3.0, 0.8, 1), Vertex(0.1, 5.0, 0.8, 2), Vertex(0.1, 6.0, 0.8, 12))
    first, *others = load_policy(GOLDEN).tiers
    return {
        "NaN in the evidence": lambda: policy_of(evidence={"low": math.nan}),
        "infinity in the evidence": lambda: policy_of(evidence={"interval": [-math.inf, 1.0]}),
        "a set in the provenance": lambda: policy_of(provenance={"tiers": {"a"}}),
        "an object in the provenance": lambda: policy_of(provenance={"when": object()}),
        "keys of two types": lambda: policy_of(evidence={1: "a", "b": 2}),
        "a lone surrogate": lambda: policy_of(evidence={"note": "\ud800"}),
        "evidence nested too deep": lambda: policy_of(evidence={"deep": deep}),
        "evidence too long": lambda: policy_of(evidence={"long": "x" * LIMIT}),
        "a whole number too large": lambda: policy_of(evidence={"rows": 10**30}),
        "two vertices of one cost": lambda: policy_of(vertices=twin),
        "a NaN price": lambda: policy_of(tiers=(replace(first, price=math.nan), *others)),
        "a negative price": lambda: policy_of(tiers=(replace(first, price=-1.0), *others)),
        "a histogram of other cuts": lambda: policy_of(
            tiers=(replace(first, readings=(first.readings[0], replace(first.readings[1], counts=(1,)))), *others)
        ),
        "an infinite budget": lambda: policy_of(point=OperatingPoint(1, 1, 0.0, math.inf)),
        "a salt too long": lambda: policy_of(salt="x" * 65),
        "abstention worth more than 1": lambda: policy_of(abstain=1.5),
        "a belief for other outcomes": lambda: believing(policy_of(), {3: (Belief(0.5, (0.5,) * 3, (None,) * 3),)}),
        "two tiers of one name": lambda: policy_of(tiers=(first, *others, replace(first, price=2.0))),
    }


@pytest.mark.parametrize("what", unsaveable())
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, what: str) -> None:
    path = tmp_path / "p.json"
    save_policy(load_policy(GOLDEN), path)
    with pytest.raises((ValueError, TypeError)):
        save_policy(unsaveable()[what](), path)
    assert path.read_bytes() == GOLDEN.read_bytes()
    assert inside(tmp_path) == ["p.json"]


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda mask: os.umask(mask) and None  # type: ignore[func-returns-value]
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, umask: Callable[[int], None], mask: int) -> None:
    umask(mask)
    save_policy(load_policy(GOLDEN), tmp_path / "p.json")
    assert stat.S_IMODE((tmp_path / "p.json").stat().st_mode) == 0o666 & ~mask
    assert os.umask(mask) == mask


def test_saving_replaces_what_is_there_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    policy = load_policy(GOLDEN)
    for share in (0.1, 0.2, 0.3):
        changed_ = replace(policy, point=replace(policy.point, share=share))
        assert save_policy(changed_, path) == policy_id(changed_)
        assert load_policy(path) == changed_
        assert inside(tmp_path) == ["p.json"]


def test_a_path_may_be_text_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_policy(load_policy(GOLDEN), "p.json")
    assert load_policy("p.json") == load_policy(GOLDEN)


def test_saving_into_a_folder_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        save_policy(load_policy(GOLDEN), tmp_path / "none" / "p.json")
    assert inside(tmp_path) == []


class FullDisk:
    """A file that takes half of what it is given."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "disk full")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("step", ["fdopen", "fsync", "replace"])
@pytest.mark.parametrize("there", [True, False])
def test_a_failure_at_any_step_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException, there: bool
) -> None:
    path = tmp_path / "p.json"
    if there:
        save_policy(load_policy(GOLDEN), path)
    real, new = os.fdopen, policy_of(salt="new")

    def fail(*args: Any, **options: Any) -> Any:
        if step == "fdopen":
            return FullDisk(real(*args, **options))
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(BaseException, match=r"disk full|broken|^$"):
        save_policy(new, path)
    monkeypatch.undo()
    assert inside(tmp_path) == (["p.json"] if there else [])
    assert not there or path.read_bytes() == GOLDEN.read_bytes()


def test_data_reaches_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name, **o: (steps.append(name), real(*a, **o))[1])
    write_atomically(tmp_path / "x", b"data")
    assert steps[:2] == ["fsync", "replace"]
    assert (tmp_path / "x").read_bytes() == b"data"


def test_a_reader_beside_a_writer_sees_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    policies_ = [policy_of(salt=salt) for salt in "abc"]
    ids = {policy_id(policy) for policy in policies_}
    save_policy(policies_[0], path)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for policy in policies_:
                save_policy(policy, path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {policy_id(load_policy(path)) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= ids
    assert inside(tmp_path) == ["p.json"]


def test_a_stop_that_abstains_and_one_that_accepts_come_back() -> None:
    nodes = (Ask("small", 1), Read("small", "conf", (0.5,), (2, 3), 2), Stop(Abstain()), Stop(Accept("small")))
    tier = Tier("small", 1.0, (Reading("conf", 0.0, (), (0, 0)),))
    policy = Policy((tier,), nodes, (Vertex(0.0, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0), abstain=0.5)
    assert parse_policy(dump_policy(policy).encode()).nodes == nodes


def test_a_policy_with_half_a_letter_is_not_saved_and_told_so_in_these_words(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError) as caught:
        save_policy(replace(load_policy(GOLDEN), salt="a\ud800b"), tmp_path / "p.json")
    assert str(caught.value) == r"E_ENCODING at '\ud800': is a lone surrogate"
    assert list(tmp_path.iterdir()) == []


if __name__ == "__main__":
    GOLDEN.with_name("refusals.txt").write_text(refusals(), "utf-8", newline="\n")
