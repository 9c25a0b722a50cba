import json
import math

import pytest

from indexer.planner import Filtered, Point, Tuning

# A graph whose filtered recall falls with the share, and whose exact search costs 10 ms for all rows.
TABLE = Tuning(
    0.98,
    100,
    [Point(100, 0.99, 0.2), Point(200, 0.999, 0.4)],
    [
        Filtered(0.01, 0.1, [Point(100, 0.10, 0.2), Point(200, 0.20, 0.4), Point(800, 0.60, 1.6)]),
        Filtered(0.1, 1.0, [Point(100, 0.50, 0.2), Point(200, 0.90, 0.4), Point(800, 0.98, 1.6)]),
        Filtered(1.0, 10.0, [Point(100, 0.99, 0.2), Point(200, 1.00, 0.4), Point(800, 1.00, 1.6)]),
    ],
)


def at(share: float, least: int = 100, tuning: Tuning = TABLE) -> int | None:
    """The effort where the filter keeps as much near the query as everywhere."""
    return tuning.filtered_effort(share, share, least)


def test_exact_where_the_graph_misses_the_target() -> None:
    assert at(0.01) is None


def test_exact_where_it_is_cheaper_though_the_graph_reaches_the_target() -> None:
    # 1.6 ms against 1.0 ms.
    assert at(0.1) is None


def test_the_cheapest_effort_that_reaches_the_target() -> None:
    assert at(1.0) == 100
    # At half, an effort of 200 finds 1 - 0.1 * log10(2) and one of 800 finds 1 - 0.02 * log10(2).
    assert 1 - 0.1 * math.log10(2) < 0.98 < 1 - 0.02 * math.log10(2)
    assert at(0.5) == 800


def test_recall_is_interpolated_over_the_logarithm_of_the_share() -> None:
    # 0.90 + 0.1 * log10(10 s) reaches 0.98 at s = 10 ** -0.2.
    assert (at(10**-0.21), at(10**-0.19)) == (800, 200)


def test_the_time_of_exact_search_is_interpolated_too() -> None:
    # 10 s ms: 0.8 of it is 1.6 ms at s = 0.2.
    assert (at(0.199), at(0.201)) == (None, 800)


def test_a_gain_that_is_not_clear_is_left_alone() -> None:
    close = Tuning(0.98, 100, TABLE.points, [Filtered(1.0, 0.24, [Point(100, 0.99, 0.2)])])
    assert at(1.0, tuning=close) is None
    assert at(1.0, tuning=Tuning(0.98, 100, TABLE.points, [Filtered(1.0, 0.26, [Point(100, 0.99, 0.2)])])) == 100


def test_what_the_filter_keeps_near_the_query_makes_it_hard_and_what_it_keeps_makes_exact_search_dear() -> None:
    assert TABLE.filtered_effort(1.0, 0.1, 100) == 100
    assert TABLE.filtered_effort(0.0, 0.9, 100) is None
    assert TABLE.filtered_effort(0.1, 0.9, 100) == 800


def test_an_effort_below_the_rows_asked_for_is_no_answer() -> None:
    assert (at(1.0, least=101), at(1.0, least=201)) == (200, 800)


def test_beyond_what_was_measured_the_effort_is_the_rows_asked_for() -> None:
    # 1.6 ms * 4000 / 800 = 8 ms = 0.8 * 10 ms.
    assert (at(1.0, least=3_999), at(1.0, least=4_001)) == (3_999, None)


def test_below_the_least_measured_share_search_is_exact() -> None:
    assert TABLE.filtered_effort(0.009, 1.0, 100) is None


def test_exact_search_is_sure_where_it_costs_no_more_than_a_look_at_the_neighbours() -> None:
    # 10 s ms against 0.2 ms.
    assert (TABLE.surely_exact(0.019), TABLE.surely_exact(0.021)) == (True, False)
    # Below the least measured share the time shrinks with it: 0.1 ms * 0.001 / 0.01.
    dear = Tuning(0.98, 100, [Point(100, 0.99, 0.02)], TABLE.filtered)
    assert (dear.surely_exact(0.0019), dear.surely_exact(0.0021)) == (True, False)


@pytest.mark.parametrize("effort", [0, 16])
def test_an_effort_of_lists_or_none_is_not_measured_against_the_rows(effort: int) -> None:
    tuning = Tuning(0.98, effort, TABLE.points, [Filtered(0.5, 10.0, [Point(effort, 0.99, 0.2)])])
    assert tuning.filtered_effort(0.7, 0.7, 0) == effort


def test_an_index_that_was_not_tuned_is_searched_exactly_below_a_fifth() -> None:
    bare = Tuning(0.98, 128)
    assert (bare.surely_exact(0.2), bare.surely_exact(0.21)) == (True, False)
    assert (at(0.2, tuning=bare), at(0.21, tuning=bare), at(0.21, 200, bare)) == (None, 256, 400)


@pytest.mark.parametrize("tuning", [TABLE, Tuning(0.9, 5)])
def test_the_manifest_keeps_it(tuning: Tuning) -> None:
    told = json.loads(json.dumps(tuning.told()))
    assert Tuning.of(told).told() == tuning.told()
    assert Tuning.of(told).filtered_effort(0.6, 0.6, 100) == at(0.6, tuning=tuning)
