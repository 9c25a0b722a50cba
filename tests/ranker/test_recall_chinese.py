"""Hybrid recall where the encoder cannot read: Chinese titles by their rare words, before an English MiniLM."""

import csv
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from indexer.config import IndexerConfig
from indexer.encoder import load_encoder
from indexer.exact import ExactIndex
from indexer.lexical import LexicalIndex
from indexer.text import normalise, tokens
from ranker.behaviour import Behaviour
from ranker.covisited import Covisited
from ranker.features import Context
from ranker.history import EMPTY
from ranker.recall import Retrieval

ZH_TITLES = Path(__file__).parents[3] / "shared/data/zh_titles/titles.csv.gz"
NOBODY = Covisited(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0))


@pytest.mark.real
@pytest.mark.skipif(not ZH_TITLES.is_file(), reason="the Chinese titles are not beside the checkout")
@pytest.mark.parametrize("count", [2, 3])
def test_a_chinese_title_is_found_though_the_encoder_knows_english_only(count: int) -> None:
    with gzip.open(ZH_TITLES, "rt", encoding="utf-8") as file:
        titles = [normalise(row["title"]) for row in csv.DictReader(file)]
    lists = [list(dict.fromkeys(tokens(title))) for title in titles]
    rows_of = Counter(token for words in lists for token in words)
    encoder = load_encoder(IndexerConfig.model_validate({"device": "cpu", "threads": 1}))
    index = ExactIndex(encoder.encode(titles))
    retrieval = Retrieval(index, LexicalIndex.build(titles), index, NOBODY, 200, {})
    asked = range(0, len(titles), 9)
    queries = []
    for row in asked:
        rarest = set(sorted(lists[row], key=lambda word: rows_of[word])[:count])
        queries.append(" ".join(word for word in lists[row] if word in rarest))
    found = 0
    for row, query, vector in zip(asked, queries, encoder.encode(queries), strict=True):
        context = Context(0.0, EMPTY, query, query, vector)
        first = retrieval.recall(context, Behaviour(len(titles))).rows[:10]
        found += titles[row] in {titles[other] for other in first}
    assert found / len(queries) >= 0.95
