"""Write the conformance vectors anew: ``python -m tests.conformance.write``.

They are what a reader in any language is held against; docs/policy-format.md says what is in which file.  What is
decided is what `decide` says, and readers that share no code with it say the same in the tests beside this file.
Run this where the format or the decisions were changed on purpose, and read the difference before committing it.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from metaverify.policies.explain import action_json
from metaverify.policies.file import PolicyFileError, dump_policy, load_policy, policy_id
from metaverify.policies.graph import Ask, Graph, Poll, Read, Stop, nearest_tally
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Reading, Tier
from tests.conformance import policies
from tests.golden import make as golden
from tests.policies.reader import canonical, sealed

HERE = Path(__file__).resolve().parent
TAGS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
NAN, INFINITE, BELOW = ({"float": name} for name in TAGS)
NO_PRICES: tuple[Any, ...] = (-1e-300, -1, NAN, INFINITE, BELOW, "0.1", True, None, [0.1])

MISSING: tuple[Any, ...] = (None, NAN, INFINITE, BELOW, -5e-324, math.nextafter(1.0, 2.0), -1, 2, 100)
ENDS: tuple[Any, ...] = (0, 1, 0.0, 1.0, -0.0, 5e-324, math.nextafter(1.0, 0.0))
NO_CONFIDENCES: tuple[Any, ...] = (True, False, "0.5", "", [0.5], [1, 2], {"conf": 0.5}, {})
NO_VOTES: tuple[Any, ...] = (0.5, 1, True, "3", [], [1], [1, 2, 3], [2, 1], [-1, 2], [0.5, 1], ["1", 2])
NO_VOTES += ([1, 1.5], [None, 1], [[1], 1], INFINITE)
HALVES = ("\ud800", "a\udc00b")  # of surrogate pairs: no texts
UNSEEN = ("never seen", "", "__proto__", "constructor", "toString")

Case = dict[str, Any]


def untagged(value: Any) -> Any:
    """A value of a vector as the library takes it."""
    if isinstance(value, dict):
        return TAGS[value["float"]] if value.keys() == {"float"} else {key: untagged(v) for key, v in value.items()}
    return value


def outcome(policy: Policy, case: Mapping[str, Any]) -> Case:
    """What the library does with a case: an action, and whether the certificate holds, or that it refuses."""
    told, promised = {name: untagged(value) for name, value in case.items()}, policy.certificate is not None
    try:
        for dial in ("budget", "price"):
            policy = policy.at(**{dial: told[dial]}) if dial in told else policy
        policy = policy.without(*told.get("without", ()))
        action = policy.decide(told["readings"], context=told.get("context"), key=told.get("key"))
    except (ValueError, TypeError):
        return {}
    return {"action": action_json(action), **({"certified": policy.certificate is not None} if promised else {})}


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
        for yes, asked in [*far(most), (1.0, 1), (float(most), float(most)), (True, 1), (False, 1)]:
            yield after_votes(node, most, int(yes), int(asked)), told({reading.name: [yes, asked]})
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
            if at > 0:
                yield None, told({part.reading: "0.5"})
            yield None, refused("reading", **told({**whole[0], part.reading: True}))
            for base, value in itertools.product(whole, [*values[at], NAN, 2]):
                yield None, told({**base, part.reading: value})
        corners = itertools.product(*([*part.cuts, 0.0, None] for part in reading.parts))
        for corner in itertools.islice(corners, 200):
            yield None, told({part.reading: value for part, value in zip(reading.parts, corner, strict=True)})


def far(most: int) -> Iterator[tuple[int, int]]:
    """So many votes that doubles lose them, where the nearest tally of ``most`` goes up by one."""
    for asked, tally in itertools.product((2**53 - 1, 2**52 + 1, 3**33), range(1, most + 1)):
        enough = -(-asked * (2 * tally - 1) // (2 * most))
        yield from ((enough - 1, asked), (enough, asked))


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
    yield from (refused("context", readings={}, context=context, **key) for context in (7, True, [], ["task"]))
    if not policy.context:
        yield {"readings": {}, "context": {}, **key}
    if 0.0 < policy.point.share < 1.0 and key:
        yield from (refused("key", readings={}, **given) for given in ({}, *({"key": half} for half in HALVES)))
    else:
        yield from ({"readings": {}, "key": half} for half in HALVES)


# ---------------------------------------------------------------------------------------- of one policy alone


def each(policy: Policy) -> Iterator[Case]:
    """Every vertex, where each has a tier of its own, by its cost."""
    for tier, vertex in zip(policy.tiers, policy.vertices, strict=True):
        yield {"readings": {}, "budget": vertex.cost}
        yield {"readings": {tier.name: {}}, "budget": vertex.cost}


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
    yield from each(policy)
    slopes = [
        (after.quality - before.quality) / (after.cost - before.cost)
        for before, after in itertools.pairwise(policy.vertices)
    ]
    for price in [0, *near(slopes), *(2 * slope for slope in slopes), 0.7 * slopes[0], 1e300]:
        yield {"readings": {}, "price": price}
    yield from ({"readings": {}, "key": key} for key in keys)
    for budget in (0, 0.99 * costs[0], -1, NAN, BELOW, "1.1", True, None, [1.1]):
        yield refused("budget", readings={}, budget=budget, key="request-1")
    yield from (refused("price", readings={}, price=price) for price in NO_PRICES)
    yield refused("key", readings={}, budget=some[0])


def drawn(policy: Policy) -> Iterator[Case]:
    """Shares that are what a key draws, as far as doubles go, which have three bits less; and those beside it."""
    yield from each(policy)
    for key in range(24):
        share = int(blake2b(str(key).encode(), digest_size=7, key=policy.salt.encode()).hexdigest(), 16) / 2**56
        yield from ({"readings": {}, "budget": budget, "key": key} for budget in near([share]))


def promises(policy: Policy) -> Iterator[Case]:
    """The dial at the cost of a certificate, a little beside it, and further away; and in an outage."""
    yield from each(policy)
    assert policy.certificate is not None
    own = policy.certificate.cost
    for budget in (1.0, 1.5, *(own * (1 + off * 1e-9) for off in (-2, -0.5, 0, 0.5, 2)), 3.0, 4.0, 10**6):
        yield from ({"readings": {}, "budget": budget, "key": key} for key in (0, 1, 2))
        yield {"readings": {}, "budget": budget, "key": 0, "without": ["a"]}
    yield from ({"readings": {}, "price": price} for price in (0, 0.1, 0.2, 0.5))
    yield refused("context", readings={}, context={"tenant": "a"})
    yield {"readings": {}, "context": {"task": None}}


def plain(policy: Policy) -> Iterator[Case]:
    """Values of one column, and what is none."""
    values: list[Any] = [*policy.vertices[0].context_roots, "a", 7, -7, 10**20, True, False, None, 1.5, 1e-05, -0.25]
    for value in [*values, NAN, INFINITE, BELOW]:
        yield {"readings": {}, "context": {"task": value}}
    for value in ([], ["a"], {}, {"task": "a"}):
        yield refused("context", readings={}, context={"task": value})


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
        "\v120\f\r",
        "\u00a0120",
        "120\u2003",
        "\ufeff120",
        "\u0085120",
        "\u001c120",
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
    values: list[Any] = [
        "a",
        "a/b",
        "a\\b",
        "",
        "résumé",
        "re\u0301sume\u0301",
        "模型",
        "🙂",
        "__proto__",
        7,
        -7,
        0,
        None,
        True,
        1.5,
    ]
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
    for value in ([], ["a"], {}):
        yield refused("context", readings={}, context={"task": "a", "tenant": value})


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
    "draws": (policies.draws, drawn),
    "expected": (policies.expected, promises),
    "realised": (policies.realised, promises),
    "floor": (policies.floor, promises),
    "intervals": (policies.intervals, columns),
    "labels": (policies.labels, words),
    "column": (policies.column, plain),
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
        "nested 12 deep": sealed(deep(body, 12)).decode(),
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
    changed |= {f"no {key}": ({name: body[name] for name in body if name != key}, "E_SCHEMA") for key in NEEDED}
    for key, name in (("tiers", "price"), ("nodes", "then"), ("vertices", "context_roots")):
        first, *others = body[key]
        changed[f"no {name} among {key}"] = ({**body, key: [without(first, name), *others]}, "E_SCHEMA")
    changed |= {
        "no share": ({**body, "operating_point": without(body["operating_point"], "share")}, "E_SCHEMA"),
        "a node of two kinds": (nested(body, "nodes", accept="small"), "E_SCHEMA"),
        "a tier that needs others and is no signal": (nested(body, "tiers", needs=[]), "E_SCHEMA"),
        "a signal that does not say what it needs": (nested(body, "tiers", answer=False), "E_SCHEMA"),
        "a sum that is votes": (summed(votes=3), "E_SCHEMA"),
        "a sum that is a sample": (summed(sample=True), "E_SCHEMA"),
        "nested 13 deep": (deep(body, 13), "E_DEPTH"),
        "half a surrogate pair": ({**body, "provenance": {"a": HALVES[0]}}, "E_ENCODING"),
        "half a surrogate pair in a key": ({**body, "provenance": {HALVES[1]: 1}}, "E_ENCODING"),
    }
    endless = [sealed({**body, "provenance": {"a": sign * math.inf}}).decode() for sign in (1, -1)]
    twice = sealed({**body, "provenance": {"a": [{"b": 1}]}}).decode()
    torn = {
        "one digit of the id": (text.replace(body["id"], "sha256:" + "0" * 64), "E_CHECKSUM"),
        "a price that was changed by hand": (text.replace('"price":10.0', '"price":1.0'), "E_CHECKSUM"),
        "a 1.0 that became 1": (text.replace('"price":10.0', '"price":10'), "E_CHECKSUM"),
        "half of the file": (text[: len(text) // 2], "E_SYNTAX"),
        "a comma too many": (text.replace("\n}\n", ",\n}\n"), "E_SYNTAX"),
        "a byte-order mark": ("\ufeff" + text, "E_ENCODING"),
        "a key twice": (text.replace('"salt": ', '"salt": "x",\n "salt": '), "E_DUPKEY"),
        "a key twice, once escaped": (text.replace('"salt": ', '"s\\u0061lt": "x",\n "salt": '), "E_DUPKEY"),
        "a key twice where anything may be": (twice.replace('{"b":', '{"b":2,"b":'), "E_DUPKEY"),
        "a number that is none": (text.replace('"price":10.0', '"price":NaN'), "E_NONFINITE"),
        "a number that is infinite": (endless[0], "E_NONFINITE"),
        "a number beyond all doubles": (endless[0].replace("Infinity", "1e400"), "E_NONFINITE"),
        "a number below all doubles": (endless[1].replace("Infinity", "1e400"), "E_NONFINITE"),
    }
    refusals = {about: (sealed(document).decode(), code) for about, (document, code) in changed.items()} | torn
    ends = dump_policy(replace(plain, expires=100.0))
    rows: list[Case] = [
        *({"about": about, "file": file} for about, file in accepted.items()),
        {"about": "1 MiB, with space at its end", "file": text, "padded": 2**20},
        {"about": "expires, but not yet", "file": ends, "now": math.nextafter(100.0, 0.0)},
        {"about": "expires, whenever that is", "file": ends},
        *({"about": about, "file": file, "refused": code} for about, (file, code) in refusals.items()),
        {"about": "more than 1 MiB", "file": text, "padded": 2**20 + 1, "refused": "E_SIZE"},
        {"about": "has expired", "file": ends, "now": 100, "refused": "E_EXPIRED"},
    ]
    return f'{{"documents": {lines([document_of(row) for row in rows])}}}\n'


NEEDED = ("version", "salt", "context", "abstain", "tiers", "nodes", "vertices", "operating_point", "provenance")


def file_of(row: Mapping[str, Any]) -> bytes:
    """The bytes of a file, with the space at its end that the vector does not spell out."""
    return bytes(row["file"].encode().ljust(row.get("padded", 0)))


def document_of(row: Case) -> Case:
    """A document with its id and canonical text, if it is not refused.

    Raises:
        AssertionError: it is not refused as it should be.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.json"
        path.write_bytes(file_of(row))
        try:
            found: Case = {"id": policy_id(load_policy(path, now=row.get("now")))}
        except PolicyFileError as error:
            found = {"refused": error.code}
    assert found.get("refused") == row.get("refused"), (row["about"], found)
    return {**row, **found, **({} if "refused" in found else {"canonical": body_of(row["file"])})}


def without(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object that lacks a key."""
    return {name: value for name, value in body.items() if name != key}


def summed(**more: Any) -> dict[str, Any]:
    """A document with a fused score that has more than it may."""
    body = json.loads(dump_policy(policies.sums()))
    first, *tiers = body["tiers"]
    *free, forwards, backwards = first["readings"]
    return {**body, "tiers": [{**first, "readings": [*free, {**forwards, **more}, backwards]}, *tiers]}


def deep(body: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """The document nested so deep, itself counted."""
    inner: dict[str, Any] = {}
    for _ in range(levels - 3):
        inner = {"a": inner}
    return {**body, "provenance": {"a": inner}}


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
