"""Every refusal of a document says the code, the place and what stands there, word for word."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.document import LONGEST, Fields, PolicyFileError, check_number, parse_document, shown
from metaverify.policies.file import parse_policy

from .strategies import examples


def told(work: Callable[[], object]) -> str:
    with pytest.raises(PolicyFileError) as caught:
        work()
    assert isinstance(caught.value.place, str)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": \xff}', "E_ENCODING at byte 6: is not UTF-8"),
        (b"\xef\xbb\xbf{}", "E_ENCODING at byte 0: is a byte-order mark; save the file without one"),
        (b"[" * 13, "E_DEPTH: nested deeper than 12 levels"),
        (
            b"[" * 12,
            "E_SYNTAX at line 1 column 13: Expecting value; truncated? write the file again",
        ),
        (b'{"a":\n  ]', "E_SYNTAX at line 2 column 3: Expecting value; truncated? write the file again"),
        (b"[]", "E_SCHEMA at document: is not a JSON object: not a policy file"),
        (b'{"a": 1, "b": 2, "a": 3}', "E_DUPKEY at 'a': stands twice in one object"),
        (b'{"a": NaN}', "E_NONFINITE at NaN: is not a finite number"),
        (b'{"a": -Infinity}', "E_NONFINITE at -Infinity: is not a finite number"),
        (b'{"a": ' + b"9" * 400 + b".0}", f"E_NONFINITE at {'9' * 24}: is not a finite number"),
        (b'{"a": 9223372036854775808}', f"E_NUMBER at {2**63}: is a whole number that does not fit into 64 bits"),
        (b'{"a": ' + b"7" * 30 + b"}", f"E_NUMBER at {'7' * 24}: is a whole number that does not fit into 64 bits"),
        (b'{"a": -' + b"7" * 30 + b"}", f"E_NUMBER at -{'7' * 23}: is a whole number that does not fit into 64 bits"),
        (b'{"a": "0123456789abcdefghij\\udfffz"}', "E_ENCODING at '0123456789abcdefghij\\udfff': has a lone surrogate"),
        (b'{"a": 1, "\\ud800": 2}', "E_ENCODING at '{\"a\": 1, \"\\ud800': has a lone surrogate"),
    ],
)  # fmt: skip
def test_a_document_is_refused_in_these_words(data: bytes, message: str) -> None:
    assert told(lambda: parse_document(data)) == message


def packed(before: str, unit: str, after: str) -> bytes:
    """As many units as fit into a megabyte between two texts."""
    return (before + unit * (((1 << 20) - len(before) - len(after)) // len(unit)) + after).encode()


MANY_KEYS = ",".join(f'"key{number}":0' for number in range(80_000)) + "}"
HEAD = '{"format":"metaverify-policy","version":1,'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (packed("[", "0,", "0]"), "E_SCHEMA"),
        (packed('{"a":[', "0,", "0]}"), "E_SCHEMA"),
        (packed("[", "[],", "[]]"), "E_SIZE"),
        (packed("[", "{},", "{}]"), "E_SIZE"),
        (packed("[" * 20, "]", ""), "E_DEPTH"),
        (packed("", "]", ""), "E_SYNTAX"),
        (packed("[", '"",', '""]'), "E_SCHEMA"),
        (("{" + MANY_KEYS).encode(), "E_SCHEMA"),
        ((HEAD + MANY_KEYS).encode(), "E_SCHEMA"),  # without an id, and 80,000 keys that might have been meant
        (f'{HEAD}"id":"","a":1,{MANY_KEYS}'.encode(), "E_CHECKSUM"),
        (f'{{"key9":0,{MANY_KEYS}'.encode(), "E_DUPKEY"),
    ],
    ids=["numbers", "member", "arrays", "objects", "deep", "closed", "texts", "keys", "no id", "sealed", "twice"],
)
def test_the_work_that_a_large_document_makes_in_python_does_not_grow_with_it(data: bytes, code: str) -> None:
    lines = 0

    def count(_: FrameType, event: str, __: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        with pytest.raises(PolicyFileError) as caught:
            parse_policy(data)
    finally:
        sys.settrace(before)
    assert caught.value.code == code
    assert lines < 10_000


def as_it_says(text: str) -> Any:
    """The document by the plain reading of the rules, one value after another; the code where one is broken."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in found}) < len(found):
            raise LookupError("E_DUPKEY")
        return dict(found)

    def whole(digits: str) -> int:
        if not -(2**63) <= int(digits) < 2**63:
            raise LookupError("E_NUMBER")
        return int(digits)

    def finite(digits: str) -> float:
        if float(digits) in (float("inf"), -float("inf")):
            raise LookupError("E_NONFINITE")
        return float(digits)

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_int=whole, parse_float=finite)
    except json.JSONDecodeError:
        return "E_SYNTAX"
    except LookupError as error:
        return error.args[0]
    return value if isinstance(value, dict) else "E_SCHEMA"


PIECES = (
    *("[", "]", "{", "}", ",", ":", '"', '"a"', '"b":', '"\\"', "\\", " ", "-", ".", "e", "0", "1", "null", "0.5"),
    *("9" * 18, "9" * 19, "1" + "0" * 19, "9223372036854775807", "-9223372036854775808", "9223372036854775808"),
)


@examples(600)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.booleans())
def test_a_document_is_what_the_plain_reading_makes_of_it(text: str, wrapped: bool) -> None:
    text = f'{{"x": [{text}]}}' if wrapped else text
    wanted = as_it_says(text)
    try:
        found: Any = parse_document(text.encode())
    except PolicyFileError as error:
        found = error.code
    if wanted == "E_SYNTAX":
        assert found in ("E_SYNTAX", "E_NUMBER", "E_NONFINITE", "E_DUPKEY")  # of two faults either may be told
    else:
        assert found == wanted
        assert repr(found) == repr(wanted)


@pytest.mark.parametrize("digits", [19, 20, 400, 5000, 100_000])
@pytest.mark.parametrize("after", ["", "e", "e+", ".", ".5", "e5", "x", "]]"])
@pytest.mark.parametrize("before", ["", "-", "+", ".", "0.", "1e", "1e-", "--", '"', '1"'])
def test_no_row_of_digits_is_anything_but_a_refusal_or_a_number(digits: int, before: str, after: str) -> None:
    text = f'{{"a": [{before}{"9" * digits}{after}]}}'
    found: Any = None
    try:
        (found,) = parse_document(text.encode())["a"]
    except PolicyFileError as error:
        found = error.code
    assert found in ("E_NUMBER", "E_NONFINITE", "E_SYNTAX") or found == float(text[7:-2])


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, 0, 10**18])
def test_whole_numbers_of_64_bits_are_read_to_the_last_digit(number: int) -> None:
    assert parse_document(f'{{"a": {number}}}'.encode()) == {"a": number}


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\\\\ud800", "\u2028", "\\u0000"])
def test_what_only_looks_like_a_lone_surrogate_is_read(text: str) -> None:
    assert parse_document(f'{{"a": "{text}"}}'.encode()) == {"a": json.loads(f'"{text}"')}


def test_brackets_in_text_are_not_depth() -> None:
    for text in ("[" * 50, '\\"' + "{" * 50, "\\\\"):
        assert parse_document(f'{{"a": "{text}", "b": [[[[[[[[[[[1]]]]]]]]]]]}}'.encode())["b"]


def test_an_error_without_a_place_says_none_and_a_long_message_is_cut() -> None:
    assert str(PolicyFileError("E_X", "", "why")) == "E_X: why"
    assert str(PolicyFileError("E_X", "here", "why")) == "E_X at here: why"
    whole, cut = (PolicyFileError("E_X", "", "y" * length).message for length in (LONGEST, LONGEST + 1))
    assert whole == "y" * 300
    assert cut == "y" * 297 + "..."


def test_values_are_shown_on_one_line_and_cut() -> None:
    assert shown("a\nb\u202e") == r"'a\nb\u202e'"
    assert shown("x" * 58) == repr("x" * 58)
    assert shown("x" * 59) == f"'{'x' * 56}..."


KINDS: list[tuple[Any, str]] = [
    ({}, "an object"),
    ([], "an array"),
    ("", "text"),
    (True, "true/false"),
    (None, "null"),
    (1, "a number"),
    (0.5, "a number"),
]
READERS: dict[str, tuple[Callable[[Fields], object], str]] = {
    "an object": (lambda item: item.object("key"), "an object"),
    "an array": (lambda item: item.array("key"), "an array"),
    "text": (lambda item: item.text("key"), "text"),
    "a number": (lambda item: item.number("key"), "a number"),
    "a whole number": (lambda item: item.whole("key"), "a whole number"),
}


@pytest.mark.parametrize(("value", "kind"), KINDS)
@pytest.mark.parametrize("wanted", READERS)
def test_what_is_of_another_kind_is_told_by_its_kind(value: Any, kind: str, wanted: str) -> None:
    read, name = READERS[wanted]
    if kind == name or (name == "a whole number" and value == 1 and value is not True):
        assert read(Fields({"key": value}, "here")) is not None
    else:
        place = "here.key"
        assert told(lambda: read(Fields({"key": value}, "here"))) == f"E_TYPE at {place}: is {kind}, not {name}"


@pytest.mark.parametrize(("value", "kind"), KINDS)
def test_what_stands_in_an_array_is_told_with_its_position(value: Any, kind: str) -> None:
    item = Fields({"key": [1, 2, value], "words": ["a", value]}, "here")
    if kind != "a number":
        assert told(lambda: item.numbers("key")) == f"E_TYPE at here.key[2]: is {kind}, not a number"
    if value != 1 or value is True:
        assert told(lambda: item.wholes("key")) == f"E_TYPE at here.key[2]: is {kind}, not a whole number"
    if kind != "text":
        assert told(lambda: item.texts("words")) == f"E_TYPE at here.words[1]: is {kind}, not text"
    if kind != "an object":
        assert told(lambda: item.objects("key")) == "E_TYPE at here.key[0]: is a number, not an object"


def test_numbers_out_of_range_are_told_with_the_range() -> None:
    item = Fields({"a": -1, "b": 7, "c": 1.5, "d": [0, -2], "e": [0.5, 2.0]}, "here")
    assert told(lambda: item.whole("a")) == "E_RANGE at here.a: is -1, outside 0 .. "
    assert told(lambda: item.whole("b", 7)) == "E_RANGE at here.b: is 7, outside 0 .. 6"
    assert item.whole("b", 8) == 7
    assert told(lambda: item.number("c", 0.0, 1.0)) == "E_RANGE at here.c: is 1.5, outside [0, 1]"
    assert told(lambda: item.number("a", 0.0)) == "E_RANGE at here.a: is -1, outside [0, inf]"
    assert item.number("c", 1.5, 1.5) == 1.5
    assert told(lambda: item.wholes("d")) == "E_RANGE at here.d[1]: is -2, below 0"
    assert told(lambda: item.numbers("e", 0.0, 1.0)) == "E_RANGE at here.e[1]: is 2.0, outside [0, 1]"
    assert repr(check_number(1, "", 0.0, 1.0)) == "1.0"
    assert type(item.number("b")) is float


def test_a_key_that_is_missing_or_one_too_many_is_told_with_the_one_that_was_meant() -> None:
    item = Fields({"colour": 1, "price": 2, "y" * 39: 3, "z" * 40: 4}, "here")
    assert told(lambda: item.get("color")) == "E_SCHEMA at here.color: is missing; did you mean 'colour'?"
    assert told(lambda: item.get("x")) == "E_SCHEMA at here.x: is missing"
    assert told(lambda: item.get("y" * 38)).endswith(f"is missing; did you mean '{'y' * 39}'?")
    assert told(lambda: item.get("z" * 39)).endswith("is missing")  # nobody meant so long a name
    assert (item.get("colour"), item.has("price"), item.has("size")) == (1, True, False)
    assert told(lambda: item.get("prize")) == "E_SCHEMA at here.prize: is missing"  # what is asked for is not meant
    assert told(Fields({"pricy": 1}, "here").end) == "E_SCHEMA at here.pricy: is not a known key"
    known = Fields({"pricy": 1}, "here")
    known.has("price")
    assert told(known.end) == "E_SCHEMA at here.pricy: is not a known key; did you mean 'price'?"


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("x" * 60, "x" * 60),
        ("x" * 61, f"{'x' * 56}.."),
        ("a\nb", r"a\nb"),
        ("caf\u00e9", "caf\u00e9"),
        ("", ""),
    ],
)
def test_a_place_can_be_printed(key: str, place: str) -> None:
    assert told(lambda: Fields({}, "here").get(key)) == f"E_SCHEMA at here.{place}: is missing"


def test_names_of_the_outermost_object_stand_alone() -> None:
    top = Fields({"a": {"b": 1}, "c": [{"d": 1}, 2]}, "document")
    assert top.object("a").place == "a"
    assert told(lambda: top.object("a").text("b")) == "E_TYPE at a.b: is a number, not text"
    assert told(lambda: top.objects("c")) == "E_TYPE at c[1]: is a number, not an object"
    assert Fields({"c": [{"d": 1}]}, "document").objects("c")[0].place == "c[0]"
    assert Fields({"c": {}}, "here").object("c").place == "here.c"


def test_a_name_that_is_none_is_told_with_its_position() -> None:
    item = Fields({}, "here")
    item.names("tiers", ["a", "b"])
    assert told(lambda: item.names("tiers", ["a", ""])) == "E_NAME at here.tiers[1]: is empty"


@pytest.mark.parametrize(("one", "limit", "kind"), [("{}", 65_536, "objects"), ("[]", 131_072, "arrays")])
def test_what_has_more_parts_than_any_policy_is_refused_before_it_is_built(one: str, limit: int, kind: str) -> None:
    with pytest.raises(PolicyFileError, match=rf"^E_SIZE: has more than {limit:,} {kind}; no policy has"):
        parse_document(f"[{','.join([one] * (limit + 1))}]".encode())
