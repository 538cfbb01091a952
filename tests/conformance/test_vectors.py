"""The conformance vectors are what their maker writes, and the readers that there are pass them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.explain import action_json
from metaverify.policies.file import PolicyFileError, dump_policy, load_policy, parse_policy
from metaverify.policies.graph import Ask, Node, Poll, Read, Stop, compact
from metaverify.policies.policy import Policy
from tests.conformance import reader
from tests.conformance.write import VECTORS, conformance_files, file_of, untagged
from tests.policies.reader import identity
from tests.policies.strategies import confidences, examples, nonsense, policies, tallies, told

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "metaverify" / "page" / "decide.js"
NODE = shutil.which("node") or shutil.which("nodejs")
FILES = [f"decide-{name}.json" for name in VECTORS]
TURNED = [f"decide-{name}.json" for name in ("dial", "draws", "expected", "realised", "floor")]
EVERY_READER = {"E_SIZE", "E_ENCODING", "E_DEPTH", "E_SYNTAX", "E_DUPKEY", "E_NONFINITE"}
EVERY_READER |= {"E_SCHEMA", "E_VERSION", "E_CHECKSUM", "E_EXPIRED"}
DOCUMENTS = json.loads((HERE / "documents.json").read_text("utf-8"))["documents"]

node = pytest.mark.skipif(NODE is None, reason="no JavaScript: apt-get install nodejs")


def vectors(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / name).read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return conformance_files()


def test_there_are_no_other_vectors_and_they_are_small(written: dict[str, str]) -> None:
    assert {path.name for path in HERE.glob("*.json")} == written.keys()
    assert sum(path.stat().st_size for path in HERE.glob("*.json")) < 2_000_000


@pytest.mark.parametrize("name", [*FILES, "draws.json", "documents.json"])
def test_the_vectors_are_what_their_maker_writes(name: str, written: dict[str, str]) -> None:
    found = (HERE / name).read_bytes().decode()
    assert found == written[name], "changed on purpose? run `python -m tests.conformance.write`"


@pytest.mark.parametrize("name", FILES)
def test_the_library_decides_and_refuses_as_the_vectors_say(name: str) -> None:
    body = vectors(name)
    filed = parse_policy(body["policy"].encode())
    for case in body["cases"]:
        told = {key: untagged(value) for key, value in case.items()}

        def decided(told: dict[str, Any] = told) -> dict[str, str]:
            dial = {key: told[key] for key in ("budget", "price") if key in told}
            policy = (filed.at(**dial) if dial else filed).without(*told.get("without", ()))
            action = policy.decide(told["readings"], context=told.get("context"), key=told.get("key"))
            assert (policy.certificate is not None) == told.get("certified", False)
            return action_json(action)

        if "refused" in case:
            with pytest.raises((ValueError, TypeError)):
                decided()
        else:
            assert decided() == case["action"], case


@pytest.mark.parametrize("name", FILES)
def test_a_reader_that_knows_only_the_format_decides_and_refuses_the_same(name: str) -> None:
    body = vectors(name)
    filed = reader.load(body["policy"].encode())
    for case in body["cases"]:
        wanted = {key: case[key] for key in ("action", "certified", "refused") if key in case}
        assert read(filed, case) == wanted, case


def read(policy: reader.Policy, case: dict[str, Any]) -> dict[str, Any]:
    """What that reader does with a case."""
    told, promised = {key: untagged(value) for key, value in case.items()}, "certificate" in policy.document
    try:
        policy = reader.at_budget(policy, told["budget"]) if "budget" in told else policy
        policy = reader.at_price(policy, told["price"]) if "price" in told else policy
        policy = reader.without(policy, *told.get("without", ()))
        action = reader.decide(policy, told["readings"], told.get("context"), told.get("key"))
    except reader.Refused as refused:
        return {"refused": refused.code}
    return {"action": action, **({"certified": reader.certified(policy)} if promised else {})}


@pytest.mark.parametrize("name", FILES)
def test_every_call_reading_and_end_of_a_policy_is_some_cases_action(name: str) -> None:
    body = vectors(name)
    policy = parse_policy(body["policy"].encode())
    used = {policy.point.low, policy.point.high} if name not in TURNED else range(len(policy.vertices))
    nodes, _ = compact(policy.nodes, [root for at in used for root in policy.vertices[at].roots])
    wanted = {tuple(sorted(action.items())) for node in nodes for action in wants(node, policy)}
    assert wanted == {tuple(sorted(case["action"].items())) for case in body["cases"] if "action" in case}


def wants(node: Node, policy: Policy) -> list[dict[str, str]]:
    """What a node asks for, which is each part of a fused reading."""
    match node:
        case Stop(action):
            return [action_json(action)]
        case Ask(tier, _):
            return [{"action": "call", "tier": tier}]
        case Read() | Poll() as look:
            readings = next(tier.readings for tier in policy.tiers if tier.name == look.tier)
            parts = next(reading.parts for reading in readings if reading.name == look.reading)
            names = [part.reading for part in parts] or [look.reading]
            return [{"action": "verify", "tier": look.tier, "reading": name} for name in names]


def test_draws_are_a_hash_of_seven_bytes_below_a_share() -> None:
    body = vectors("draws.json")
    for row in body["draws"]:
        assert blake2b(str(row["key"]).encode(), key=row["salt"].encode(), digest_size=7).hexdigest() == row["draw"]
        assert f"{reader.draw(row['salt'], row['key']):014x}" == row["draw"]
    for row in body["limits"]:
        assert int(row["limit"], 16) == ceil(row["share"] * 2.0**56) == reader.limit(row["share"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document["about"] for document in DOCUMENTS])
def test_documents_have_the_id_or_the_fault_that_the_vectors_say(document: dict[str, Any], tmp_path: Path) -> None:
    path, now = tmp_path / "policy.json", document.get("now")
    path.write_bytes(file_of(document))
    if "refused" in document:
        with pytest.raises(PolicyFileError, match=rf"^{document['refused']}\b"):
            load_policy(path, now=now)
    else:
        assert load_policy(path, now=now)
        assert document["id"] == identity(json.loads(path.read_bytes())) == json.loads(path.read_bytes())["id"]
        assert document["id"] == "sha256:" + hashlib.sha256(document["canonical"].encode()).hexdigest()


@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if document.get("refused", "E_SIZE") in EVERY_READER],
    ids=lambda document: document["about"],
)
def test_a_reader_that_knows_only_the_format_takes_and_refuses_these_documents(document: dict[str, Any]) -> None:
    if "refused" in document:
        with pytest.raises(reader.Refused, match=rf"^{document['refused']}: "):
            reader.load(file_of(document), document.get("now"))
    else:
        body = reader.load(file_of(document), document.get("now")).document
        assert body.pop("id") == document["id"]
        assert reader.canonical(body) == document["canonical"]


def ran(*readers: Path) -> list[dict[str, Any]]:
    """What each of these readers gets wrong, of how many checks."""
    assert NODE is not None
    command = [NODE, HERE / "run.cjs", HERE, *readers]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@node
def test_the_javascript_reader_passes_every_vector() -> None:
    cases = sum(len(vectors(name)["cases"]) for name in FILES)
    (found,) = ran(SCRIPT)
    assert found["wrong"] == []
    assert found["count"] > cases > 3000, found["count"]


MISTAKES = {
    "a tie falls below the cut": ("cuts[place] <= value", "cuts[place] < value"),
    "NaN is a number": ("usable = confidence >= 0 && confidence <= 1", "usable = !(confidence > 1)"),
    "a number a little above 1 is 1": ("confidence <= 1;", "confidence <= 1 + 1e-12;"),
    "null is 0": ("if (given === null) return NaN;", "if (given === null) return 0;"),
    "text is a number": ('if (typeof given !== "number") {', 'if (typeof given !== "number" && isNaN(given)) {'),
    "the draw is a part of a longer digest": ("encode(salt), 7);", "encode(salt), 64).subarray(0, 7);"),
    "the draw is not keyed": ("new TextEncoder().encode(salt), 7)", "new Uint8Array(0), 7)"),
    "a low draw goes low": ("drawOf(policy.salt, key) <", "drawOf(policy.salt, key) >="),
    "keys are of one byte a letter": ("new TextEncoder().encode(told)", 'Buffer.from(told, "latin1")'),
    "points are added backwards": ("for (const part of parts) {", "for (const part of parts.slice().reverse()) {"),
    "a sum above 1 is missing": ("return Math.min(score, 1);", "return score;"),
    "a missing part is nothing": (": part.missing;", ": 0;"),
    "a fused reading is asked for": ("return new Unread(part.of)", "return new Unread(name)"),
    "votes are rounded down": ("(2n * y * m + a) / (2n * a)", "(y * m) / a"),
    "a tie among votes falls below": (
        "bisectRight(node.cuts, yes / votes)",
        "bisectRight(node.cuts, yes / votes - 1e-9)",
    ),
    "names are looked up in all objects": ("Object.hasOwn(object, name)", "name in object"),
    "a budget must be no less than a cost": ("budget >= costs[0] * (1 - 1e-9)", "budget >= costs[0]"),
    "the dearest of equals": ("(value > worth[found] ? at : found)", "(value >= worth[found] ? at : found)"),
    "slashes are not escaped": ('.replaceAll("/", "\\\\/")', ""),
    "numbers are written as JavaScript does": ("ends = cuts.map(pythonNumber);", "ends = cuts.map(String);"),
    "texts are no numbers": ("|| isNumeral(value)", ""),
    "keys are sorted by UTF-16": (".sort(([a], [b]) => byCodePoint(a, b))", ".sort()"),
    "1.0 is written as 1": ("return /[.e]/.test(text) ? text : `${text}.0`;", "return text;"),
    "the first outage that covers is taken": ("each.without.length < found.without.length", "false"),
    "an unknown key is passed over": ("if (!has(shape, key)) throw", "if (false) throw"),
    "a missing key is passed over": ('typeof inner !== "function" && !has(value, key)', "false"),
    "nodes may be of two kinds": ("[known].flat()", "[Object.assign({}, ...[known].flat())]"),
    "the last of two keys is taken": ("keys.at(-1).has(told)", "false"),
    "a large file is read": ("> 2 ** 20", "> 2 ** 20 + 1"),
    "a file of 1 MiB is too large": ("> 2 ** 20", ">= 2 ** 20"),
    "12 levels are too deep": ("new Set()) > 12", "new Set()) > 11"),
    "13 levels are not too deep": ("new Set()) > 12", "new Set()) > 13"),
    "a policy that ends now is good": ("!(now < policy.expires)", "now > policy.expires"),
    "a draw is divided in doubles": (
        "drawOf(policy.salt, key) < BigInt(Math.ceil(share * 2 ** 56))",
        "Number(drawOf(policy.salt, key)) / 2 ** 56 < share",
    ),
    "votes are counted in doubles": (
        "Number((2n * y * m + a) / (2n * a))",
        "Math.floor((2 * yes * most + asked) / (2 * asked))",
    ),
    "one column is escaped": ("if (values.length === 1) return values[0];", ""),
    "null is a word": ('value === null || (typeof value === "number" && !Number.isFinite(value))', "false"),
    "a certificate is of costs": ('certificate.promise === "expected quality" ?', "false ?"),
    "a certificate holds a little beside its cost": (
        "cost >= own * (1 - 1e-9) : cost <= own * (1 + 1e-9)",
        "cost >= own : cost <= own",
    ),
    "a certificate holds in an outage": ("evidence: {}, certificate: null", "evidence: {}"),
    "a budget may be text": ('typeof budget !== "number"', "false"),
    "space is whatever looks like it": ("^[ \\t\\n\\v\\f\\r]*", "^\\s*"),
}


@node
def test_a_reader_with_any_likely_mistake_fails(tmp_path: Path) -> None:
    script, readers = SCRIPT.read_text("utf-8"), []
    for number, (mistake, (before, after)) in enumerate(MISTAKES.items()):
        assert before in script, mistake
        readers.append(tmp_path / f"reader{number}.cjs")
        readers[-1].write_text(script.replace(before, after), "utf-8")
    passed = [mistake for mistake, found in zip(MISTAKES, ran(*readers), strict=True) if not found["wrong"]]
    assert passed == []


def plain(value: Any) -> Any:
    """A value without what only numpy has."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


@st.composite
def with_cuts(draw: st.DrawFn) -> Policy:
    """Policies of every kind, of which some context columns are numbers."""
    policy = draw(policies(votes=draw(st.booleans()), outages=draw(st.booleans())))
    cuts = st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=3, unique=True).map(sorted).map(tuple)
    columns = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(policy.context, cuts)))
    return parse_policy(dump_policy(replace(policy, context_cuts=columns)).encode())


@examples(100)
@given(policy=with_cuts(), data=st.data())
def test_a_reader_that_knows_only_the_format_agrees_on_policies_of_every_kind(
    policy: Policy, data: st.DataObject
) -> None:
    other = reader.load(dump_policy(policy).encode())
    if data.draw(st.booleans()):
        costs = [vertex.cost for vertex in policy.vertices]
        budget = data.draw(st.sampled_from(costs) | st.floats(0.5 * costs[0], 1.5 * costs[-1] + 1.0))
        policy, other = both(partial(policy.at, budget=budget), partial(reader.at_budget, other, budget)) or (
            policy,
            other,
        )
    down = data.draw(st.just(set()) | st.sets(st.sampled_from([tier.name for tier in policy.tiers])))
    policy, other = both(partial(policy.without, *down), partial(reader.without, other, *down)) or (policy, other)
    assert (policy.certificate is not None) == reader.certified(other)
    labels, plain_values = policy.vertices[0].context_roots, st.none() | st.booleans() | st.integers() | st.floats()
    columns = st.fixed_dictionaries({}, optional=dict.fromkeys(policy.context, plain_values | st.text(max_size=2)))
    for _ in range(2):
        readings = data.draw(told(policy.tiers, confidences(policy.nodes) | nonsense, tallies | nonsense))
        context = data.draw(st.none() | st.sampled_from([*labels, ""]) | columns | plain_values)
        if isinstance(context, dict) and data.draw(st.booleans()):
            context = {**dict.fromkeys(policy.context, data.draw(st.sampled_from([*labels, 0]))), **context}
        key = data.draw(st.none() | st.text() | st.integers() | st.binary())
        said = both(
            partial(policy.decide, readings, context=context, key=key),
            partial(reader.decide, other, plain(readings), context, key),
        )
        assert said is None or action_json(said[0]) == said[1]


def both(one: Callable[[], Any], other: Callable[[], Any]) -> tuple[Any, Any] | None:
    """What the library and the reader say; None where both refuse."""
    try:
        found = one()
    except (ValueError, TypeError):
        with pytest.raises(reader.Refused):
            other()
        return None
    return found, other()


@node
def test_a_key_with_half_a_surrogate_pair_is_refused_in_javascript_too() -> None:
    assert NODE is not None
    program = f"require({json.dumps(str(SCRIPT))}).drawOf('', '\\ud83d')"
    done = subprocess.run([NODE, "-e", program], capture_output=True, text=True, encoding="utf-8")
    assert "surrogate" in done.stderr
    with pytest.raises(UnicodeEncodeError):
        parse_policy(vectors("decide-share.json")["policy"].encode()).decide({}, key="\ud83d")
