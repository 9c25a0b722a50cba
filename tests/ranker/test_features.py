"""The feature matrix: its rules, its formulas, and that it never sees what happens later."""

from collections.abc import Callable
from math import log, log1p

import numpy as np
import pytest

from indexer.encoder import Encoder
from indexer.text import token_hashes
from ranker import features
from ranker.behaviour import Behaviour
from ranker.features import NAMES, Catalogue, Context
from ranker.history import CLICK, PURCHASE, VIEW, Engagement, History

DAY = 86_400.0
NOW = 1_700_000_000.0
MATCH = ("bm25", "query_coverage", "query_coverage_idf", "number_coverage", "title_coverage")
USER = NAMES[NAMES.index("days_since_last") : NAMES.index("position")]

Make = Callable[..., Catalogue]


def made(
    context: Context, catalogue: Catalogue, *rows: int, behaviour: Behaviour | None = None
) -> dict[str, list[float]]:
    """The matrix by column."""
    known = behaviour or Behaviour(len(catalogue.table))
    out = features.matrix(context, np.array(rows, np.int64), catalogue, known)
    return {name: out[:, i].tolist() for i, name in enumerate(NAMES)}


@pytest.fixture
def boots(catalogue: Make) -> Catalogue:
    """Three titles of 4, 2 and 3 tokens."""
    return catalogue(
        "red red hiking boot",
        "red dress",
        "boot polish 42",
        price=[100.0, None, 10.0],
        brand=["Nord", "Nord", None],
        category=["Shoes", None, "Care"],
        in_stock=[True, False, None],
    )


def test_shape_and_type(boots: Catalogue) -> None:
    history = History((1, 0), (CLICK, PURCHASE), (NOW - DAY, NOW - 60))
    out = features.matrix(Context(NOW, history, "red boot"), np.array([2, 0]), boots, Behaviour(3))
    assert out.shape == (2, len(NAMES))
    assert out.dtype == np.float32
    assert not np.isinf(out).any()
    empty = features.matrix(Context(NOW, history, "red boot"), np.empty(0, np.int64), boots, Behaviour(3))
    assert empty.shape == (0, len(NAMES))


def test_names_are_distinct() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_every_name_has_a_column(boots: Catalogue, encoder: Encoder) -> None:
    """Where everything is known, every feature is a number."""
    vector = encoder.encode(["red boot 42"])[0]
    history = History((0, 2), (PURCHASE, VIEW), (NOW - DAY, NOW - 60))
    context = Context(NOW, history, "red boot 42", vector, vector, vector)
    assert np.isfinite(features.matrix(context, np.array([0]), boots, Behaviour(3))).all()


def test_bm25_is_the_formula(boots: Catalogue) -> None:
    """Sum over query tokens of idf f (k1 + 1) / (f + k1 (1 - b + b length / mean length)), k1 = 1.2, b = 0.75."""
    mean = (4 + 2 + 3) / 3
    idf_red = log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    idf_boot = log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    idf_42 = log(1 + (3 - 1 + 0.5) / (1 + 0.5))

    def part(idf: float, count: int, length: int) -> float:
        return idf * count * (1.2 + 1) / (count + 1.2 * (1 - 0.75 + 0.75 * length / mean))

    found = made(Context(NOW, History(), "Red boots 42"), boots, 0, 1, 2)
    assert found["bm25"] == pytest.approx(
        [part(idf_red, 2, 4) + part(idf_boot, 1, 4), part(idf_red, 1, 2), part(idf_boot, 1, 3) + part(idf_42, 1, 3)]
    )
    whole = idf_red + idf_boot + idf_42
    assert found["query_coverage"] == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    assert found["query_coverage_idf"] == pytest.approx(
        [(idf_red + idf_boot) / whole, idf_red / whole, (idf_boot + idf_42) / whole]
    )
    assert found["title_coverage"] == pytest.approx([3 / 4, 1 / 2, 2 / 3])
    assert found["number_coverage"] == [0.0, 0.0, 1.0]
    assert found["query_tokens"] == [3.0, 3.0, 3.0]
    assert found["title_tokens"] == [4.0, 2.0, 3.0]


def test_unknown_words_weigh_as_in_no_title(boots: Catalogue) -> None:
    found = made(Context(NOW, History(), "red zeppelin"), boots, 1)
    idf_red, idf_zeppelin = log(1 + (3 - 2 + 0.5) / (2 + 0.5)), log(1 + (3 - 0 + 0.5) / (0 + 0.5))
    assert found["query_coverage"] == [0.5]
    assert found["query_coverage_idf"] == pytest.approx([idf_red / (idf_red + idf_zeppelin)])


def test_number_coverage_looks_at_words_with_digits(catalogue: Make) -> None:
    screws = catalogue("wood screw 3.5 x 40 mm", "wood screw 3.5 x 50 mm", "wood screw")
    assert made(Context(NOW, History(), "screw 3.5 40"), screws, 0, 1, 2)["number_coverage"] == [1.0, 0.5, 0.0]
    assert np.isnan(made(Context(NOW, History(), "wood screw"), screws, 0, 1)["number_coverage"]).all()


def test_repeated_query_words_count_once(boots: Catalogue) -> None:
    once, twice = (made(Context(NOW, History(), q), boots, 0, 1, 2) for q in ("red", "red red"))
    np.testing.assert_array_equal(list(once.values()), list(twice.values()))


def test_a_title_without_tokens(catalogue: Make) -> None:
    odd = catalogue("red boot", "!!!", "blue boot")
    found = made(Context(NOW, History(), "red boot"), odd, 1, 0)
    assert [found[name][0] for name in ("bm25", "query_coverage", "title_coverage", "title_tokens")] == [0.0] * 4
    assert found["query_coverage"][1] == 1.0


def test_a_catalogue_without_tokens(catalogue: Make) -> None:
    found = made(Context(NOW, History(), "red boot"), catalogue("!!!", "???"), 0, 1)
    assert found["bm25"] == found["query_coverage"] == found["title_coverage"] == [0.0, 0.0]


def test_a_query_of_punctuation_only(boots: Catalogue, encoder: Encoder) -> None:
    vector = encoder.encode(["!?"])[0]
    found = made(Context(NOW, History(), "!?", vector, vector), boots, 0, 1)
    assert found["query_tokens"] == [0.0, 0.0]
    assert all(np.isnan(found[name]).all() for name in MATCH)
    assert np.isfinite(found["title_cosine"]).all()


def test_without_a_query(boots: Catalogue) -> None:
    found = made(Context(NOW, History()), boots, 0, 1)
    assert all(np.isnan(found[name]).all() for name in (*MATCH, "title_cosine", "space_cosine"))
    assert found["query_tokens"] == [0.0, 0.0]


def test_cosines_are_inner_products(boots: Catalogue, encoder: Encoder) -> None:
    vector = encoder.encode(["red dress"])[0]
    found = made(Context(NOW, History(), "red dress", vector, -vector, 0.5 * vector), boots, 1)
    assert found["title_cosine"] == pytest.approx([1.0])
    assert found["space_cosine"] == pytest.approx([-1.0])
    assert found["user_dot"] == pytest.approx([0.5])


def test_product_features(boots: Catalogue) -> None:
    found = made(Context(NOW, History()), boots, 0, 1, 2)
    assert found["log_price"] == pytest.approx([log(101), np.nan, log(11)], nan_ok=True)
    assert found["in_stock"] == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)


def test_popularity_is_the_behaviours(boots: Catalogue) -> None:
    behaviour = Behaviour(3)
    behaviour.apply(Engagement(None, 2, CLICK, NOW - 7 * DAY))
    found = made(Context(NOW, History()), boots, 0, 2, behaviour=behaviour)
    assert found["popularity_7d"] == pytest.approx([0.0, log(1 + np.exp(-7 / 7))])
    assert found["popularity_30d"] == pytest.approx([0.0, log(1 + np.exp(-7 / 30))])


def test_a_stranger_has_no_user_features(boots: Catalogue) -> None:
    found = made(Context(NOW, History()), boots, 0, 1)
    assert found["history_length"] == [0.0, 0.0]
    assert all(np.isnan(found[name]).all() for name in USER)


def test_user_features(boots: Catalogue) -> None:
    history = History((1, 0, 0, 0), (VIEW, PURCHASE, PURCHASE, CLICK), tuple(NOW - d * DAY for d in (9, 8, 3, 1)))
    found = made(Context(NOW, history), boots, 0, 1, 2)
    assert found["history_length"] == pytest.approx([log1p(4)] * 3)
    assert found["days_since_last"] == pytest.approx([log1p(1)] * 3)
    assert found["engaged_before"] == pytest.approx([log1p(3), log1p(1), 0.0])
    assert found["bought_before"] == pytest.approx([log1p(2), 0.0, 0.0])
    assert found["bought_share"] == pytest.approx([2 / 2, 0.0, 0.0])
    assert found["days_since_product"] == pytest.approx([log1p(1), log1p(9), np.nan], nan_ok=True)
    assert found["brand_share"] == pytest.approx([4 / 4, 4 / 4, np.nan], nan_ok=True)
    assert found["category_share"] == pytest.approx([3 / 4, np.nan, 0.0], nan_ok=True)
    # The purse is the mean over the engagements whose price is known: three times the boot.
    assert found["price_against_user"] == pytest.approx([0.0, np.nan, log(11) - log(101)], abs=1e-6, nan_ok=True)


def test_history_cosines_look_at_the_newest(boots: Catalogue) -> None:
    history = History((2,) * 5 + (0,) * 19 + (1,), (VIEW,) * 25, tuple(map(float, range(25))))
    cosines = boots.table.vectors[0] @ boots.table.vectors.T
    found = made(Context(NOW, history), boots, 0)
    assert found["history_cosine_max"] == pytest.approx([1.0])
    assert found["history_cosine_mean"] == pytest.approx([(19 * 1.0 + cosines[1]) / 20], abs=1e-6)
    assert found["history_cosine_last"] == pytest.approx([cosines[1]], abs=1e-6)


def test_position_is_the_log_of_the_place(boots: Catalogue) -> None:
    rows, context = np.array([0, 1, 2]), Context(NOW, History())
    place = NAMES.index("position")
    logged = features.matrix(context, rows, boots, Behaviour(3), np.array([1, 2, 9]))
    assert logged[:, place] == pytest.approx([0.0, log(2), log(9)])
    served = features.matrix(context, rows, boots, Behaviour(3))
    assert served[:, place].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(np.delete(logged, place, 1), np.delete(served, place, 1))


def test_rows_do_not_see_each_other(boots: Catalogue, encoder: Encoder) -> None:
    vector = encoder.encode(["red boot"])[0]
    history = History((1, 0), (CLICK, PURCHASE), (NOW - DAY, NOW - 60))
    context = Context(NOW, history, "red boot 42", vector, vector, vector)
    together = features.matrix(context, np.array([2, 0, 1, 0]), boots, Behaviour(3))
    alone = [features.matrix(context, np.array([row]), boots, Behaviour(3))[0] for row in (2, 0, 1, 0)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_later_events_change_nothing(boots: Catalogue) -> None:
    """Features at a time t from a log cut at t and from a log whose events after t are shifted: all the same."""
    rng = np.random.default_rng(0)
    log_of = [Engagement("u", int(rng.integers(3)), CLICK, NOW + 3_600 * (i - 50)) for i in range(100)]

    def at_now(shift: float) -> np.ndarray:
        moved = [e if e.time < NOW else e._replace(time=e.time + shift) for e in log_of]
        behaviour = Behaviour(3)
        behaviour.apply_all(e for e in moved if e.time < NOW)
        return features.matrix(Context(NOW, behaviour.history("u"), "red boot"), np.arange(3), boots, behaviour)

    np.testing.assert_array_equal(at_now(0.0), at_now(365 * DAY))
    assert np.nanmax(at_now(0.0)[:, NAMES.index("popularity_7d")]) > 0


def test_arguments_are_not_written_into(boots: Catalogue, encoder: Encoder) -> None:
    vector = encoder.encode(["red boot"])[0]
    rows, before = np.array([2, 0]), vector.copy()
    behaviour = Behaviour(3)
    features.matrix(Context(NOW, History((1,), (VIEW,), (1.0,)), "red", vector, vector), rows, boots, behaviour)
    assert rows.tolist() == [2, 0]
    np.testing.assert_array_equal(vector, before)
    assert behaviour.users == {}


def test_fingerprint_names_the_columns_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {features.fingerprint()}
    for names in ((*NAMES, "another"), NAMES[:-1], NAMES[::-1]):
        monkeypatch.setattr(features, "NAMES", names)
        seen.add(features.fingerprint())
    assert len(seen) == 4
    assert all(len(name) == 16 for name in seen)


def test_token_hashes_of_a_singular_are_the_plurals() -> None:
    """What the BM25 test leans on."""
    assert token_hashes("boots").tolist() == token_hashes("boot").tolist()


def test_unplaced_is_what_serving_sees(boots: Catalogue) -> None:
    rows, context = np.array([0, 1, 2]), Context(NOW, History())
    logged = features.matrix(context, rows, boots, Behaviour(3), np.array([1, 2, 9]))
    before = logged.copy()
    np.testing.assert_array_equal(features.unplaced(logged), features.matrix(context, rows, boots, Behaviour(3)))
    np.testing.assert_array_equal(logged, before)
