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


def hidden(letter: str) -> str | None:
    kinds = {"Cc": "control", "Zl": "control", "Zp": "control", "Cf": "format"}
    return "bidi" if turns(letter) else kinds.get(unicodedata.category(letter))


def test_a_name_has_no_letter_that_cannot_be_seen() -> None:
    for letter in map(chr, [*range(0x11000), *range(0xE0000, 0xE0080)]):
        kind = hidden(letter)
        fault = name_fault(["small", f"a{letter}b"])
        if kind is None:
            assert fault is None
        else:
            told = f"is {f'a{letter}b'!a}, with the {kind} character U+{ord(letter):04X}"
            assert fault == (1, told)


def test_what_joins_letters_is_seen_where_they_need_it() -> None:
    for joiner in "\u200c\u200d":
        persian = f"\u0645\u06cc{joiner}\u062e\u0648\u0627\u0647\u0645"
        assert name_fault([persian, f"\U0001f468{joiner}\U0001f469"]) is None
        for name in (f"a{joiner}\u00e9", f"\u00e9{joiner}a", f"{joiner}\u00e9", f"\u00e9{joiner}", joiner):
            assert name_fault([name]) == (0, f"is {name!a}, with the format character U+{ord(joiner):04X}")
        alike = persian.replace(joiner, "")
        assert name_fault([persian, alike]) == (1, f"is {alike!a}, which looks like {persian!a}: rename one")


def test_a_name_neither_begins_nor_ends_with_a_space() -> None:
    for letter in map(chr, range(0x11000)):
        if letter.isspace() and hidden(letter) is None:
            assert name_fault([f"{letter}a"]) == (0, f"is {f'{letter}a'!a}, with a space at its start")
            assert name_fault(["b", f"a{letter}"]) == (1, f"is {f'a{letter}'!a}, with a space at its end")
            assert name_fault([f"a{letter}b"]) is None


def test_the_first_name_that_is_none_is_told() -> None:
    assert name_fault(["a", "", "\n"]) == (1, "is empty")
    assert name_fault([]) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),  # two ways to write an accent
        ("Large", "large"),
        ("STRASSE", "stra\u00dfe"),
        ("\ufb01ne", "fine"),  # a ligature
        ("gpt-4", "gpt-\uff14"),  # a wide digit
        ("large", "l\u0430rge"),  # a Cyrillic letter
        ("Open", "\u041ep\u0435n"),
        ("vox", "\u03bd\u03bf\u03c7"),  # Greek ones
        ("\u1e9b\u0323", "\u1e69"),  # only alike once both ways of writing are undone
    ],
)
def test_two_names_that_look_alike_are_none(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        told = f"is {second!a}, which looks like {first!a}: rename one"
        assert name_fault(["x", first, "y", second]) == (3, told)


def test_one_name_twice_is_not_looked_for_here_and_accents_tell_names_apart() -> None:
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
