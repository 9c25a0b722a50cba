"""The table that stands in for the encoder at queries: what is fitted, and when it is not used."""

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
from sums import SumEncoder

from indexer import distil
from indexer.build import build_index
from indexer.config import IndexerConfig
from indexer.distil import distilled
from indexer.encoder import Encoder
from indexer.query_table import QueryEncoder, QueryTable
from indexer.sample.products import make_products
from indexer.snapshot import open_latest
from indexer.store import Store

WORDS = [f"word{i}" for i in range(60)]


def titles(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 9), replace=False)) for _ in range(count)]


def made_by(encoder: SumEncoder, texts: list[str]) -> tuple[QueryTable | None, dict[str, Any]]:
    vectors = encoder.encode(texts)
    return distilled(cast(Encoder, encoder), texts, vectors, lambda *_: None)


def test_an_encoder_that_is_a_sum_is_found_out() -> None:
    encoder = SumEncoder(WORDS)
    table, told = made_by(encoder, titles(600))
    assert told["used"]
    assert told["cosine"] > 0.99
    assert told["overlap"] > 0.85
    assert told["known"] == 1.0
    assert told["tokens"] == len(WORDS) + 2  # And the marks.
    asked = ["word3 word40", "word7 word1 word59 word20"]
    cosines = np.sum(QueryEncoder(cast(Encoder, encoder), table).encode(asked) * encoder.encode(asked), 1)
    assert cosines.min() > 0.99


def test_one_that_reads_texts_as_a_whole_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table, told = made_by(SumEncoder(WORDS, share=0.2), titles(600))
    assert table is None
    assert not told["used"]
    assert told["cosine"] < 0.85
    assert "Queries stay with the encoder" in caplog.text


def test_the_figures_are_of_texts_that_it_was_not_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[int]]] = []
    real = distil.fitted

    def noted(encoder: Encoder, token_ids: Any, *others: Any) -> QueryTable:
        seen.append(token_ids)
        return real(encoder, token_ids, *others)

    asked: list[list[list[int]]] = []
    agreement = distil._agreement

    def heard(table: QueryTable, token_ids: Any, targets: Any, vectors: Any) -> dict[str, float]:
        asked.append(token_ids)
        return agreement(table, token_ids, targets, vectors)

    monkeypatch.setattr(distil, "fitted", noted)
    monkeypatch.setattr(distil, "_agreement", heard)
    _, told = made_by(SumEncoder(WORDS), titles(300))
    fit, held = ({tuple(text) for text in texts} for texts in (seen[0], asked[0]))
    assert not fit & held
    assert len(held) == (len(fit) + len(held)) // 10
    assert told["texts"] == len(fit)


def test_a_word_of_the_titles_that_was_in_no_piece_is_as_the_encoder_sees_it_alone() -> None:
    encoder = SumEncoder([*WORDS, "rare"])
    told = cast(Encoder, encoder)
    texts = titles(200)
    rare = np.unique(encoder.tokeniser(["rare"]))
    table = distil.fitted(told, encoder.tokeniser(texts), encoder.encode(texts), rare)
    [first, word, last] = encoder.tokeniser(["rare"])[0]
    np.testing.assert_allclose(table._vectors[table._rows[word]], 0.5 * encoder.encode(["rare"])[0], atol=1e-3)
    assert table.embed([first, word, last]) is not None
    without = distil.fitted(told, encoder.tokeniser(texts), encoder.encode(texts), rare[:0])
    assert without.embed([first, word, last]) is None
    # What the others mean does not depend on it.
    asked = encoder.tokeniser(["word1 word2"])[0]
    np.testing.assert_allclose(cast(Any, table.embed(asked)), cast(Any, without.embed(asked)), atol=1e-4)


def test_every_word_of_a_title_is_known() -> None:
    encoder = SumEncoder([*WORDS, *(f"code{i}" for i in range(300))])
    texts = [f"{title} code{i}" for i, title in enumerate(titles(300))]
    table, _ = made_by(encoder, texts)
    assert table is not None
    assert all(table.embed(each) is not None for each in encoder.tokeniser([f"code{i}" for i in range(300)]))


def test_conjugate_gradients_find_the_ridge_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(0.4, (80, 12)).astype(np.float32))
    targets = rng.normal(size=(80, 5)).astype(np.float32)
    start = rng.normal(size=(12, 5)).astype(np.float32)
    dense = counts.toarray().astype(float)
    wanted = start + np.linalg.solve(dense.T @ dense + np.eye(12), dense.T @ (targets - dense @ start))
    np.testing.assert_allclose(distil._ridge(counts, targets, start), wanted, atol=1e-4)


def test_a_catalogue_of_many_titles_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil, "_MOST", 100)
    assert 70 < len(distil._texts(titles(1_000))) <= 100
    assert 70 < len(distil._texts(titles(50))) <= 100
    assert 10 < len(distil._texts(titles(10))) <= 30


def test_a_catalogue_of_one_title_has_none() -> None:
    table, told = made_by(SumEncoder(WORDS), ["x"])
    assert table is None
    assert (told["texts"], told["used"]) == (1, False)


@pytest.mark.parametrize("asked", ["full", "distilled"])
def test_a_build_makes_it_where_it_is_asked_for(asked: str, tmp_path: Path) -> None:
    catalogue = tmp_path / "products.csv"
    lines = [f"p{i},{title}" for i, title in enumerate(titles(400))]
    catalogue.write_text("\n".join(["product_id,title", *lines]))
    config, store, steps = IndexerConfig(catalogue=catalogue, query_encoder=asked), Store(tmp_path / "store"), []
    encoder = cast(Encoder, SumEncoder(WORDS))
    name = build_index(store, config, encoder, lambda stage, done, of: steps.append((stage, done, of)))
    index = open_latest(store, config.model_copy(update={"query_encoder": "full"}))
    assert store.verify("indexes", name) == []
    if asked == "full":
        assert index.query_table is None
        assert "queries" not in index.manifest
        assert not any(stage == "distil" for stage, _, _ in steps)
        return
    # As it was built, whatever the configuration says since: the model was fitted to its vectors.
    assert index.query_table is not None
    assert index.manifest["queries"]["used"]
    done = [(done, of) for stage, done, of in steps if stage == "distil"]
    assert sum(each for each, _ in done) == done[0][1]
    vector = QueryEncoder(encoder, index.query_table).encode(["word5 word6"])[0]
    assert vector @ encoder.encode(["word5 word6"])[0] > 0.98
    assert index.query_table.embed(encoder.tokeniser(["word5 unheard-of"])[0]) is None


def test_the_packaged_model_has_a_table_that_agrees(exact_encoder: Encoder) -> None:
    asked = make_products(400, 0)["title"].to_list()
    table, told = distilled(exact_encoder, asked, exact_encoder.encode(asked), lambda *_: None)
    assert table is not None
    assert told["cosine"] > 0.88
    assert told["overlap"] > 0.6
