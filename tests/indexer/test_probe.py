"""The made-up catalogue: always the same, and as varied as a shop's."""

import random
from collections import Counter

from indexer.probe import queries, titles
from indexer.text import query_key, tokens


def test_it_is_always_the_same() -> None:
    before = titles(), queries()
    random.seed(7)
    assert (titles(), queries()) == before


def test_a_hundred_nearest_are_a_small_part_of_it() -> None:
    assert len(titles()) >= 1_000
    assert len(queries()) >= 36


def test_titles_differ_by_more_than_their_letters() -> None:
    kinds = Counter(tuple(sorted(tokens(query_key(title)))) for title in titles())
    assert len(kinds) > 0.97 * len(titles())


def test_no_word_but_a_small_one_is_in_many_titles() -> None:
    most = 0.1 * len(titles())
    words = Counter(word for title in titles() for word in set(tokens(title)))
    assert {word for word, count in words.items() if count > most} == {"for", "with", "in"}


def test_both_languages_are_there() -> None:
    for texts in (titles(), queries()):
        chinese = sum(any("\u3400" <= letter <= "\u9fff" for letter in text) for text in texts)
        assert 0.1 * len(texts) < chinese < 0.3 * len(texts)
