import csv
import gc
import gzip
import math
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer import lexical
from indexer.amended import AmendedRows
from indexer.errors import SnapshotError
from indexer.lexical import LexicalIndex
from indexer.text import normalise, token_hashes, tokens

ZH_TITLES = Path(__file__).parents[3] / "shared/data/zh_titles/titles.csv.gz"
TEXTS = ["red mug", "blue mug mug", "red wool scarf", "!", "3/4 in. brass pipe", "防水登山靴", "red mug"]
WORDS = ("red", "blue", "mug", "scarf", "wool", "pipe", "brass", "lamp", "desk", "chair")


def made(count: int) -> list[str]:
    """Texts of one to eight words, some of them repeated; the same for the same count."""
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, len(WORDS) + 1)
    return [" ".join(random.choice(WORDS, random.integers(1, 9), p=share / share.sum()).tolist()) for _ in range(count)]


def brute_force(texts: list[str], query: str) -> list[float]:
    """BM25 of every text, as it is written down (Robertson and Zaragoza 2009), k1 = 1.2 and b = 0.5."""
    bags = [Counter(tokens(normalise(text))) for text in texts]
    mean = sum(bag.total() for bag in bags) / len(bags)
    scores = [0.0] * len(bags)
    for word in set(tokens(normalise(query))):
        holding = sum(word in bag for bag in bags)
        idf = math.log(1 + (len(bags) - holding + 0.5) / (holding + 0.5))
        for row, bag in enumerate(bags):
            scores[row] += idf * bag[word] / (1.2 * (1 - 0.5 + 0.5 * bag.total() / mean) + bag[word])
    return scores


def test_the_score_is_the_formula() -> None:
    # 7 texts of 2, 3, 3, 0, 4, 9 and 2 tokens; "scarf" stands in 1 of them, once.
    idf = math.log(1 + (7 - 1 + 0.5) / (1 + 0.5))
    norm = 1.2 * (1 - 0.5 + 0.5 * 3 / (23 / 7))
    found = LexicalIndex.build(TEXTS).search("scarf", 10)
    assert found.rows.tolist() == [2]
    assert found.scores.tolist() == pytest.approx([idf * 1 / (norm + 1)])


@pytest.mark.parametrize("query", ["red", "mug lamp chair", "desk desk wool", "blue red mug scarf pipe brass"])
def test_search_agrees_with_brute_force(query: str) -> None:
    texts = made(500)
    index, expected = LexicalIndex.build(texts), np.array(brute_force(texts, query))
    everything = np.arange(len(texts))
    np.testing.assert_allclose(index.scores(query, everything), expected, rtol=1e-5)
    for mask in (None, everything % 3 == 0, everything < 5, np.zeros(500, np.bool_)):
        found = index.search(query, 20, mask)
        allowed = expected if mask is None else np.where(mask, expected, 0)
        assert len(found.rows) == min(20, np.count_nonzero(allowed))
        np.testing.assert_allclose(found.scores, np.sort(allowed)[::-1][: len(found.rows)], rtol=1e-5)
        np.testing.assert_array_equal(found.scores, index.scores(query, found.rows))
        assert mask is None or mask[found.rows].all()


def test_ties_are_broken_by_row() -> None:
    index = LexicalIndex.build(["red mug", "red", "blue", *["red mug"] * 5])
    assert index.search("mug", 10).rows.tolist() == [0, 3, 4, 5, 6, 7]
    assert index.search("mug", 3).rows.tolist() == [0, 3, 4]
    assert index.search("red", 3).rows.tolist() == [1, 0, 3]


def test_only_what_shares_a_word_is_found() -> None:
    index = LexicalIndex.build(TEXTS)
    assert index.search("mug", 10).rows.tolist() == [1, 0, 6]
    for query in ("", "!", "lamp", "7"):
        found = index.search(query, 10)
        assert (found.rows.dtype, found.rows.shape, found.scores.shape) == (np.int64, (0,), (0,))
        assert index.scores(query, np.arange(7)).tolist() == [0.0] * 7
    assert index.search("mug", 0).rows.tolist() == []


def test_the_mask_acts_before_the_best_are_taken() -> None:
    index = LexicalIndex.build(TEXTS)
    mask = np.array([False, False, False, True, True, True, True])
    assert index.search("mug", 1, mask).rows.tolist() == [6]
    assert mask.tolist() == [False, False, False, True, True, True, True]


def test_scores_keep_the_order_of_the_rows_asked_for() -> None:
    index = LexicalIndex.build(TEXTS)
    everything = index.scores("red mug", np.arange(7))
    assert index.scores("red mug", np.array([6, 3, 6])).tolist() == [everything[6], 0.0, everything[6]]


def test_a_misspelt_word_finds_what_was_meant() -> None:
    index = LexicalIndex.build(TEXTS)
    assert index.search("scraf", 10).rows.tolist() == [2]
    assert index.search("redmug", 10).rows.tolist() == index.search("red mug", 10).rows.tolist()
    assert index.scores("scraf", np.array([2])).tolist() == index.scores("scarf", np.array([2])).tolist()


def test_terms_are_the_tokens_the_search_uses() -> None:
    index = LexicalIndex.build(TEXTS)
    terms = index.terms("Red scrafs, red lamps 3/4in")
    assert terms.words == ["red", "scarf", "lamp", "3/4", "inch"]
    assert terms.hashes.tolist() == token_hashes("red scarf lamp 3/4 inch").tolist()
    assert terms.numeric.tolist() == [False, False, False, True, False]
    assert [part.shape for part in index.terms("")[1:]] == [(0,), (0,)]


def test_what_two_typed_words_make_together_is_no_number() -> None:
    """A model code written in two is asked for once, by the number that was typed."""
    terms = LexicalIndex.build(["card gt1030", "card gt 1030"]).terms("gt 1030")
    assert (terms.words, terms.numeric.tolist()) == (["gt", "1030", "gt1030"], [False, True, False])


@pytest.mark.parametrize("walked", [0, 10**6])
def test_scores_are_the_same_whichever_way_rows_are_found(monkeypatch: pytest.MonkeyPatch, walked: int) -> None:
    texts, rng = made(400), np.random.default_rng(4)
    index = LexicalIndex.build(texts)
    monkeypatch.setattr(lexical, "_WALKED", walked)
    # The number is a constant of the machine code.
    monkeypatch.setattr(lexical, "_scores_of", lexical._scores_of.__wrapped__)
    for query in ("red mug", "blue chair lamp", "unheard of", " ".join(texts[:9])):
        found = index.search(query, 400)
        expected = dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
        rows = rng.integers(0, 400, 50)
        assert index.scores(query, rows).tolist() == pytest.approx([expected.get(row, 0.0) for row in rows.tolist()])


@pytest.mark.parametrize("texts", [TEXTS, ["!"], ["one"]])
def test_what_was_saved_is_opened_memory_mapped(tmp_path: Path, texts: list[str]) -> None:
    built = LexicalIndex.build(texts)
    built.save(tmp_path / "lexical")
    opened = LexicalIndex.load(tmp_path / "lexical")
    assert len(opened) == len(texts)
    assert all(isinstance(opened._bm25.scores[name], np.memmap) for name in ("data", "indices", "indptr"))
    for query in ("red mugs", "靴", "one", "scraf"):
        np.testing.assert_array_equal(opened.search(query, 5), built.search(query, 5))
    assert {path.suffix for path in (tmp_path / "lexical").iterdir()} == {".npy", ".json"}


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    LexicalIndex.build(TEXTS).save(tmp_path)
    np.save(tmp_path / "data.csc.index.npy", np.zeros(3, np.float32))
    with pytest.raises(SnapshotError, match=r"do not fit each other\. Build the index again"):
        LexicalIndex.load(tmp_path)


@pytest.mark.real
@pytest.mark.skipif(not ZH_TITLES.is_file(), reason="the Chinese titles are not beside the checkout")
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_chinese_title_is_found_by_its_rarest_tokens(count: int) -> None:
    with gzip.open(ZH_TITLES, "rt", encoding="utf-8") as file:
        titles = [normalise(row["title"]) for row in csv.DictReader(file)]
    lists = [list(dict.fromkeys(tokens(title))) for title in titles]
    rows_of = Counter(token for words in lists for token in words)
    index = LexicalIndex.build(titles)
    found = 0
    for title, words in zip(titles, lists, strict=True):
        rarest = set(sorted(words, key=lambda word: rows_of[word])[:count])
        query = " ".join(word for word in words if word in rarest)
        found += title in {titles[row] for row in index.search(query, 10).rows}
    assert found / len(titles) >= 0.95


def test_rows_beyond_the_end_are_damage(tmp_path: Path) -> None:
    LexicalIndex.build(TEXTS).save(tmp_path)
    (path,) = tmp_path.glob("*indices*.npy")
    rows = np.load(path)
    rows[0] = len(TEXTS)
    np.save(path, rows)
    with pytest.raises(SnapshotError, match="name rows that are not there"):
        LexicalIndex.load(tmp_path)


def test_a_dropped_index_is_freed_at_once() -> None:
    index = LexicalIndex.build(TEXTS)
    index.terms("red mug")
    alive = weakref.ref(index)
    gc.disable()
    try:
        del index
        assert alive() is None
    finally:
        gc.enable()


def longer_by(index: LexicalIndex, texts: Sequence[str]) -> LexicalIndex:
    """The index with texts behind its own."""
    return index.amended(AmendedRows(np.arange(len(index), len(index) + len(texts)), len(index)), texts)


def test_texts_that_came_later_are_found_beside_the_others() -> None:
    texts = made(300)
    index, later = LexicalIndex.build(texts), ["red lamp", "quixotic chair", "blue mug mug"]
    longer = longer_by(index, later)
    assert (len(index), len(longer)) == (300, 303)
    assert longer.search("quixotic", 5).rows.tolist() == [301]
    assert set(longer.search("chair", 303).rows.tolist()) == {*index.search("chair", 303).rows.tolist(), 301}
    every = np.arange(303)
    for query in ("red lamp", "blue mug", "quixotic red chair", "nothing of it"):
        scores = longer.scores(query, every)
        # What was there keeps its scores.
        np.testing.assert_array_equal(scores[:300], index.scores(query, every[:300]))
        found = longer.search(query, 303)
        np.testing.assert_allclose(found.scores, scores[found.rows], rtol=1e-6)
        assert set(found.rows.tolist()) == set(np.flatnonzero(scores).tolist())
        kept = every % 2 == 1
        assert longer.search(query, 3, kept).rows.tolist() == [row for row in found.rows.tolist() if kept[row]][:3]
    assert index.search("quixotic", 5).rows.tolist() == []


def test_the_score_of_a_later_text_is_the_formula() -> None:
    # 7 texts with 17 distinct words in all ("mug mug" is one); "scarf" stands in 1 of them, "zeppelin" in none.
    postings = sum(len(set(tokens(normalise(text)))) for text in TEXTS)
    longer = longer_by(LexicalIndex.build(TEXTS), ["scarf scarf zeppelin"])
    norm = 1.2 * (1 - 0.5 + 0.5 * 2 / (postings / 7))
    known, new = (math.log(1 + (7 - count + 0.5) / (count + 0.5)) for count in (1, 1))
    assert longer.scores("scarf", np.array([7])).tolist() == pytest.approx([known * 2 / (norm + 2)])
    assert longer.scores("zeppelin", np.array([7])).tolist() == pytest.approx([new * 1 / (norm + 1)])


def test_words_of_later_texts_are_not_mended_away_and_mend_others() -> None:
    index = LexicalIndex.build(["brass lamp", "wool scarf"])
    assert index.mended("lampe") == "lamp"
    longer = longer_by(index, ["lampe ancienne"])
    assert longer.mended("lampe") == "lampe"
    assert longer.search("anciene", 5).rows.tolist() == [2]
    assert index.mended("lampe") == "lamp"


def test_later_texts_without_a_word_or_before_any_other() -> None:
    longer = longer_by(LexicalIndex.build(["red mug"]), ["!", "", "red"])
    # The shorter text first.
    assert longer.search("red", 9).rows.tolist() == [3, 0]
    assert longer_by(LexicalIndex.build([""]), ["mug"]).search("mug", 3).rows.tolist() == [1]


@pytest.mark.parametrize("query", ["跑鞋", "女 跑鞋", "跑鞋 red"])
def test_a_later_chinese_text(query: str) -> None:
    longer = longer_by(LexicalIndex.build(TEXTS), ["轻便女跑鞋 38", "red mug"])
    assert longer.search(query, 3).rows[0] == len(TEXTS)
    assert longer_by(LexicalIndex.build(["red mug"]), ["轻便女跑鞋"]).search("登山靴", 3).rows.tolist() == []


def test_a_text_that_is_another_now_is_found_by_its_new_words_alone() -> None:
    texts = made(300)
    index, rows = LexicalIndex.build(texts), AmendedRows(np.array([3, 298, 300, 301]), 300)
    said = ["quixotic chair", texts[298], "red lamp", "quixotic lamp"]
    now = index.amended(rows, said)
    assert len(now) == 302
    assert now.search("quixotic", 5).rows.tolist() == [3, 301]
    every = np.arange(302)
    as_behind = longer_by(index, said).scores
    for query in ("red lamp", "blue mug", "quixotic red chair", " ".join(texts[3].split())):
        scores, alone = now.scores(query, every), as_behind(query, np.arange(300, 304))
        # A text is worth as much in its row as it would be behind all others.
        np.testing.assert_array_equal(scores[[3, 298, 300, 301]], alone)
        others = np.setdiff1d(every[:300], [3, 298])
        np.testing.assert_array_equal(scores[others], index.scores(query, others))
        found = now.search(query, 302)
        assert len(set(found.rows.tolist())) == len(found.rows)
        assert set(found.rows.tolist()) == set(np.flatnonzero(scores).tolist())
        np.testing.assert_allclose(found.scores, scores[found.rows], rtol=1e-6)
        assert now.search(query, 3, every == 3).rows.tolist() == [3] * bool(scores[3])
    assert index.search("quixotic", 5).rows.tolist() == []


def test_a_word_that_only_stood_in_amended_texts_is_a_misspelt_one() -> None:
    built = LexicalIndex.build(["zephirix lamp", "red lamp", "zephirix shade", "oak desk"])
    one = built.amended(AmendedRows(np.array([0]), 4), ["zephyrix lamp"])
    # Another text still has it.
    assert one.search("zephirix", 9).rows.tolist() == [2]
    both = built.amended(AmendedRows(np.array([0, 2, 4]), 4), ["zephyrix lamp", "zephyrix shade", "zephyrix cord"])
    assert sorted(both.search("zephirix", 9).rows.tolist()) == [0, 2, 4]
    assert both.mended("Zephirix") == "zephyrix"
    again = built.amended(AmendedRows(np.array([0, 2, 4]), 4), ["a lamp", "a shade", "zephirix cord"])
    assert again.search("zephirix", 9).rows.tolist() == [4]
