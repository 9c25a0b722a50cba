from indexer.text import tokens
from indexer.units import AMBIGUOUS, NAMES, POWERS, UNITS


def test_every_spelling_is_one_token_of_the_unit() -> None:
    assert {spelling: tokens(f"3{spelling}") for spelling in UNITS} == {
        spelling: ["3", name] for spelling, name in UNITS.items()
    }


def test_the_sets_hold_what_they_say() -> None:
    assert set(UNITS) > AMBIGUOUS
    assert set(UNITS.values()) == NAMES
    assert NAMES > POWERS
