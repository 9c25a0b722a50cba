"""Search peers: tuning, recall and goals on cases to reckon by hand, rounds of made-up engines, copied settings."""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import search_peers
from search_peers import DENSE, SAME_RECALL, Goal, goal_table, judged, prepared, rows_of, table
from vector_peers import worker
from vector_peers.adapter import Data, recall_of, tune
from vector_peers.process import Round, Row, alternate, medians
from vector_peers.servers import write_config
from vector_peers.shop import least_scores
from vector_peers.vitrine import searches_of

from server.config import load_settings

# Row i of six lies at cosine 1 - i / 10 to every query, rows 4 and 5 at the same.
COSINES = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.6], np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    vectors = np.column_stack([COSINES, np.sqrt(1 - COSINES**2)]).astype(np.float32)
    queries = np.tile(np.array([1.0, 0.0], np.float32), (6, 1))
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "least.npy", least_scores(vectors, queries, 5))
    return Data(tmp_path, 5, {})


class Made:
    """Answers the rows that a search setting names."""

    packages = ("numpy", "no-such-distribution")
    builds: tuple[dict[str, Any], ...] = ({"size": "small"}, {"size": "large"})
    searches: tuple[dict[str, Any], ...] = ({"rows": [0, 1, 2]}, {"rows": [0, 1, 2, 3]})
    recalls = True

    def __init__(self) -> None:
        self.built: list[Any] = []
        self.closed = False

    def build(self, settings: Any, folder: Path) -> None:
        assert not list(folder.iterdir())
        self.built.append(settings)

    def caller(self, settings: Any, stack: ExitStack) -> Callable[[int], Any]:
        more = [4] if self.built and self.built[-1]["size"] == "large" else []
        return lambda i: settings["rows"] + more

    def rows(self, answer: Any) -> Any:
        return np.array(answer, np.int64)

    def close(self) -> None:
        self.closed = True


def test_recall_counts_ties_once_and_leaves_gaps_out(data: Data) -> None:
    assert recall_of(Made(), data, {"rows": [0, 1, 2, 3, 5]}) == 1.0
    assert recall_of(Made(), data, {"rows": [0, 1, 2, 3, 4, 5]}) == 1.0
    assert recall_of(Made(), data, {"rows": [0, 0, 0, 1, -1]}) == 2 / 5


def test_the_first_settings_that_reach_the_recall_are_taken(data: Data, tmp_path: Path) -> None:
    made = Made()
    tuned = tune(made, data, 0.8, tmp_path)
    assert (tuned.build, tuned.search, tuned.recall) == ({"size": "small"}, {"rows": [0, 1, 2, 3]}, 4 / 5)
    assert [each["recall"] for each in tuned.tried] == [3 / 5, 4 / 5]
    assert made.built == [{"size": "small"}]


def test_a_dearer_build_is_tried_last_and_its_best_is_kept_where_none_reaches(data: Data, tmp_path: Path) -> None:
    made = Made()
    made.searches = ({"rows": [0, 1]}, {"rows": [0]})
    tuned = tune(made, data, 0.9, tmp_path)
    assert made.built == [{"size": "small"}, {"size": "large"}]
    assert (tuned.build, tuned.search, tuned.recall) == ({"size": "large"}, {"rows": [0, 1]}, 3 / 5)
    assert len(tuned.tried) == 4


def test_an_engine_of_words_has_no_recall(data: Data, tmp_path: Path) -> None:
    made = Made()
    made.recalls = False
    assert tune(made, data, 0.9, tmp_path).recall is None


def test_a_worker_builds_measures_and_closes(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = Made(), tmp_path / "spent.npy"
    monkeypatch.setitem(sys.modules, "vector_peers.made", SimpleNamespace(make=lambda _: made))
    with ExitStack() as stack:
        mine = worker.Worker("made", data.folder, stack)
        told = mine.prepare(5, 0.8, {})
        assert told["recall"] == 4 / 5
        assert list(told["versions"]) == ["numpy"]
        for callers in (1, 3):
            measured = mine.round(callers, 0.05, 0.01, str(out))
            assert measured["rate"] > 0
            assert len(np.load(out)) == measured["count"] > 0
    assert made.closed


def test_a_callers_fault_is_raised() -> None:
    def fail(i: int) -> None:
        raise ValueError(f"query {i}")

    with pytest.raises(ValueError, match=r"query [05]"):
        worker.together([fail, fail], 10, 0.0, float("inf"))


def test_goals_compare_the_rates_of_the_same_round() -> None:
    rounds = {
        "ours": [Round(100, 1, 1), Round(50, 1, 1), Round(30, 1, 1)],
        "theirs": [Round(50, 1, 1), Round(25, 1, 1), Round(60, 1, 1)],
    }
    goals = [Goal("ours", "theirs", 2.0), Goal("theirs", "ours", 0.6), Goal("ours", "absent", 1.0)]
    found = judged(goals, rounds)
    assert [(each["ratio"], each["met"]) for each in found] == [(2.0, True), (0.5, False)]
    lines = goal_table([{"callers": 8, **each} for each in found]).splitlines()
    assert lines[2] == "| 8 | ours | theirs | 2.00 | at least 2 | met |"
    assert lines[3].endswith("NOT met |")


def test_every_goal_names_rows_there_are() -> None:
    rows = rows_of(Path("python"), Path("vitrine.toml"), 0.95, {"full": "a:1", "recall": "b:2"})
    names = {row.name for row in rows} | {SAME_RECALL}
    assert {name for goal in search_peers.GOALS for name in (goal.ours, goal.theirs)} <= names


def test_rows_without_peers_are_ours_and_only_some_peers_may_be_asked() -> None:
    addresses = {"full": "a:1", "recall": "b:2"}
    ours = rows_of(None, Path("vitrine.toml"), 0.95, addresses)
    assert all(row.adapter.startswith("vitrine") for row in ours)
    more = rows_of(Path("python"), Path("vitrine.toml"), 0.95, addresses, ["milvus", "hnswlib"])
    assert [row.name for row in more[len(ours) :]] == ["Milvus Lite", "hnswlib"]
    assert {row.options["address"] for row in ours if "address" in row.options} == {"a:1", "b:2"}


def test_each_adapter_has_its_file_and_its_pinned_requirement() -> None:
    folder = Path(search_peers.__file__).with_name("vector_peers")
    assert all((folder / f"{adapter}.py").exists() for adapter in search_peers.PEERS.values())
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))


def test_what_cannot_be_prepared_is_left_out_and_hnswlib_comes_twice() -> None:
    def start(row: Row) -> Any:
        def prepare() -> dict[str, Any]:
            if row.name == "pgvector":
                raise RuntimeError("no server")
            return {"build": {}, "search": {}, "recall": 0.99, "build_seconds": 1.0}

        return SimpleNamespace(row=row, prepare=prepare)

    said: list[str] = []
    rows = [Row(name, "x", Path("p"), 0.995) for name in (DENSE, "pgvector", "hnswlib")]
    engines, told, left_out = prepared(rows, start, said.append)
    assert [engine.row.name for engine in engines] == [DENSE, "hnswlib", SAME_RECALL]
    assert engines[-1].row.target == pytest.approx(0.988)
    assert left_out == {"pgvector": "no server"}
    assert "pgvector" not in told
    assert sum("short of" in line for line in said) == 2


def test_rounds_alternate_and_one_that_fails_is_left_out() -> None:
    asked: list[str] = []

    def engine(name: str, fails: bool = False) -> Any:
        def one(callers: int, seconds: float, warmup: float) -> Round:
            asked.append(name)
            if fails:
                raise RuntimeError("gone")
            return Round(len(asked), 1.0, 2.0)

        return SimpleNamespace(row=Row(name, "x", Path("p")), round=one)

    said: list[str] = []
    made = alternate([engine("a"), engine("b"), engine("c", fails=True)], 8, 2, 1.0, 0.1, said.append)
    assert asked == ["c", "b", "a", "a", "b", "b", "a"]
    assert {name: [each.rate for each in rounds] for name, rounds in made.items()} == {"a": [4, 7], "b": [5, 6]}
    assert said[0] == "c is left out with 8 callers: gone"


def test_the_table_has_medians_and_gaps() -> None:
    rounds = [Round(10, 1.0, 9.0), Round(30, 3.0, 7.0), Round(20, 2.0, 8.0)]
    assert medians(rounds) | {"rounds": 0} == {"rate": 20, "p50": 2.0, "p99": 8.0, "rounds": 0}
    lines = table({1: {"a": rounds}, 8: {}}, {"a": {"recall": 0.97}}).splitlines()
    assert lines[0] == "| | recall | 1 caller /s | p50 / p99 ms | 8 callers /s | p50 / p99 ms |"
    assert lines[2] == "| a | 0.9700 | 20 | 2.00 / 8.00 |  |  |"


def test_settings_are_copied_whole_to_another_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "vitrine.toml").write_text(
        'store = "my \\"store\\""\n[indexer]\ncatalogue = "p.csv"\ncolumns = { title = "名 = x", brand = "b" }\n'
        'text_columns = []\n[ranker]\nevents = "e.parquet"\ntime_cuts = [0.1, 0.2, 0.3, 0.4]\n'
    )
    settings = load_settings(tmp_path / "a" / "vitrine.toml")
    write_config(settings, {"ranking_budget_ms": 1e9, "port": 0}, tmp_path / "b" / "copy.toml")
    copy = load_settings(tmp_path / "b" / "copy.toml")
    changed = settings.server.model_copy(update={"ranking_budget_ms": 1e9, "port": 0})
    assert copy == settings.model_copy(update={"server": changed})


def test_an_index_is_searched_by_what_it_can_be_set_to() -> None:
    assert searches_of("HNSW32")[0] == {"ef_search": 100}
    assert searches_of("IVF1024,PQ96")[0] == {"nprobe": 8}
    assert searches_of("exact") == [{}]


def test_exact_search_needs_as_many_products_as_are_asked_for() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert least_scores(vectors, vectors, 1).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="holds 3 products; 4 are asked for"):
        least_scores(vectors, vectors, 4)


def test_data_reads_what_was_written(data: Data) -> None:
    (data.folder / "texts.json").write_text(json.dumps(["刀", "knife"]), encoding="utf-8")
    assert data.texts == ["刀", "knife"]
    assert data.least.tolist() == pytest.approx([0.6] * 6)
