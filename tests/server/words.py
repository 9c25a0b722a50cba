"""An encoder with a tokeniser and a forward of its own, and without a model, which each process can make anew."""

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from indexer.arrays import Floats
from indexer.encoder import Encoder
from indexer.tokenise import Tokeniser

DIMENSIONS = 32
_TABLE = np.random.default_rng(0).normal(size=(256, DIMENSIONS)).astype(np.float32)


def word_tokeniser() -> Tokeniser:
    """One token a byte."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    return Tokeniser(made, most_tokens=64, pad=0, inputs=["input_ids", "attention_mask"])


def sum_of_words(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
    """A text is the sum of one random vector for each of its tokens, scaled to length 1."""
    sums = (_TABLE[input_ids] * attention_mask[..., None]).sum(1)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), np.float32)


def word_encoder() -> Encoder:
    """It has the name and fingerprint of the harness's encoder, so that it may stand in for it."""
    return Encoder("hash", "fingerprint-hash", word_tokeniser(), sum_of_words, DIMENSIONS, "words")
