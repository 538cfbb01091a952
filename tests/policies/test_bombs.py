"""Small files that ask for much: what a sealed file takes to read grows with its bytes and with nothing else."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from metaverify.policies.file import PolicyFileError, parse_policy

from .reader import sealed

Document = dict[str, Any]


def reading(name: str, votes: int = 0) -> Document:
    return {"name": name, "price": 0.0, "cuts": [], "counts": [1, 0]} | ({"votes": votes} if votes else {})


def tier(name: str, *readings: Document) -> Document:
    return {"name": name, "price": 0.0, "readings": list(readings)}


def read(name: str, of: str, then: list[int], missing: int) -> Document:
    cuts = [at / len(then) for at in range(1, len(then))]
    return {"read": name, "of": of, "cuts": cuts, "then": then, "missing": missing}


def policy(
    tiers: list[Document], nodes: list[Document], roots: list[int], outages: list[Document] | None = None
) -> Any:
    own = {"outages": outages} if outages else {}
    vertices = [
        {"price": 0.0, "cost": float(at), "quality": 0.5, "root": root, "context_roots": {}, "beliefs": {}} | own
        for at, root in enumerate(roots)
    ]
    point = {"low": 0, "high": 0, "share": 0.0, "budget": None, "price": None}
    return {
        **{"format": "metaverify-policy", "version": 1, "salt": "", "context": [], "abstain": 0.0, "tiers": tiers},
        **{"nodes": nodes, "vertices": vertices, "operating_point": point, "evidence": {}, "provenance": {}},
    }


def chain(tiers: int, roots: list[int]) -> Any:
    """Every tier called, one after the other."""
    nodes = [{"call": f"a{at}", "then": at + 1} for at in range(tiers)]
    return policy([tier(f"a{at}") for at in range(tiers)], [*nodes, {"abstain": True}], roots)


def wide(looks: list[Document], readings: list[Document], calls: int = 1) -> Any:
    """So many calls, then a reading with a branch for each of these nodes, which all end alike."""
    tiers = [tier("a", reading("first"), *readings), *(tier(f"a{at}") for at in range(1, calls))]
    begin = [{"call": "a" if at == 0 else f"a{at}", "then": at + 1} for at in range(calls)]
    end = calls + 1 + len(looks)
    fork = read("first", "a", [*range(calls + 1, end)], end)
    moved = [{key: end if value == -1 else value for key, value in look.items()} for look in looks]
    moved = [look | ({"then": [end] * len(look["then"])} if "then" in look else {}) for look in moved]
    return policy(tiers, [*begin, fork, *moved, {"accept": "a"}], [0])


def late(nodes: int) -> Any:
    """Many nodes that read the last of many readings."""
    return wide([read("r299", "a", [-1], -1) for _ in range(nodes)], [reading(f"r{at}") for at in range(300)])


def laden(nodes: int) -> Any:
    """Many nodes that come after many calls."""
    return wide([read("r", "a", [-1], -1) for _ in range(nodes)], [reading("r")], 300)


def all_votes(nodes: int) -> Any:
    """Many nodes that read a share of as many votes as there may be."""
    return wide([read("r", "a", [-1], -1) for _ in range(nodes)], [reading("r", 1024)])


def polls(nodes: int) -> Any:
    """Many polls, each with as many tallies as there may be."""
    asking = [{"cuts": [], "then": [None]} for _ in range(1023)]
    document = wide([read("r", "a", [-1], -1) for _ in range(nodes)], [reading("r", 1024)])
    end = len(document["nodes"]) - 1
    polled = {"poll": "r", "of": "a", "tallies": [*asking, {"cuts": [], "then": [end]}], "missing": end}
    return document | {"nodes": [*document["nodes"][:2], *[polled] * nodes, document["nodes"][-1]]}


def down(outages: int) -> Any:
    """Many outages, of all tiers but two, with a root for each of many contexts."""
    document = chain(300, [0])
    names = sorted(f"a{at}" for at in range(1, 300))
    labels = [f"c{at}" for at in range(300)]
    nodes = [*document["nodes"], {"call": "a0", "then": 302}, {"accept": "a0"}]
    roots = dict.fromkeys(labels, 301)
    without = [[name for name in names if name != left] for left in names[:outages]]
    listed = [{"without": down, "root": 301, "context_roots": roots} for down in without]
    document = policy(document["tiers"], nodes, [0], listed)
    document["vertices"][0]["context_roots"] = dict.fromkeys(labels, 0)
    return document


def spread(vertices: int) -> Any:
    """Many vertices, each with a root of its own within a long chain."""
    return chain(500, [0, *range(1, vertices)])


def lines_and_bytes(data: bytes) -> tuple[int, int]:
    """How many lines of Python reading a file takes, and how much memory at the most."""
    lines = 0

    def count(_: FrameType, event: str, __: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        parse_policy(data)
    finally:
        sys.settrace(before)
    tracemalloc.start()
    try:
        parse_policy(data)
        return lines, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("bomb", "size", "most"),
    [(late, 200, 4), (laden, 200, 4), (all_votes, 200, 4), (polls, 2, 4), (down, 10, 4), (spread, 100, 9)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_file_takes_to_read_grows_with_its_bytes(bomb: Callable[[int], Document], size: int, most: int) -> None:
    small, large = sealed(bomb(size)), sealed(bomb(2 * size))
    lines, memory = lines_and_bytes(small)
    more_lines, more_memory = lines_and_bytes(large)
    further = len(large) - len(small)
    assert more_lines - lines <= most * further
    assert more_memory - memory <= 50 * further


def test_five_hundred_tiers_signals_and_readings_are_read_and_one_more_than_that_is_refused() -> None:
    parse_policy(sealed(chain(512, [0])))
    for document in (chain(513, [0]), wide([], [reading(f"r{at}") for at in range(512)]), chain(2000, [0])):
        with pytest.raises(PolicyFileError, match="512 tiers, signals and readings; keep") as caught:
            parse_policy(sealed(document))
        assert (caught.value.code, caught.value.place) == ("E_SIZE", "document.tiers")
