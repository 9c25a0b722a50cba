"""How a query's words match titles: every column on titles made by hand."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest

from ranker import match_features
from ranker.features import Catalogue
from ranker.match_features import NAMES

Make = Callable[..., Catalogue]


def columns(query: str, catalogue: Catalogue, *rows: int) -> dict[str, list[float]]:
    found = match_features.columns(query, np.array(rows, np.int64), catalogue.table, catalogue.lexical)
    assert set(found) == set(NAMES)
    return {name: np.broadcast_to(np.asarray(values, float), len(rows)).tolist() for name, values in found.items()}


def idf(titles: int, holding: int) -> float:
    return log(1 + (titles - holding + 0.5) / (holding + 0.5))


@pytest.fixture
def boots(catalogue: Make) -> Catalogue:
    """Three titles of 4, 2 and 3 tokens."""
    return catalogue(
        "red red hiking boot",
        "red dress",
        "boot polish 42",
        brand=["North Face", "Nord", None],
        category=["Shoes", None, "Shoe Care"],
    )


def test_bm25_is_the_formula(boots: Catalogue) -> None:
    """Sum over query tokens of idf f (k1 + 1) / (f + k1 (1 - b + b length / mean length)), k1 = 1.2, b = 0.75."""
    mean = (4 + 2 + 3) / 3

    def part(idf: float, count: int, length: int) -> float:
        return idf * count * (1.2 + 1) / (count + 1.2 * (1 - 0.75 + 0.75 * length / mean))

    red, boot, number = idf(3, 2), idf(3, 2), idf(3, 1)
    assert columns("Red boots 42", boots, 0, 1, 2)["bm25"] == pytest.approx(
        [part(red, 2, 4) + part(boot, 1, 4), part(red, 1, 2), part(boot, 1, 3) + part(number, 1, 3)]
    )


def test_lexical_is_the_indexs_score(boots: Catalogue) -> None:
    """Lucene's BM25: idf f / (f + k1 (1 - b + b length / mean length)), k1 = 1.2, b = 0.5."""
    found = columns("polish", boots, 2, 0)
    assert found["lexical"] == pytest.approx([idf(3, 1) * 1 / (1 + 1.2 * (1 - 0.5 + 0.5 * 3 / 3)), 0.0])


def test_coverage_of_the_query(boots: Catalogue) -> None:
    red, boot, number = idf(3, 2), idf(3, 2), idf(3, 1)
    whole = red + boot + number
    found = columns("Red boots 42", boots, 0, 1, 2)
    assert found["query_tokens"] == [3.0, 3.0, 3.0]
    assert found["query_coverage"] == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    assert found["query_coverage_idf"] == pytest.approx([(red + boot) / whole, red / whole, (boot + number) / whole])
    assert found["rarest_missing"] == pytest.approx([number, number, red])
    assert found["last_word_found"] == [0.0, 0.0, 1.0]
    assert columns("red hiking boot", boots, 0)["rarest_missing"] == [0.0]


def test_coverage_of_the_title(boots: Catalogue) -> None:
    found = columns("Red boots 42", boots, 0, 1, 2)
    assert found["title_coverage"] == pytest.approx([3 / 4, 1 / 2, 2 / 3])
    assert found["first_match"] == pytest.approx([0 / 4, 0 / 2, 0 / 3])
    assert columns("hiking 42", boots, 0, 2)["first_match"] == pytest.approx([2 / 4, 2 / 3])


def test_nothing_matched_has_no_first_match(boots: Catalogue) -> None:
    found = columns("hiking", boots, 0, 1)
    assert found["first_match"] == pytest.approx([2 / 4, np.nan], nan_ok=True)
    assert found["title_coverage"] == [1 / 4, 0.0]


def test_adjacent_words_are_neighbours_in_both_and_in_this_order(catalogue: Make) -> None:
    made = catalogue("red hiking boot", "hiking boot red", "boot hiking red", "red boot", "red | hiking hiking boot")
    # "red hiking" and "hiking boot" are the pairs.
    assert columns("red hiking boot", made, 0, 1, 2, 3, 4)["adjacent_words"] == [2 / 2, 1 / 2, 0.0, 0.0, 2 / 2]
    assert columns("hiking", made, 0, 3)["adjacent_words"] == [0.0, 0.0]


def test_neighbours_are_not_counted_from_one_title_to_the_next(catalogue: Make) -> None:
    made = catalogue("cheap red", "boot polish")
    assert columns("red boot", made, 0, 1)["adjacent_words"] == [0.0, 0.0]


def test_numbers_are_tokens_with_digits(catalogue: Make) -> None:
    screws = catalogue("wood screw 3.5 x 40 mm", "wood screw 3.5 x 50 mm", "wood screw")
    found = columns("screw 3.5 40", screws, 0, 1, 2)
    assert found["number_coverage"] == [1.0, 0.5, 0.0]
    # Two numbers in a title, less those that were asked for.
    assert found["number_surplus"] == [2 - 2, 2 - 1, 0 - 0]
    without = columns("wood screw", screws, 0, 1, 2)
    assert np.isnan(without["number_coverage"]).all()
    assert without["number_surplus"] == [2.0, 2.0, 0.0]


def test_a_unit_is_no_number_however_it_is_written(catalogue: Make) -> None:
    made = catalogue("copper pipe 3/4 inch", "hose 1/2 inch")
    for query in ("3/4in pipe", "3/4 in pipe", '3/4" pipe'):
        found = columns(query, made, 0, 1)
        assert found["number_coverage"] == [1.0, 0.0], query
        assert found["number_surplus"] == [0.0, 1.0], query


def test_words_of_brand_and_category_that_the_query_names(boots: Catalogue) -> None:
    found = columns("north boots for shoe care", boots, 0, 1, 2)
    assert found["brand_named"] == pytest.approx([1 / 2, 0.0, np.nan], nan_ok=True)
    assert found["category_named"] == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert columns("the north face", boots, 0)["brand_named"] == [1.0]


def test_a_brand_without_words_is_not_named(catalogue: Make) -> None:
    made = catalogue("red boot", "blue boot", brand=["!!!", "Nord"])
    assert columns("nord boot", made, 0, 1)["brand_named"] == pytest.approx([np.nan, 1.0], nan_ok=True)


def test_chinese_matches_by_characters_and_pairs(catalogue: Make) -> None:
    """A run gives its characters, then its pairs: 防 水 登 山 靴 防水 水登 登山 山靴 42 码 is the first title."""
    made = catalogue("防水登山靴 42码", "登山杖 黑色")
    found = columns("登山靴", made, 0, 1)
    assert found["query_tokens"] == [5.0, 5.0]
    assert found["query_coverage"] == pytest.approx([5 / 5, 3 / 5])
    assert found["title_coverage"] == pytest.approx([5 / 11, 3 / 8])
    assert found["first_match"] == pytest.approx([2 / 11, 0 / 8])
    assert found["last_word_found"] == [1.0, 0.0]
    # Of 登-山, 山-靴, 靴-登山 and 登山-山靴 the first title lacks the third, the second has the first only.
    assert found["adjacent_words"] == pytest.approx([3 / 4, 1 / 4])
    assert found["rarest_missing"] == pytest.approx([0.0, idf(2, 1)])
    assert found["number_surplus"] == [1.0, 0.0]


def test_chinese_beside_a_number_is_no_number(catalogue: Make) -> None:
    made = catalogue("保温杯 500毫升", "保温杯 750毫升")
    found = columns("500毫升保温杯", made, 0, 1)
    assert found["number_coverage"] == [1.0, 0.0]
    assert found["number_surplus"] == [0.0, 1.0]


def test_unknown_words_weigh_as_in_no_title(boots: Catalogue) -> None:
    found = columns("red zeppelin", boots, 1)
    assert found["query_coverage"] == [0.5]
    assert found["query_coverage_idf"] == pytest.approx([idf(3, 2) / (idf(3, 2) + idf(3, 0))])


def test_a_misspelt_word_is_matched_as_mended(boots: Catalogue) -> None:
    mended, meant = (list(columns(query, boots, 0, 1).values()) for query in ("hikng boot", "hiking boot"))
    np.testing.assert_array_equal(mended, meant)


def test_repeated_words_count_once(boots: Catalogue) -> None:
    once, twice = (columns(query, boots, 0, 1, 2) for query in ("red", "red red"))
    np.testing.assert_array_equal(list(once.values()), list(twice.values()))


def test_a_title_without_tokens(catalogue: Make) -> None:
    found = columns("red boot", catalogue("red boot", "!!!", "blue boot"), 1, 0)
    plain = ("bm25", "lexical", "query_coverage", "title_coverage", "last_word_found", "adjacent_words")
    assert [found[name][0] for name in plain] == [0.0] * 6
    assert np.isnan(found["first_match"][0])
    assert found["query_coverage"][1] == 1.0


def test_a_catalogue_without_tokens(catalogue: Make) -> None:
    found = columns("red boot", catalogue("!!!", "???"), 0, 1)
    assert found["bm25"] == found["query_coverage"] == found["title_coverage"] == [0.0, 0.0]


def test_a_query_without_words(boots: Catalogue) -> None:
    found = columns("!?", boots, 0, 1)
    assert found.pop("query_tokens") == [0.0, 0.0]
    assert all(np.isnan(values).all() for values in found.values())


def test_no_candidates(boots: Catalogue) -> None:
    found = match_features.columns("red boot 42", np.empty(0, np.int64), boots.table, boots.lexical)
    assert {np.size(values) for name, values in found.items() if name != "query_tokens"} == {0}
