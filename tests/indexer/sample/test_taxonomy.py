"""The words are enough, coded once, and tell apart in a title."""

import numpy as np
import pytest

from indexer.sample.taxonomy import NONE, SLOTS, Words, load_taxonomy

WORDS = load_taxonomy()


def test_there_are_enough_words() -> None:
    assert len(WORDS.departments) >= 12
    assert len(WORDS.types) >= 60
    assert len(WORDS.brands) >= 80
    assert sum(en != zh for en, zh in zip(WORDS.brands.en, WORDS.brands.zh, strict=True)) >= 20


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("noun", ["departments", "types", "brands", "attributes", "lines"])
def test_no_name_is_given_twice(noun: str, language: str) -> None:
    names = getattr(getattr(WORDS, noun), language)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("noun", ["types", "brands", "lines"])
def test_no_other_name_holds_an_attribute(noun: str, language: str) -> None:
    attributes = getattr(WORDS.attributes, language)
    names = getattr(getattr(WORDS, noun), language)
    assert [(name, word) for name in names for word in attributes if word in name] == []


def test_brand_codes_differ() -> None:
    assert len(set(WORDS.brand_codes)) == len(WORDS.brands)


def test_choices_lie_in_their_slot() -> None:
    for slot in range(len(SLOTS)):
        choices = WORDS.choices[:, slot]
        assert (WORDS.attribute_slot[choices[choices != NONE]] == slot).all()


def test_prices_rise() -> None:
    assert (WORDS.type_prices[:, 0] < WORDS.type_prices[:, 1]).all()
    assert (WORDS.type_prices > 0).all()


def test_name_takes_the_language_of_each_code() -> None:
    words = Words(("Red", "Blue"), ("红", "蓝"))
    names = words.name(np.array([0, 1, NONE, NONE]), np.array([False, True, True, False]))
    assert names.to_list() == ["Red", "蓝", None, None]
