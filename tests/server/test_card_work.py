"""Requests answered together: each gets what it would have got alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from words import sum_of_words, word_encoder, word_tokeniser

from indexer.arrays import Bits, Floats, Mask
from indexer.card import CardIndex
from indexer.exact import ExactIndex
from indexer.index import Neighbours
from indexer.tokenise import Tokeniser
from indexer.wire import Message
from server.card_work import Encodings, Searches

ROWS = 203
VECTORS = np.random.default_rng(0).normal(size=(ROWS, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(9, 16)).astype(np.float32)
ODD, FEW, NONE = np.arange(ROWS) % 2 == 1, np.arange(ROWS) < 3, np.zeros(ROWS, bool)


class Watched(CardIndex):
    """Notes the k and the masks of each search."""

    def __init__(self) -> None:
        super().__init__(VECTORS, torch.device("cpu"))
        self.searches: list[tuple[int, Sequence[Mask | None]]] = []

    def search_each(self, queries: Floats | torch.Tensor, k: int, masks: Sequence[Mask | Bits | None]) -> Neighbours:
        self.searches.append((k, masks))
        return super().search_each(queries, k, masks)


@pytest.fixture
def index() -> Watched:
    return Watched()


def asked(queries: Floats, k: int, mask: Mask | None) -> Message:
    bits = [] if mask is None else [np.packbits(mask, bitorder="little")]
    return Message({"k": k, "under": [None if mask is None else 0] * len(queries)}, [queries, *bits])


def test_a_request_is_read_with_its_masks(index: Watched) -> None:
    work, sent = Searches(index), [np.packbits(mask, bitorder="little") for mask in (ODD, FEW)]
    read = work.read(Message({"k": 7, "under": [1, None, 0, 1]}, [QUERIES[:4], *sent]))
    assert read.k == 7
    np.testing.assert_array_equal(read.queries, QUERIES[:4])
    # The very arrays: what is one mask is uploaded once.
    assert [mask if mask is None else id(mask) for mask in read.masks] == [id(sent[1]), None, id(sent[0]), id(sent[1])]
    assert work.read(Message({"k": 7, "under": [None]}, [QUERIES[:1]])).masks == [None]


def test_one_search_answers_all_that_ask_for_as_many_each_under_its_own_mask(index: Watched) -> None:
    work = Searches(index)
    requests = [
        (QUERIES[:1], 5, None),
        (QUERIES[1:3], 5, ODD),
        (QUERIES[3:4], 8, FEW),
        (QUERIES[4:7], 5, FEW),
        (QUERIES[7:7], 5, ODD),
        (QUERIES[7:8], 8, None),
        (QUERIES[8:], 5, NONE),
    ]
    index.searches.clear()
    answers = work.run([work.read(asked(*request)) for request in requests])
    assert sorted((k, len(masks)) for k, masks in index.searches) == [(5, 1 + 2 + 3 + 0 + 1), (8, 2)]
    for (rows, scores), (queries, k, mask) in zip(answers, requests, strict=True):
        expected = ExactIndex(VECTORS).search(queries, k, mask)
        np.testing.assert_array_equal(rows, expected.rows)
        np.testing.assert_allclose(scores, expected.scores, rtol=1e-5)


def test_an_index_tells_its_kind(index: Watched) -> None:
    assert Searches(index).told == {"kind": "exact on cpu (float32)"}


TEXTS = ["red mug", "a", "four oak chairs", "blue"]


def test_texts_of_several_requests_are_one_pass_and_each_gets_its_vectors(tmp_path: Path) -> None:
    encoder, passes = word_encoder(), list[tuple[int, ...]]()

    def noted(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        passes.append(input_ids.shape)
        return sum_of_words(input_ids, attention_mask)

    encoder.forward = noted
    work, tokeniser = Encodings(encoder, tmp_path), word_tokeniser()
    batches = [tokeniser.pad(tokeniser(texts)) for texts in (TEXTS[:1], TEXTS[1:3], TEXTS[3:])]
    answers = work.run([work.read(Message({}, list(batch))) for batch in batches])
    # ByteLevel puts a space before the first word.
    assert passes == [(4, 1 + len(TEXTS[2]))]
    for [vectors], batch in zip(answers, batches, strict=True):
        np.testing.assert_allclose(vectors, sum_of_words(*batch), atol=1e-6)


def test_an_encoder_tells_what_a_worker_needs_to_stand_in_for_it(tmp_path: Path) -> None:
    told = Encodings(word_encoder(), tmp_path).told
    tokeniser = Tokeniser.load(Path(told.pop("tokeniser")))
    assert tokeniser(TEXTS) == word_tokeniser()(TEXTS)
    assert told == {
        "name": "hash",
        "fingerprint": "fingerprint-hash",
        "dimensions": 32,
        "backend": "words",
        "tuned": None,
        "choice": None,
    }
