import zlib

import numpy as np
import pytest

from indexer.text import normalise, token_hashes, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Red \t\n mug\r\n", "Red mug"),
        ("ＵＳＢ－Ｃ　６５Ｗ", "USB-C 65W"),  # Full-width forms, and the ideographic space.
        ("½ inch", "1⁄2 inch"),
        ("1½ in. x 2¾", "1 1⁄2 in. x 2 3⁄4"),  # Not 11⁄2.
        ("ﬁne cafe\u0301", "fine café"),
        ("bell\x07 null\x00 delete\x7f next\x85line", "bell null delete next line"),
        ("a\x00b", "a b"),
        ("no\u00a0break\u2003em", "no break em"),
        ("防水登山靴，棕色", "防水登山靴,棕色"),
        ("Case Stays", "Case Stays"),
        ("\x00\x1f \n", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nordic Hiking Boots, Brown", ["nordic", "hiking", "boot", "brown"]),
        ("GT-1030 DW715", ["gt", "1030", "gt1030", "dw715"]),
        ("T-Lights", ["t", "light", "tlight"]),
        ("Indoor/Outdoor", ["indoor", "outdoor"]),
        ("Painter's tape, men’s", ["painter", "tape", "men"]),
        ("USB2.0 usb 3.0", ["usb2.0", "usb", "3.0"]),
        ("60,000BTU", ["60000", "btu"]),
        (".25 6-10 480D-6", ["0.25", "6", "10", "480d", "6", "480d6"]),
        ("5/8 in.-11 x 12-1/8", ["5/8", "inch", "11", "12", "1/8"]),
        ("4.5 cu. ft.", ["4.5", "cubic", "foot"]),
        ("防水登山靴", ["防", "水", "登", "山", "靴", "防水", "水登", "登山", "山靴"]),
        ("靴", ["靴"]),
        ("Nike跑鞋 42码", ["nike", "跑", "鞋", "跑鞋", "42", "码"]),
        ("500ml保温", ["500", "milliliter", "保", "温", "保温"]),
        ("snake_case", ["snake", "case"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("!?…", []),
        ("", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    "spellings",
    [
        ("3/4 in", "3/4in", "3/4 inch", '3/4"', "3/4 in.", "¾ inches", "3/4''", "3/4″", "3/4”"),
        ("10 ft", "10ft", "10 foot", "10 feet", "10'", "10′", "10-Feet"),
        ("2x4", "2 x 4", "2X4", "2×4"),
        ("2 in. x 4 in. x 8 ft.", "2in x 4in x 8ft", '2"x4"x8\'', "2 in.x4 inch x 8 foot"),
        ("60w", "60 watt", "60-Watt", "60 Watts"),
        ("18 volt", "18v", "18-Volt"),
        ("5 gal.", "5 gallon", "5-gal", "5gallons"),
        ("8 lb.", "8lbs", "8 pounds"),
        ("100 sq. ft.", "100 sq ft", "100 square feet"),
        ("1½ in", "1 1/2 inch"),
    ],
)
def test_spellings_of_one_measure_are_one(spellings: tuple[str, ...]) -> None:
    assert len({tuple(tokens(normalise(spelling))) for spelling in spellings}) == 1


def test_a_letter_is_a_unit_only_behind_a_number() -> None:
    assert tokens("vanity in white w/ hp m pc 18 in v 2 v") == [
        *("vanity", "in", "white", "w", "hp", "m", "pc"),
        *("18", "inch", "v", "2", "volt"),
    ]


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("boot", "boots"),
        ("battery", "batteries"),
        ("charger", "Chargers"),
        ("box", "boxes"),
        ("switch", "switches"),
        ("glass", "glasses"),
    ],
)
def test_plurals_join_their_singulars(one: str, many: str) -> None:
    assert tokens(one) == tokens(many)


@pytest.mark.parametrize("word", ["dress", "glass", "cactus", "gas", "bus", "is", "s"])
def test_words_that_only_look_like_plurals_stay(word: str) -> None:
    assert tokens(word) == [word]


def test_token_hashes_are_the_tokens_of_the_normalised_text() -> None:
    hashes = token_hashes("ＲＥＤ  Mugs")
    assert hashes.dtype == np.int64
    assert hashes.tolist() == [zlib.crc32(b"red"), zlib.crc32(b"mug")]
    assert token_hashes("").shape == (0,)
