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
        ("3/4 in. x 10.5 ft. GT-1030", ["3/4", "in", "x", "10.5", "ft", "gt-1030"]),
        ("防水登山靴", ["防水", "水登", "登山", "山靴"]),
        ("靴", ["靴"]),
        ("Nike跑鞋 42码", ["nike", "跑鞋", "42", "码"]),
        ("snake_case", ["snake", "case"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("!?…", []),
        ("", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("one", "many"),
    [("boot", "boots"), ("battery", "batteries"), ("charger", "Chargers"), ("3.5 pipe", "3.5 pipes")],
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
