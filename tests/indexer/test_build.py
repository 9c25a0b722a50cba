import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexer import build, embeddings, tuning
from indexer.build import REJECTS, build_index
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from indexer.errors import InputError, SnapshotError
from indexer.kinds import GRAPH
from indexer.pieces import pieces
from indexer.readers import Catalogue
from indexer.snapshot import VECTORS, IndexSnapshot, open_latest
from indexer.store import Store
from indexer.text import token_hashes

TITLES = [f"product number {i}" for i in range(100)]
WriteCatalogue = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def ignore(stage: str, done: int, total: int) -> None:
    """A progress nobody watches."""


def test_the_index_holds_every_product_with_its_vector(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(TITLES))
    seen: list[tuple[str, int, int]] = []
    name = build_index(store, config, encoder, lambda *step: seen.append(step))
    index = open_latest(store, config)
    assert index.id == name
    assert sorted(index.ids) == sorted(f"p{i}" for i in range(100))
    titles = index.products.column("title").to_pylist()
    assert all(title == TITLES[int(i.removeprefix("p"))] for i, title in zip(index.ids, titles, strict=True))
    np.testing.assert_array_equal(index.vectors, encoder.encode(titles))
    assert store.verify("indexes", name) == []
    assert index.manifest["encoder"] == {"name": "fake", "fingerprint": "fake-1", "backend": "none"}
    assert index.manifest["counts"] == {"products": 100, "rejected": 0, "embedded": 100}
    assert index.manifest["index"] == {"kind": "exact", "recall_at_100": 1.0, "held_out": 10}
    assert {stage: sum(done for s, done, _ in seen if s == stage) for stage, _, _ in seen} == {
        "embed": 100,
        "index": 100,
    }
    assert list((store.root / "work").iterdir()) == []


def test_the_index_says_of_when_its_catalogue_is(
    store: Store, encoder: Any, catalogue: WriteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is replaced while it is read is newer than what was read."""
    config = IndexerConfig(catalogue=catalogue(TITLES))
    os.utime(config.catalogue, (1.7e9, 1.6e9))
    real = build.read_catalogue

    def replaced(path: Path, *others: Any) -> Any:
        read = real(path, *others)
        os.utime(path)
        return read

    monkeypatch.setattr(build, "read_catalogue", replaced)
    build_index(store, config, encoder, ignore)
    assert open_latest(store, config).manifest["catalogue"] == {"modified": 1.6e9}


def test_a_catalogue_that_is_yet_to_come_is_refused(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    """Whatever is set meanwhile would be taken for older than the file."""
    config = IndexerConfig(catalogue=catalogue(TITLES))
    os.utime(config.catalogue, (time.time(), time.time() + 7_200))
    with pytest.raises(InputError, match=r"was last modified 7,[12]\d\d seconds from now.*touch -d"):
        build_index(store, config, encoder, ignore)
    assert store.ids("indexes") == []
    os.utime(config.catalogue)
    build_index(store, config, encoder, ignore)


def test_a_catalogue_is_amended_before_it_is_built(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue([*TITLES, ""]))
    os.utime(config.catalogue, (1.7e9, 1.6e9))
    asked: list[Any] = []

    def amend(read: Catalogue, moment: float | None) -> Catalogue:
        asked.append((read.products["title"].to_list(), len(read.rejects), moment))
        new = read.products[:1].with_columns(product_id=pl.lit("new"), title=pl.lit("zirconium teapot"))
        return read._replace(products=pl.concat([read.products[1:], new]))

    build_index(store, config, encoder, ignore, amend=amend)
    assert asked == [(TITLES, 1, 1.6e9)]
    index = open_latest(store, config)
    assert sorted(index.ids) == sorted([*(f"p{i}" for i in range(1, 100)), "new"])
    assert index.manifest["counts"] == {"products": 100, "rejected": 1, "embedded": 100}
    row = index.row_of["new"]
    np.testing.assert_array_equal(index.vectors[[row]], encoder.encode(["zirconium teapot"]))
    assert index.lexical.search("zirconium", 5).rows.tolist() == [row]


def test_a_catalogue_that_cannot_be_used_is_not_amended(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(["", ""]), max_reject_share=1)
    with pytest.raises(InputError, match="holds no usable row of 2"):
        build_index(store, config, encoder, ignore, amend=lambda *_: pytest.fail("amended"))


def test_one_product_is_enough(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(["!"]), index="HNSW32")
    build_index(store, config, encoder, ignore)
    index = open_latest(store, config)
    assert (len(index), index.index.kind, index.manifest["index"]["recall_at_100"]) == (1, "HNSW32", 1.0)
    assert index.tokens.offsets.tolist() == [0, 0]


def test_search_is_tuned_by_queries_made_of_titles_that_are_held_out(
    store: Store, encoder: Any, catalogue: WriteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = tuning.tuned

    def noted(index: Any, oracle: Any, queries: Any, config: Any) -> Any:
        asked.append((len(index), queries))
        return real(index, oracle, queries, config)

    monkeypatch.setattr(tuning, "tuned", noted)
    config = IndexerConfig(catalogue=catalogue(TITLES), index="HNSW16")
    build_index(store, config, encoder, ignore)
    titles = open_latest(store, config).products.column("title").to_pylist()
    ((held, queries),) = asked
    assert held == 90
    np.testing.assert_array_equal(queries, encoder.encode(pieces(titles[90:])))


def test_unchanged_titles_are_not_embedded_again(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    build_index(store, IndexerConfig(catalogue=catalogue(TITLES)), encoder, ignore)
    encoder.encoded.clear()
    config = IndexerConfig(catalogue=catalogue(["changed", *TITLES[1:], "new"]))
    build_index(store, config, encoder, ignore)
    assert sorted(encoder.encoded) == ["changed", "new"]
    index = open_latest(store, config)
    assert index.manifest["counts"]["embedded"] == 2
    np.testing.assert_array_equal(index.vectors, encoder.encode(index.products.column("title").to_pylist()))


def test_a_flipped_bit_is_not_handed_on(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(TITLES))
    first = build_index(store, config, encoder, ignore)
    path = store.path("indexes", first) / VECTORS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    second = build_index(store, config, encoder, ignore)
    assert store.manifest("indexes", second)["counts"]["embedded"] == 100


def test_another_encoder_embeds_everything(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(TITLES))
    build_index(store, config, encoder, ignore)
    encoder.encoded.clear()
    encoder.fingerprint = "fake-2"
    build_index(store, config, encoder, ignore)
    assert len(encoder.encoded) == 100


def test_a_damaged_last_index_is_built_anew(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(TITLES))
    (store.path("indexes", build_index(store, config, encoder, ignore)) / VECTORS).unlink()
    name = build_index(store, config, encoder, ignore)
    assert (store.latest("indexes"), store.verify("indexes", name)) == (name, [])


def test_hnsw_above_exact_up_to(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(TITLES), exact_up_to=99)
    build_index(store, config, encoder, ignore)
    index = open_latest(store, config)
    assert (index.manifest["index"]["kind"], index.index.kind, len(index.index)) == (GRAPH, GRAPH, 100)
    assert index.index.search(index.vectors[:5], 1).rows[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_the_manifest_holds_what_the_tuning_measured(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue([f"title {i}" for i in range(2_000)]), index="IVF16,Flat")
    entry = store.manifest("indexes", build_index(store, config, encoder, ignore))["index"]
    index = open_latest(store, config).index
    assert isinstance(index, DenseIndex)
    assert index.tuning.told() == entry["tuning"]
    efforts = [point["effort"] for point in entry["tuning"]["points"]]
    assert efforts == [1, 2, 3, 4, 6, 8, 12, 16][: len(efforts)]
    reached = [point for point in entry["tuning"]["points"] if point["recall"] >= config.recall_target]
    assert (entry["tuning"]["effort"], entry["recall_at_100"]) == (reached[0]["effort"], reached[0]["recall"])
    assert (entry["kind"], entry["held_out"], entry["tuning"]["target"]) == ("IVF16,Flat", 200, 0.98)


def test_tokens_are_written_by_blocks(
    store: Store, encoder: Any, catalogue: WriteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_BLOCK", 7)
    config = IndexerConfig(catalogue=catalogue(["!", *TITLES]))
    build_index(store, config, encoder, ignore)
    index = open_latest(store, config)
    wanted = [token_hashes(title).tolist() for title in index.products.column("title").to_pylist()]
    assert [part.tolist() for part in np.split(index.tokens.hashes, index.tokens.offsets[1:-1])] == wanted


def columns_catalogue(path: Path) -> Path:
    path.write_text(
        "product_id,title,brand,material,size\np0,red mug,Acme,porcelain,45\np1,blue mug,,,46\n", encoding="utf-8"
    )
    return path


def test_configured_columns_are_searched_by_word(store: Store, encoder: Any, tmp_path: Path) -> None:
    config = IndexerConfig(catalogue=columns_catalogue(tmp_path / "products.csv"))

    def found(query: str) -> list[str]:
        index = open_latest(store, config)
        return [index.ids[row] for row in index.lexical.search(query, 10).rows]

    build_index(store, config, encoder, ignore)
    # The default names brand and category; this catalogue has no category.
    assert (found("acme"), found("porcelain"), sorted(found("mug"))) == (["p0"], [], ["p0", "p1"])
    config = config.model_copy(update={"text_columns": ("material", "size")})
    build_index(store, config, encoder, ignore)
    assert (found("acme"), found("porcelain"), found("46")) == ([], ["p0"], ["p1"])


def test_a_text_column_nobody_has_fails_the_build(store: Store, encoder: Any, tmp_path: Path) -> None:
    path = columns_catalogue(tmp_path / "products.csv")
    config = IndexerConfig(catalogue=path, text_columns=("brand", "materiel"))
    with pytest.raises(InputError, match=r"text_columns names 'materiel'.*'material', 'size'"):
        build_index(store, config, encoder, ignore)
    assert encoder.encoded == []


def test_too_many_rejects_fail_the_build(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    live = build_index(store, IndexerConfig(catalogue=catalogue(TITLES)), encoder, ignore)
    bad = catalogue([*TITLES[:94], *[""] * 6], "bad.csv")
    with pytest.raises(InputError, match=r"6 of 100 rows .* \(6\.0%\).*max_reject_share = 5\.0%.*live index stays"):
        build_index(store, IndexerConfig(catalogue=bad), encoder, ignore)
    assert store.ids("indexes") == [live]
    lines = (store.root / REJECTS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"line": 96 + i, "product_id": f"p{94 + i}", "reason": "empty title"} for i in range(6)
    ]


def test_rejects_within_the_share_are_published_beside_the_products(
    store: Store, encoder: Any, catalogue: WriteCatalogue
) -> None:
    config = IndexerConfig(catalogue=catalogue([*TITLES[:95], *[""] * 5]))
    name = build_index(store, config, encoder, ignore)
    assert store.manifest("indexes", name)["counts"] == {"products": 95, "rejected": 5, "embedded": 95}
    assert len((store.path("indexes", name) / REJECTS).read_text(encoding="utf-8").splitlines()) == 5


def test_a_catalogue_without_a_usable_row_fails(store: Store, encoder: Any, catalogue: WriteCatalogue) -> None:
    config = IndexerConfig(catalogue=catalogue(["", ""]), max_reject_share=1)
    with pytest.raises(InputError, match="holds no usable row of 2"):
        build_index(store, config, encoder, ignore)
    with pytest.raises(SnapshotError):
        store.latest("indexes")


KILLED = """
import importlib.util, os, signal, sys
from pathlib import Path

from indexer import build, embeddings, tuning
from indexer.build import build_index
from indexer.config import IndexerConfig
from indexer.store import Store

spec = importlib.util.spec_from_file_location("stand_in", sys.argv[1])
stand_in = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stand_in)
save = embeddings.EmbeddingCache._save

def save_and_die(cache, keys, vectors):
    save(cache, keys, vectors)
    if len(list(cache.folder.glob("*.keys.npy"))) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

embeddings._SHARD, embeddings._SECONDS = 10, float("inf")
embeddings.EmbeddingCache._save = save_and_die
config = IndexerConfig(catalogue=Path(sys.argv[3]))
build_index(Store(Path(sys.argv[2])), config, stand_in.FakeEncoder(), lambda *step: None)
"""


def test_a_build_after_a_kill_embeds_only_what_is_left(
    store: Store, encoder: Any, catalogue: WriteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = build_index(store, IndexerConfig(catalogue=catalogue(TITLES[:50])), encoder, ignore)
    config = IndexerConfig(catalogue=catalogue(TITLES))
    stand_in = str(Path(__file__).with_name("conftest.py"))
    arguments = [stand_in, str(store.root), str(config.catalogue)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert store.ids("indexes") == [live]
    assert store.verify("indexes", live) == []
    assert len(IndexSnapshot(store, live, config)) == 50
    monkeypatch.setattr(embeddings, "_SHARD", 10)
    encoder.encoded.clear()
    name = build_index(store, config, encoder, ignore)
    # Of 100 titles the live index has 50, and the killed build saved two shards of 10.
    assert len(encoder.encoded) == 100 - 50 - 2 * 10
    index = open_latest(store, config)
    assert (index.id, index.manifest["counts"]["embedded"]) == (name, 30)
    np.testing.assert_array_equal(index.vectors, encoder.encode(index.products.column("title").to_pylist()))
