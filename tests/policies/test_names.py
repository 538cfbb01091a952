"""What may be a name, held against Unicode's own tables, and which one was meant."""

from __future__ import annotations

import difflib
import unicodedata

import pytest

from metaverify.policies.names import did_you_mean, name_fault

MARKS = "\u200e\u200f\u061c"  # left-to-right, right-to-left, Arabic letter mark


def turns(letter: str) -> bool:
    """Whether a letter has the property Bidi_Control: explicit embeddings, overrides and isolates, and three marks."""
    explicit = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return unicodedata.bidirectional(letter) in explicit or letter in MARKS


def test_a_name_has_no_control_no_line_end_and_nothing_that_turns_the_text() -> None:
    for letter in map(chr, range(0x11000)):
        kind = "bidi" if turns(letter) else "control" if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else None
        fault = name_fault(["small", f"a{letter}b"])
        if kind is None:
            assert fault is None
        else:
            told = f"is {f'a{letter}b'!a}, with the {kind} character U+{ord(letter):04X}"
            assert fault == (1, told)


def test_the_first_name_that_is_none_is_told() -> None:
    assert name_fault(["a", "", "\n"]) == (1, "is empty")
    assert name_fault([]) is None


def test_two_names_that_look_alike_are_none_and_one_twice_is_not_looked_for_here() -> None:
    assert name_fault(["caf\u00e9", "x", "cafe\u0301"]) == (
        2,
        "is 'cafe\\u0301', which looks like 'caf\\xe9': write both in one Unicode form",
    )
    assert name_fault(["caf\u00e9", "caf\u00e9", "cafe"]) is None


@pytest.mark.parametrize(
    ("wanted", "known", "end"),
    [
        ("lagre", ["small", "large"], "; did you mean 'large'?"),
        ("lagre", ["small"], ""),
        ("lagre", [], ""),
        ("tier1", ["tier12", "tier1 "], "; did you mean 'tier12'?"),  # equally near: the later one, as difflib has it
        ("7", [8, 77], "; did you mean '77'?"),
    ],
)
def test_the_name_that_was_meant_is_told(wanted: str, known: list[object], end: str) -> None:
    assert did_you_mean(wanted, known) == did_you_mean(wanted, known[::-1]) == end


def test_of_a_long_name_only_the_start_is_looked_up() -> None:
    known = ["x" * 80]
    assert did_you_mean("x" * 80 + "y" * 1000, known) == f"; did you mean {known[0]!r}?"
    assert not difflib.get_close_matches("x" * 80 + "y" * 1000, known)
