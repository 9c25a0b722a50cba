import pytest

from indexer.spelling import Speller

KNOWN = {"faucet": 50, "lever": 9, "level": 30, "milwaukee": 20, "shower": 40, "head": 30, "showerhead": 3, "iron": 10}
KNOWN |= {"board": 10, "glass": 5, "dw715": 1, "1224": 1, "mug": 7, "防水": 8, "防": 9, "水": 9}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("faucet", "faucet"),
        ("fuacet", "faucet"),  # Two letters swapped are one mistake.
        ("faucets", "faucet"),
        ("leven", "level"),  # As near to "lever", which fewer products have.
        ("lver", "lever"),
        ("milwoke", "milwoke"),  # Three letters wrong.
        ("miwaukie", "milwaukee"),
        ("gals", "gals"),  # Two letters wrong of four.
        ("mgu", "mgu"),  # Three letters are too few.
        ("dw716", "dw716"),  # A model number is meant as it is.
        ("防火", "防火"),
        ("x" * 30, "x" * 30),
    ],
)
def test_an_unknown_word_becomes_its_nearest_known_one(typed: str, meant: str) -> None:
    assert Speller(KNOWN).corrected([typed]) == [meant]


def test_a_word_written_of_two_known_ones_is_split() -> None:
    assert Speller(KNOWN).corrected(["ironboard"]) == ["iron", "board"]
    assert Speller(KNOWN).corrected(["leversglass"]) == ["lever", "glass"]
    # The pair whose rarer word is the more frequent: not "bat" and "hood".
    assert Speller({"bath": 9, "ood": 9, "bat": 2, "hood": 99}).corrected(["bathood"]) == ["bath", "ood"]


def test_one_wrong_letter_comes_before_a_split_and_a_split_before_two() -> None:
    assert Speller({"iron": 9, "board": 9, "ironboards": 1}).corrected(["ironboard"]) == ["ironboards"]
    assert Speller({"iron": 9, "board": 9, "ironboardly": 1}).corrected(["ironboard"]) == ["iron", "board"]
    assert Speller({"ironboardly": 1}).corrected(["ironboard"]) == ["ironboardly"]


def test_neighbours_that_are_one_known_word_give_it_too() -> None:
    assert Speller(KNOWN).corrected(["shower", "head"]) == ["shower", "head", "showerhead"]
    assert Speller(KNOWN).corrected(["dw", "715"]) == ["dw", "715", "dw715"]
    # Two sizes are no model number.
    assert Speller(KNOWN).corrected(["12", "24"]) == ["12", "24"]
    assert Speller(KNOWN).corrected(["head", "shower"]) == ["head", "shower"]


def test_a_word_stands_once() -> None:
    assert Speller(KNOWN).corrected(["mug", "faucte", "faucet", "mug"]) == ["mug", "faucet"]
    assert Speller({}).corrected([]) == []
    assert Speller({}).corrected(["faucet"]) == ["faucet"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Lever mug 3/4 in.", "Lever mug 3/4 in."),
        ("Fuacets, glass", "faucet, glass"),
        ("white ironboard 24in", "white iron board 24in"),
        ("fuacet-mug mgu.fuacet v2 dw716", "fuacet-mug mgu.fuacet v2 dw716"),  # Parts of names are no words.
        ("防水 fuacet", "防水 faucet"),
        ("", ""),
    ],
)
def test_only_misspelt_words_of_a_text_are_written_anew(typed: str, meant: str) -> None:
    assert Speller(KNOWN).mended(typed) == meant
