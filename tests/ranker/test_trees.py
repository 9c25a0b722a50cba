"""The trees on toys whose order is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from ranker import ranked
from ranker.config import RankerConfig
from ranker.examples import Example
from ranker.features import NAMES, Context
from ranker.history import EMPTY
from ranker.metrics import ndcg
from ranker.ranked import Answers
from ranker.trees import Rows, fit_trees, grow_trees, rows_of, score

LIST = 12
SIGNAL, NOISE, POSITION = (NAMES.index(name) for name in ("bm25", "log_price", "position"))


def lists(count: int, seed: int, grades: Sequence[float] = (0.0, 1.0, 2.0, 3.0)) -> Rows:
    """Lists whose grade grows with one feature, a tenth of it missing; all others are noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count * LIST, len(NAMES))).astype(np.float32)
    x[:, POSITION] = 0.0
    levels = np.digitize(x[:, SIGNAL] + 0.1 * rng.normal(size=len(x)), [0.5, 1.0, 1.5])
    x[rng.random(len(x)) < 0.1, SIGNAL] = np.nan
    return Rows(x, np.array(grades)[levels], [LIST] * count)


def clicked(count: int, seed: int) -> Rows:
    """Lists as shown by price, whose clicks come to what has the signal and was looked at, the first places mostly."""
    rng = np.random.default_rng(seed)
    x, _, lengths, *_ = lists(count, seed)
    x[:, SIGNAL] = np.nan_to_num(x[:, SIGNAL])
    places = np.concatenate([np.argsort(np.argsort(-prices)) + 1 for prices in x[:, NOISE].reshape(-1, LIST)])
    x[:, POSITION] = np.log(places)
    seen = rng.random(len(x)) < 1 / places
    return Rows(x, (seen & (rng.random(len(x)) < 1 / (1 + np.exp(-2 * x[:, SIGNAL])))).astype(float), lengths)


@pytest.fixture(scope="module")
def config() -> RankerConfig:
    return RankerConfig(trees=40, leaves=7)


def mean_ndcg(scores: np.ndarray, of: Rows) -> float:
    pairs = zip(np.split(scores, len(of.lengths)), np.split(of.grades, len(of.lengths)), strict=True)
    return float(np.nanmean([ndcg(s, g, np.empty(0)) for s, g in pairs]))


def test_learns_the_order(config: RankerConfig) -> None:
    later, test = lists(60, 1), lists(60, 2)
    fitted = fit_trees(lists(150, 0), later, NAMES, config)
    scores = score(fitted, test.features)
    assert scores.shape == (60 * LIST,)
    assert scores.dtype == np.float64
    assert mean_ndcg(scores, test) > 0.9
    assert mean_ndcg(np.random.default_rng(0).random(60 * LIST), test) < 0.7
    assert fitted.feature_name() == list(NAMES)
    gain = fitted.feature_importance("gain")
    assert gain[SIGNAL] > 10 * gain[NOISE]


def test_growing_ends_where_nothing_is_gained_unless_told_otherwise(config: RankerConfig) -> None:
    train, later = lists(150, 0), lists(60, 1)._replace(grades=lists(60, 2).grades)
    stopped, whole = (
        fit_trees(train, later, NAMES, config.model_copy(update={"tree_patience": patience})) for patience in (5, 0)
    )
    assert stopped.best_iteration < 40
    assert (whole.num_trees(), whole.best_iteration) == (40, 0)


def test_grades_need_not_be_whole_numbers(config: RankerConfig) -> None:
    grades = (1.0, 1.33, 2.67, 3.0)
    test = lists(60, 2, grades)
    fitted = fit_trees(lists(150, 0, grades), lists(60, 1, grades), NAMES, config)
    assert mean_ndcg(score(fitted, test.features), test) > 0.9


def test_a_grade_only_the_later_slice_has(config: RankerConfig) -> None:
    fitted = fit_trees(lists(100, 0, (0.0, 0.0, 1.0, 1.0)), lists(60, 1), NAMES, config)
    assert mean_ndcg(score(fitted, lists(60, 2).features), lists(60, 2)) > 0.8


def test_one_more_column(config: RankerConfig) -> None:
    """The stacked trees read the network's logit behind the features; here it is the answer itself."""
    train, later = (
        rows._replace(features=np.column_stack([rows.features, rows.grades]).astype(np.float32))
        for rows in (lists(150, 0), lists(60, 1))
    )
    fitted = fit_trees(train, later, [*NAMES, "network_logit"], config)
    assert mean_ndcg(score(fitted, later.features), later) > 0.99
    assert fitted.feature_name()[-1] == "network_logit"


def by_list(count: int, seed: int) -> Rows:
    """Lists whose grades are one feature of the whole list and one of the row: good lists and bad ones."""
    rows = lists(count, seed)
    whole = np.repeat(rows.features[:: rows.lengths[0], NOISE], LIST)
    rows.features[:, NOISE] = whole
    return rows._replace(grades=np.where(whole > 0, 2.0, 0.0) + (rows.grades > 0), answered=True)


def test_answered_lists_are_compared_with_each_other(config: RankerConfig) -> None:
    """Where every row was asked about, a list's level is learnt as well; pairs within lists say nothing of it."""
    train, later, test = by_list(200, 0), by_list(60, 1), by_list(60, 2)
    good = test.grades >= 2
    apart = []
    for answered in (True, False):
        fitted = fit_trees(*(rows._replace(answered=answered) for rows in (train, later)), NAMES, config)
        scores = score(fitted, test.features)
        assert mean_ndcg(scores, test) > 0.9
        apart.append((scores[good].mean() - scores[~good].mean()) / scores.std())
    assert apart[0] > 1.0
    assert abs(apart[1]) < 0.5


def test_scores_of_answered_lists_are_no_probabilities(config: RankerConfig) -> None:
    """They are log-odds, as the calibration and the fusions take them."""
    scores = score(fit_trees(by_list(200, 0), by_list(60, 1), NAMES, config), by_list(60, 2).features)
    assert scores.min() < 0


def test_trees_do_not_learn_the_place(config: RankerConfig) -> None:
    """Clicks favour the first places, which were given by price: a place is accounted for beside the trees."""
    # All of them: those that are misled would stop at once, having learnt nothing yet.
    config = config.model_copy(update={"tree_patience": 0})
    test = lists(100, 2)
    informed = fit_trees(clicked(400, 0), lists(100, 1), NAMES, config)
    unaware = clicked(400, 0)
    unaware.features[:, POSITION] = 0.0
    blind = fit_trees(unaware, lists(100, 1), NAMES, config)
    gain, misled = (fitted.feature_importance("gain") for fitted in (informed, blind))
    assert gain[POSITION] == 0
    assert gain[NOISE] / gain[SIGNAL] < 0.6 * misled[NOISE] / misled[SIGNAL]
    assert mean_ndcg(score(informed, test.features), test) > mean_ndcg(score(blind, test.features), test) + 0.03


def test_the_place_of_a_candidate_does_not_change_its_score(config: RankerConfig) -> None:
    x = clicked(20, 2).features
    fitted = fit_trees(clicked(200, 0), clicked(60, 1), NAMES, config)
    elsewhere = x.copy()
    elsewhere[:, POSITION] = np.log(7)
    np.testing.assert_array_equal(score(fitted, x), score(fitted, elsewhere))


def test_arguments_are_not_written_into(config: RankerConfig) -> None:
    train, later = clicked(60, 0), clicked(40, 1)
    before = train.features.copy()
    fit_trees(train, later, NAMES, config)
    np.testing.assert_array_equal(train.features, before)


def test_the_same_seed_gives_the_same_trees(config: RankerConfig) -> None:
    one, other = (fit_trees(lists(100, 0), lists(40, 1), NAMES, config) for _ in range(2))
    np.testing.assert_array_equal(score(one, lists(40, 2)[0]), score(other, lists(40, 2)[0]))


def test_trees_correct_what_they_start_from(config: RankerConfig) -> None:
    """A start that ranks by noise, loudly, is answered with the noise taken away; one that is right leaves little."""
    train, later = (
        rows._replace(start=3.0 * rows.features[:, NOISE].astype(float)) for rows in (lists(200, 0), lists(60, 1))
    )
    corrected = fit_trees(train, later, NAMES, config.model_copy(update={"trees": 200}))
    alone = mean_ndcg(later.start, later)  # type: ignore[arg-type]
    assert mean_ndcg(later.start + score(corrected, later.features), later) > alone + 0.2
    gain = corrected.feature_importance("gain")
    assert gain[NOISE] > 0.2 * gain[SIGNAL]


def test_where_trees_stop_is_told_by_weighed_gains(config: RankerConfig) -> None:
    """They end where the NDCG of the weighed gains is best."""
    train, later = clicked(400, 0), clicked(200, 1)
    lengths, none = np.array(later.lengths), np.zeros(200, np.int64)
    weights = np.random.default_rng(0).uniform(1, 20, len(later.grades))
    wanted = Answers(lengths, later.grades * weights, later.grades > 0, none, np.ones(200), np.ones(200), none)
    fitted = fit_trees(train, later._replace(wanted=wanted), NAMES, config)

    def measured(trees: int) -> float:
        scores = fitted.predict(later.features, num_iteration=trees, raw_score=True)
        return float(np.nanmean(ranked.ndcg(np.split(np.asarray(scores), 200), wanted)))

    by_number = [measured(trees) for trees in range(1, fitted.current_iteration() + 1)]
    assert fitted.best_iteration == int(np.argmax(by_number)) + 1
    assert fitted.best_score["valid_0"]["ndcg@10"] == pytest.approx(max(by_number))


def shown(count: int, seed: int) -> Rows:
    """The same, where it is known how often their places are looked at."""
    rows = clicked(count, seed)
    return rows._replace(looks=np.exp(-rows.features[:, POSITION].astype(float)))


def test_where_looks_are_known_trees_learn_what_is_left_of_clicks(config: RankerConfig) -> None:
    config = config.model_copy(update={"trees": 200, "tree_patience": 20})
    test = lists(100, 2)
    # As all logged lists, they know what their clicks count.
    later, none = shown(200, 1), np.zeros(200, np.int64)
    wanted = Answers(np.full(200, LIST), later.grades, later.grades > 0, none, np.ones(200), np.ones(200), none)
    fitted = fit_trees(shown(400, 0), later._replace(wanted=wanted), NAMES, config)
    gain = fitted.feature_importance("gain")
    assert gain[POSITION] == 0
    assert gain[NOISE] < 0.15 * gain[SIGNAL]
    unaware = [clicked(400, 0), clicked(200, 1)]
    for rows in unaware:
        rows.features[:, POSITION] = 0.0
    blind = fit_trees(*unaware, NAMES, config)
    assert mean_ndcg(score(fitted, test.features), test) > mean_ndcg(score(blind, test.features), test) + 0.03
    # They grow until what is not looked at at later places is no better explained, not until plain clicks are.
    assert 20 < fitted.best_iteration < 200
    assert "ndcg@10" not in fitted.best_score["valid_0"]


def test_scores_of_shown_lists_rise_as_the_log_odds_of_a_look(config: RankerConfig) -> None:
    config = config.model_copy(update={"trees": 300, "tree_patience": 20})
    fitted = fit_trees(shown(2_000, 0), shown(500, 1), NAMES, config)
    test = clicked(200, 2).features
    scores, signal = score(fitted, test), test[:, SIGNAL]
    middle = np.abs(signal) < 1
    slope, _ = np.polyfit(signal[middle], scores[middle], 1)
    # A click at a look has log-odds of twice the signal; shares of it, which are what is added up here, a little less.
    assert 1.0 < slope < 2.2
    assert np.corrcoef(signal, scores)[0, 1] > 0.9


def test_trees_of_shown_lists_correct_what_they_start_from_too(config: RankerConfig) -> None:
    config = config.model_copy(update={"trees": 200})
    train, later = (
        rows._replace(start=3.0 * rows.features[:, NOISE].astype(float)) for rows in (shown(400, 0), shown(100, 1))
    )
    corrected = fit_trees(train, later, NAMES, config)
    test = lists(100, 2)
    start = 3.0 * test.features[:, NOISE].astype(float)
    assert mean_ndcg(start + score(corrected, test.features), test) > mean_ndcg(start, test) + 0.1


def listed(rows: Rows, weights: np.ndarray | None) -> list[Example]:
    """The rows as examples of one list each."""
    context = Context(0.0, EMPTY)
    nothing = np.zeros(0)
    return [
        Example(
            context,
            np.arange(LIST),
            rows.features[part],
            rows.grades[part],
            nothing,
            nothing,
            False,
            None if weights is None else np.arange(1, LIST + 1),
            None if weights is None else weights,
        )
        for part in (slice(start, start + LIST) for start in range(0, len(rows.grades), LIST))
    ]


def test_looks_are_known_where_all_lists_were_shown_and_places_differ() -> None:
    rows = clicked(3, 0)
    worth = np.arange(1.0, LIST + 1)
    np.testing.assert_allclose(rows_of(listed(rows, worth)).looks, np.tile(1 / worth, 3))
    alike, unknown = listed(rows, np.ones(LIST)), listed(rows, None)
    assert rows_of(alike).looks is None
    assert rows_of(unknown).looks is None
    mixed = rows_of([*listed(rows, worth), *unknown])
    assert (mixed.looks, mixed.wanted is None) == (None, False)


def test_lists_that_were_not_all_shown_are_ranked_by_pairs(config: RankerConfig) -> None:
    """A product that was not on any page was not declined."""
    for train, later in ((shown(60, 0), clicked(40, 1)), (clicked(60, 0), shown(40, 1))):
        told = fit_trees(train, later, NAMES, config).model_to_string()
        assert "objective=lambdarank" in told
    assert "objective=cross_entropy" in fit_trees(shown(60, 0), shown(40, 1), NAMES, config).model_to_string()
    assert "objective=cross_entropy" in grow_trees(shown(60, 0), 3, NAMES, config).model_to_string()
