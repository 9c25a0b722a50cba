"""The loop: whose pages are compared, and that it runs from the old engine's log to the table."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import loop
import numpy as np
import pytest
from loop import ORDERS, lines, pages_of, summary

from indexer.sample.products import make_products
from indexer.sample.visitors import Visitors, draw_visitors
from ranker.significance import paired


@pytest.fixture(scope="module")
def visitors() -> Visitors:
    return draw_visitors(make_products(60, 1), users=5, count=3, seed=1)


def _answer(rows: np.ndarray, rng: np.random.Generator) -> Any:
    scores = {name: rng.normal(size=len(rows)) for name in ("recall", "network", "trees")}
    return SimpleNamespace(hits=_Hits(rows=rows, scores=-np.sort(rng.normal(size=len(rows))), **scores), degraded=[])


class _Hits(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.rows)


def test_every_order_is_of_the_same_candidates(visitors: Visitors) -> None:
    rng = np.random.default_rng(0)
    # Rows of an index are others than those of the table.
    table_row = rng.permutation(60)
    answers = [_answer(rng.permutation(60)[:30], rng) for _ in range(len(visitors))]
    pages = pages_of(answers, visitors, table_row)
    for i, answer in enumerate(answers):
        hits = answer.hits
        rows = table_row[hits.rows]
        assert pages["served"][i].tolist() == rows[np.argsort(-hits.scores)][:20].tolist()
        assert pages["recall"][i].tolist() == rows[np.argsort(-hits.recall)][:20].tolist()
        assert pages["DNN"][i].tolist() == rows[np.argsort(-hits.network)][:20].tolist()
        assert pages["LightGBM"][i].tolist() == rows[np.argsort(-hits.trees)][:20].tolist()
        drawn = visitors.part(slice(i, i + 1)).drawn(rows[None])[0]
        assert pages["best order"][i].tolist() == rows[np.argsort(-drawn)][:20].tolist()
    best = visitors.expected_clicks(pages["best order"])
    assert all((best >= visitors.expected_clicks(page) - 1e-12).all() for page in pages.values())


@pytest.mark.parametrize("lacking", ["network", "trees"])
def test_a_visit_that_was_not_ranked_ends_it(visitors: Visitors, lacking: str) -> None:
    answer = _answer(np.arange(30), np.random.default_rng(0))
    setattr(answer.hits, lacking, None)
    with pytest.raises(SystemExit, match="--visits"):
        pages_of([answer], visitors, np.arange(60))


def test_the_summary_is_over_all_visits_and_compares_the_same_ones() -> None:
    rng = np.random.default_rng(0)
    rounds = [{order: rng.normal(size=size) + place for place, order in enumerate(ORDERS)} for size in (40, 60)]
    rows = {row["order"]: row for row in summary(rounds)}
    assert list(rows) == list(ORDERS)
    assert rows["served"]["served_less_this"] is None
    recall = np.concatenate([each["recall"] for each in rounds])
    assert rows["recall"]["rounds"] == pytest.approx([each["recall"].mean() for each in rounds])
    assert rows["recall"]["mean"] == pytest.approx(recall.mean())
    served = np.concatenate([each["served"] for each in rounds])
    less = paired(served, recall[:, None])[0]
    assert rows["recall"]["served_less_this"]["mean"] == pytest.approx(less.mean)
    assert lines(summary(rounds))[2].startswith(f"| served | {rows['served']['rounds'][0]:.3f} | ")
    assert len(lines(summary(rounds))) == 2 + len(ORDERS)


@pytest.mark.slow
def test_from_the_old_log_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts_apart: None) -> None:
    rounds: list[Any] = []
    played = loop.played

    def noted(*given: Any) -> Any:
        _, visitors, states, *_ = given
        # All three have read what came before the round, and nothing of it yet.
        known = [state.behaviour.last_time for state in states]
        assert max(known) < visitors.times[0]
        assert known[0] == known[1]
        bought = [state.behaviour.purchases.sum() for state in states]
        worth, events = played(*given)
        rounds.append((states, worth, events))
        # Each once, in the first round too, where two of them are one.
        new = float((events["event_type"] == "purchase").sum())
        assert [state.behaviour.purchases.sum() for state in states] == [bought[0] + new, bought[1], bought[2] + new]
        assert new > 0
        assert states.live.behaviour.last_time == states.first.behaviour.last_time >= visitors.times[-1] - 60
        assert states.frozen.behaviour.last_time == known[1]
        return worth, events

    monkeypatch.setattr(loop, "played", noted)
    out = tmp_path / "out.json"
    few = "network_epochs = 1\ntower_epochs = 1\ntrees = 10\ncandidates = 60\n"
    monkeypatch.setattr(loop, "_CONFIG", loop._CONFIG + few)
    sizes = ["--products", "300", "--users", "150", "--visits", "3000", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["loop.py", *sizes, "--out", str(out)])
    loop.main()
    told = json.loads(out.read_text())
    assert [row["order"] for row in told["rows"]] == list(ORDERS)
    assert all(len(row["rounds"]) == 2 and min(row["rounds"]) > 0 for row in told["rows"])
    (first, worth, events), (second, *_) = rounds
    assert events["request_id"].n_unique() == 750
    assert np.array_equal(worth["served"], worth["first release"])
    # The second round has a release of its own, which knows the first one's events, and the first release goes on.
    assert second.live.release.number == first.live.release.number + 1
    assert second.first is first.first
