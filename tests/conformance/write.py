"""Write the conformance vectors anew: ``python -m tests.conformance.write``.

They are what a reader in any language is held against; docs/policy-format.md says what is in which file.  What is
decided is what `decide` says, and readers that share no code with it say the same in the tests beside this file.
Run this where the format or the decisions were changed on purpose, and read the difference before committing it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from metaverify.policies.explain import action_json
from metaverify.policies.file import PolicyFileError, dump_policy, parse_policy, policy_id
from metaverify.policies.graph import Ask, Graph, Poll, Read, Stop, nearest_tally
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Reading, Tier
from tests.conformance import policies
from tests.golden import make as golden
from tests.policies.reader import canonical, sealed

HERE = Path(__file__).resolve().parent
TAGS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
NAN, INFINITE, BELOW = ({"float": name} for name in TAGS)

MISSING: tuple[Any, ...] = (None, NAN, INFINITE, BELOW, -5e-324, math.nextafter(1.0, 2.0), -1, 2, 100)
ENDS: tuple[Any, ...] = (0, 1, 0.0, 1.0, -0.0, 5e-324, math.nextafter(1.0, 0.0))
NO_CONFIDENCES: tuple[Any, ...] = (True, False, "0.5", "", [0.5], [1, 2], {"conf": 0.5}, {})
NO_VOTES: tuple[Any, ...] = (0.5, 1, True, "3", [], [1], [1, 2, 3], [2, 1], [-1, 2], [0.5, 1], ["1", 2], INFINITE)
UNSEEN = ("never seen", "", "__proto__", "constructor", "toString")

Case = dict[str, Any]


def untagged(value: Any) -> Any:
    """A value of a vector as the library takes it."""
    if isinstance(value, dict):
        return TAGS[value["float"]] if value.keys() == {"float"} else {key: untagged(v) for key, v in value.items()}
    return value


def outcome(policy: Policy, case: Mapping[str, Any]) -> Case:
    """What the library does with a case: an action, or that it refuses."""
    told = {name: untagged(value) for name, value in case.items()}
    try:
        for dial in ("budget", "price"):
            policy = policy.at(**{dial: told[dial]}) if dial in told else policy
        policy = policy.without(*told.get("without", ()))
        action = policy.decide(told["readings"], context=told.get("context"), key=told.get("key"))
    except (ValueError, TypeError):
        return {}
    return {"action": action_json(action)}


def refused(why: str, **case: Any) -> Case:
    """A case that every reader must refuse, and why."""
    return {**case, "refused": why}


def near(cuts: Iterable[float]) -> Iterator[float]:
    """Every cut, and the doubles below and above it."""
    for cut in cuts:
        yield from (cut, math.nextafter(cut, -math.inf), math.nextafter(cut, math.inf))


# --------------------------------------------------------------------------------------------- along the graph


def edges(policy: Policy) -> Iterator[Case]:
    """Every node in use, by one way to it, with every branch and its edges, from every root and in both arms."""
    point = policy.point
    outages = [(), *(outage.without for outage in policy.vertices[0].outages)]
    for arm, down in itertools.product(sorted({point.low, point.high}), outages):
        key = next(key for key in range(1000) if policy.arm(key) == arm) if point.low != point.high else None
        vertex = policy.vertices[arm]
        start = next(outage for outage in vertex.outages if outage.without == down) if down else vertex
        for label, root in ((None, start.root), *start.context_roots.items()):
            known = {"context": label, "key": key, "without": list(down)}
            given = {name: value for name, value in known.items() if value not in (None, [])}
            for case in from_root(policy, root):
                yield {**case, **given}


def from_root(policy: Policy, root: int) -> Iterator[Case]:
    """The cases below a root, each node come to once."""
    tiers = {tier.name: tier for tier in policy.tiers}
    ways: dict[int, dict[str, dict[str, Any]]] = {root: {}}
    for at in range(root, len(policy.nodes)):
        if at not in ways:
            continue
        match policy.nodes[at]:
            case Ask(tier, then):
                yield {"readings": ways[at]}
                yield {"readings": {**ways[at], tier: None}}
                ways.setdefault(then, {**ways[at], tier: {}})
            case Read() | Poll() as look:
                tier = tiers[look.tier]
                reading = next(each for each in tier.readings if each.name == look.reading)
                for way, case in looks(policy.nodes, look, tier, reading, ways[at]):
                    yield case
                    if way is not None:
                        ways.setdefault(way, case["readings"])
            case Stop():
                yield {"readings": {name: {**given, "no such reading": 0.5} for name, given in ways[at].items()}}


def looks(
    nodes: Graph, node: Read | Poll, tier: Tier, reading: Reading, known: Mapping[str, Any]
) -> Iterator[tuple[int | None, Case]]:
    """Everything that a reading can be, and the node after it where it is told whole and by name."""

    def told(values: Mapping[str, Any]) -> Case:
        return {"readings": {**known, tier.name: {**known.get(tier.name, {}), **values}}}

    yield None, {"readings": dict(known)}
    yield None, told({})
    if reading.votes:
        most = len(node.tallies) if isinstance(node, Poll) else reading.votes
        for asked in (*range(most + 3), 7 * most + 1):
            for yes in range(asked + 1) if asked <= most + 2 else (0, asked // 2, asked):
                yield after_votes(node, most, yes, asked), told({reading.name: [yes, asked]})
        yield node.missing, told({reading.name: None})
        yield None, told({reading.name: NAN})
        for value in NO_VOTES:
            yield None, refused("votes", **told({reading.name: value}))
        return
    assert isinstance(node, Read)
    for value in [*near(node.cuts), *ENDS]:
        if 0.0 <= value <= 1.0:
            after = node.then[sum(cut <= value for cut in node.cuts)]
            yield after, told({reading.name: value})
    for value in MISSING:
        yield (node.missing if value is None else None), told({reading.name: value})
    for value in NO_CONFIDENCES:
        yield None, refused("reading", **told({reading.name: value}))
    if tier.readings[0].name == reading.name and not known.get(tier.name):
        for bare in [*near(node.cuts), 0, 1, None, NAN, 2]:
            yield None, {"readings": {**known, tier.name: bare}}
        yield None, refused("reading", readings={**known, tier.name: "0.5"})
        yield None, refused("reading", readings={**known, tier.name: True})
    if reading.parts:
        values = [[0.0, *near(part.cuts), 1.0, None] for part in reading.parts]
        whole = [{part.reading: 0.5 for part in reading.parts}, {part.reading: None for part in reading.parts}]
        for at, part in enumerate(reading.parts):
            yield None, told({other.reading: 0.5 for other in reading.parts[:at]})
            yield None, told({other.reading: 0.5 for other in reading.parts if other is not part})
            yield None, refused("reading", **told({**whole[0], part.reading: True}))
            for base, value in itertools.product(whole, [*values[at], NAN, 2]):
                yield None, told({**base, part.reading: value})
        corners = itertools.product(*([*part.cuts, 0.0, None] for part in reading.parts))
        for corner in itertools.islice(corners, 200):
            yield None, told({part.reading: value for part, value in zip(reading.parts, corner, strict=True)})


def after_votes(node: Read | Poll, most: int, yes: int, asked: int) -> int | None:
    """The node after so many votes; None where one more is wanted."""
    if asked == 0 or (asked < most and isinstance(node, Read)):
        return None
    yes, asked = nearest_tally(yes, asked, most)
    if isinstance(node, Read):
        return node.then[sum(cut <= yes / most for cut in node.cuts)]
    return node.tallies[asked - 1].after(yes)


def around(policy: Policy) -> Iterator[Case]:
    """What is the same of every policy: names that are not known, contexts never seen, no key."""
    key = {"key": "request-1"} if policy.point.low != policy.point.high else {}
    for name in ("no such tier", "", "constructor", "__proto__"):
        if name not in [tier.name for tier in policy.tiers]:
            yield refused("tier", readings={name: {}}, **key)
            yield refused("tier", readings={policy.tiers[0].name: 0.5, name: None}, **key)
    labels = policy.vertices[0].context_roots
    yield from ({"readings": {}, "context": label, **key} for label in UNSEEN if label not in labels)
    if policy.context:
        yield refused("context", readings={}, context={}, **key)
        yield refused("context", readings={}, context=dict.fromkeys(policy.context[1:], "x"), **key)
    yield refused("outage", readings={}, without=["no such tier"], **key)
    yield refused("outage", readings={}, without=[tier.name for tier in policy.tiers if tier.answer], **key)
    if 0.0 < policy.point.share < 1.0 and key:
        yield refused("key", readings={})


# ---------------------------------------------------------------------------------------- of one policy alone


def dials(policy: Policy) -> Iterator[Case]:
    """Budgets at the cost of every vertex, beside it and between, prices where two vertices are alike, and keys."""
    costs = [vertex.cost for vertex in policy.vertices]
    some = [0.5 * (low + high) for low, high in itertools.pairwise(costs)] + [
        0.1 * low + 0.9 * costs[-1] for low in costs
    ]
    keys: list[Any] = [*policies.KEYS[::2], *range(8)]
    for budget in [*near(costs), *some, 2 * costs[-1], 10**6]:
        if budget >= costs[0] * (1 - 1e-9):
            yield from ({"readings": {}, "budget": budget, "key": key} for key in keys)
    yield {"readings": {}, "budget": INFINITE}
    for tier, cost in zip(policy.tiers, costs, strict=True):
        yield {"readings": {}, "budget": cost}
        yield {"readings": {tier.name: {}}, "budget": cost}
    slopes = [
        (after.quality - before.quality) / (after.cost - before.cost)
        for before, after in itertools.pairwise(policy.vertices)
    ]
    for price in [0, *near(slopes), *(2 * slope for slope in slopes), 0.7 * slopes[0], 1e300]:
        yield {"readings": {}, "price": price}
    yield from ({"readings": {}, "key": key} for key in keys)
    for budget in (0, 0.99 * costs[0], -1, NAN, BELOW):
        yield refused("budget", readings={}, budget=budget, key="request-1")
    yield from (refused("price", readings={}, price=price) for price in (-1e-300, -1, NAN, INFINITE))
    yield refused("key", readings={}, budget=some[0])


def shares(policy: Policy) -> Iterator[Case]:
    """A share beside what a key draws."""
    del policy
    yield from ({"readings": {}, "key": key} for key in [*policies.KEYS, *range(40)])


def columns(policy: Policy) -> Iterator[Case]:
    """Values of context columns: every interval, its ends, texts that are numbers, and what is no number."""
    told: list[Any] = [cut for cuts in policy.context_cuts.values() for cut in near(cuts)]
    told += [
        0,
        -0.0,
        1,
        7,
        10**15,
        True,
        False,
        None,
        NAN,
        INFINITE,
        BELOW,
        "",
        " ",
        "120",
        " 120\t",
        "\n1.2e2 ",
        "+120.",
    ]
    told += [
        ".5",
        "-.5e-3",
        "1e400",
        "nan",
        "inf",
        "-Infinity",
        "0x10",
        "1_0",
        "1e",
        ".",
        "e5",
        "１２",
        "12 0",
        [],
        [120],
        {},
    ]
    for column, value in itertools.product(policy.context_cuts, told):
        others = {name: 0 for name in policy.context_cuts if name != column} | {"task": "qa"}
        yield {"readings": {}, "context": {**others, column: value}}
    for label in policy.vertices[0].context_roots:
        yield {"readings": {}, "context": label}
    full = dict.fromkeys(policy.context_cuts, 0)
    yield from ({"readings": {}, "context": {**full, "task": task}} for task in ("code", "q/a", "", "q\\a"))
    yield {"readings": {}, "context": {**full, "task": "qa", "further": {"is": "passed over"}}}


def words(policy: Policy) -> Iterator[Case]:
    """Labels and columns of every script, with what has to be escaped."""
    del policy
    values: list[Any] = ["a", "a/b", "a\\b", "", "résumé", "re\u0301sume\u0301", "模型", "🙂", "__proto__", 7, -7, 0]
    for one, other in itertools.product(values, values):
        yield {"readings": {}, "context": {"task": one, "tenant": other}}
    for label in (
        "a/b",
        "a\\/b/c",
        "a/b/c",
        "7/a",
        "résumé/模型",
        "re\u0301sume\u0301/模型",
        "🙂/🙂",
        "__proto__/",
        "/",
    ):
        yield {"readings": {}, "context": label}
    yield refused("context", readings={}, context=7)
    yield refused("context", readings={}, context=["a", "b"])


def unread(policy: Policy) -> Iterator[Case]:
    """What the walk does not come to is not looked at, and what it comes to is."""
    for value in ("0.9", True, [0.5], {"judge": "0.9"}, {"no such reading": "0.9"}):
        yield {"readings": {"large": value}, "key": 0}
        yield {"readings": {"small": 0.9, "medium": value, "large": value}, "key": 0}
    yield {"readings": {"small": {"self_verify": 0.9, "judge": "0.9"}}, "key": 0}
    del policy


def down(policy: Policy) -> Iterator[Case]:
    """Outages that a larger one covers, and the order in which they are named."""
    del policy
    states: list[Any] = [{}, {"small": 0.6}, {"small": 0.1}, {"small": 0.6, "medium": {}}, {"large": {}}]
    for names in (["small"], ["small", "large"], ["large", "small"], ["medium"], []):
        yield from ({"readings": state, "without": names, "key": key} for state in states for key in (0, 1, 2, 3))
    yield refused("outage", readings={}, without=["medium", "large"], key=0)


def covered(policy: Policy) -> Iterator[Case]:
    """Every set of tiers that some outage covers, in both orders."""
    for outage in policy.vertices[0].outages:
        for size in range(1, len(outage.without) + 1):
            for names in itertools.permutations(outage.without, size):
                for context in (None, "task", "other"):
                    yield {"readings": {}, "without": list(names), "context": context}
    yield refused("outage", readings={}, without=["d"])
    yield refused("outage", readings={}, without=["a", "d"])


VECTORS: dict[str, tuple[Callable[[], Policy], Callable[[Policy], Iterator[Case]] | None]] = {
    "mixture": (golden.golden_policy, unread),
    "signals": (golden.signals_policy, None),
    "votes": (golden.votes_policy, None),
    "numbers": (golden.numbers_policy, None),
    "scores": (golden.scores_policy, None),
    "outages": (golden.outages_policy, down),
    "covers": (policies.covers, covered),
    "dial": (policies.dial, dials),
    "share": (policies.share, shares),
    "intervals": (policies.intervals, columns),
    "labels": (policies.labels, words),
    "names": (policies.names, None),
    "ballots": (policies.ballots, None),
    "sums": (policies.sums, None),
    "cuts": (policies.cuts, None),
}


def decided(policy: Policy, case: Case) -> Case:
    """A case with what the library decides.

    Raises:
        AssertionError: it refuses what is to be decided, or decides what is to be refused.
    """
    found = outcome(policy, case)
    assert bool(found) != ("refused" in case), (case, found)
    return {**case, **found}


def lines(items: Sequence[Any]) -> str:
    """A JSON list, an item a line."""
    return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=True, allow_nan=False) for item in items) + "\n]"


def vectors_of(name: str) -> str:
    """The text of a file of cases, each of them once."""
    make, more = VECTORS[name]
    policy = make()
    cases = [*edges(policy), *around(policy), *(more(policy) if more else ())]
    once = {json.dumps(case): case for case in cases}
    about = " ".join((make.__doc__ or "").split())
    return (
        f'{{"about": {json.dumps(about)},\n"policy": {json.dumps(dump_policy(policy))},\n'
        f'"cases": {lines([decided(policy, case) for case in once.values()])}}}\n'
    )


# ---------------------------------------------------------------------------------------- hashes and documents


def draws() -> str:
    """What keys draw, and below what a draw goes to the dearer vertex."""
    salts = ("", "golden", "salé", "s" * 64)
    rows = [
        {"salt": salt, "key": key, "draw": blake2b(str(key).encode(), digest_size=7, key=salt.encode()).hexdigest()}
        for salt in salts
        for key in [*policies.KEYS, 0, 42, -1, 2**53, *(["x" * size for size in (127, 128, 129, 256, 1000)])]
    ]
    given = [0.25, 0.1, 1 / 3, 0.7, 5e-324, 2.0**-56, 2.0**-55, math.nextafter(1.0, 0.0), math.nextafter(0.5, 1.0)]
    limits = [{"share": share, "limit": f"{math.ceil(share * 2.0**56):014x}"} for share in given]
    return f'{{"draws": {lines(rows)},\n"limits": {lines(limits)}}}\n'


def documents() -> str:
    """Texts of files, with their ids, or what they are refused for."""
    plain = golden.spread_policy()
    named = replace(policies.names(), provenance=policies.PROVENANCE)
    body = json.loads(dump_policy(plain))
    spread, text = json.dumps(body, indent=3, sort_keys=False), dump_policy(plain)
    reordered = json.dumps(dict(reversed(body.items())))
    accepted = {
        "as metaverify writes it": text,
        "all in one line": json.dumps(body),
        "indented, with the same id": spread,
        "keys in another order, with the same id": reordered,
        "numbers written otherwise, with the same id": text.replace('"price":0.125', '"price":125.0e-3'),
        "texts of every kind": dump_policy(named),
        "texts of every kind, escaped, with the same id": json.dumps(json.loads(dump_policy(named))),
        "a slash escaped, with the same id": text.replace('"golden"', '"g\\u006flden"'),
    }
    changed: dict[str, tuple[dict[str, Any], str]] = {
        "another format": ({**body, "format": "metaverify-comparison"}, "E_SCHEMA"),
        "another version": ({**body, "version": 2}, "E_VERSION"),
        "a key that nobody knows": ({**body, "temperature": 1.0}, "E_SCHEMA"),
        "a key that nobody knows, of a tier": (nested(body, "tiers", rate=1.0), "E_SCHEMA"),
        "a key that nobody knows, of a node": (nested(body, "nodes", retry=True), "E_SCHEMA"),
        "a key that nobody knows, of a vertex": (nested(body, "vertices", risk=0.5), "E_SCHEMA"),
        "a key that nobody knows, of the operating point": (
            {**body, "operating_point": {**body["operating_point"], "mode": "x"}},
            "E_SCHEMA",
        ),
        "a whole number where a point belongs": (nested(body, "tiers", price=1), "E_NUMBER"),
        "a version with a point": ({**body, "version": 1.0}, "E_TYPE"),
        "a node that leads to itself": (nested(body, "nodes", then=0), "E_ACTION"),
        "a call of what is no tier": (nested(body, "nodes", call="medium"), "E_ACTION"),
        "a name with a space at its end": (nested(body, "tiers", name="small "), "E_NAME"),
        "a share above 1": ({**body, "operating_point": {**body["operating_point"], "share": 1.5}}, "E_RANGE"),
    }
    torn = {
        "one digit of the id": (text.replace(body["id"], "sha256:" + "0" * 64), "E_CHECKSUM"),
        "a price that was changed by hand": (text.replace('"price":10.0', '"price":1.0'), "E_CHECKSUM"),
        "a 1.0 that became 1": (text.replace('"price":10.0', '"price":10'), "E_CHECKSUM"),
        "half of the file": (text[: len(text) // 2], "E_SYNTAX"),
        "a key twice": (text.replace('"salt": ', '"salt": "x",\n "salt": '), "E_DUPKEY"),
        "a number that is none": (text.replace('"price":10.0', '"price":NaN'), "E_NONFINITE"),
    }
    rows = [
        {"about": about, "file": file, "canonical": body_of(file), "id": policy_id(parse_policy(file.encode()))}
        for about, file in accepted.items()
    ]
    refusals = {about: (sealed(document).decode(), code) for about, (document, code) in changed.items()} | torn
    for about, (file, code) in refusals.items():
        found = refusal(file)
        if found != code:
            raise AssertionError(f"{about}: {found}, not {code}")
        rows.append({"about": about, "file": file, "refused": code})
    return f'{{"documents": {lines(rows)}}}\n'


def refusal(file: str) -> str:
    """The code that a file is refused for, or nothing."""
    try:
        parse_policy(file.encode())
    except PolicyFileError as error:
        return error.code
    return ""


def nested(body: Mapping[str, Any], key: str, **values: Any) -> dict[str, Any]:
    """The document with its first tier, node or vertex changed."""
    first, *others = body[key]
    return {**body, key: [{**first, **values}, *others]}


def body_of(file: str) -> str:
    """The canonical text of a file without its id."""
    return canonical({key: value for key, value in json.loads(file).items() if key != "id"})


def conformance_files() -> dict[str, str]:
    """The text of each file of vectors, by name."""
    cases = {f"decide-{name}.json": vectors_of(name) for name in VECTORS}
    return {**cases, "draws.json": draws(), "documents.json": documents()}


if __name__ == "__main__":
    for name, text in conformance_files().items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {HERE / name}: {len(text):,} bytes")
