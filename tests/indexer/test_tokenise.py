from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from indexer.tokenise import Tokeniser

WORDS = {"[PAD]": 0, "[UNK]": 1, "red": 2, "big": 3, "mug": 4}


def made(most: int = 8, **options: Any) -> Tokeniser:
    words = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokeniser.of(PreTrainedTokenizerFast(tokenizer_object=words, **options), most)


def test_texts_become_rows_of_ids_cut_to_the_models_length() -> None:
    assert made()(["red mug", "big", "what mug"]) == [[2, 4], [3], [1, 4]]
    assert made(most=2)(["red big mug"]) == [[2, 3]]
    assert made()([]) == []


def test_a_batch_is_padded_to_its_longest_row() -> None:
    ids, mask = made(pad_token="[PAD]").pad([[2, 3, 4], [3]])
    assert ids.tolist() == [[2, 3, 4], [3, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == "int64"


def test_the_padding_is_the_models_own() -> None:
    assert made(pad_token="mug").pad([[2, 3], [3]])[0].tolist() == [[2, 3], [3, 4]]


@pytest.mark.parametrize("names", [["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]])
def test_the_model_gets_the_arrays_it_takes(names: list[str]) -> None:
    tokeniser = made(model_input_names=names)
    arrays = tokeniser.features(*tokeniser.pad([[2, 3], [3]]))
    assert sorted(arrays) == sorted(names)
    assert not arrays.get("token_type_ids", arrays["input_ids"] * 0).any()


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    saved = made(most=2, pad_token="mug", model_input_names=["input_ids"])
    saved.save(tmp_path)
    loaded = Tokeniser.load(tmp_path)
    texts = ["red big mug", "big"]
    assert loaded(texts) == saved(texts) == [[2, 3], [3]]
    assert loaded.pad(loaded(texts))[0].tolist() == [[2, 3], [3, 4]]
    assert loaded.inputs == ["input_ids"]
