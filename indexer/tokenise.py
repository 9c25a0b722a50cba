"""The model's own tokeniser, called directly: the wrappers around it cost four times the work itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

# So many queries are tokenised on the calling thread: the library's pool would wait for a core that ranks.
_FEW = 16
_TOKENIZER, _SETTINGS = "tokenizer.json", "tokeniser.json"


class Tokeniser:
    """Texts to token ids, and token ids to padded batches. Its settings never change, so threads may share it."""

    def __init__(self, tokenizer: Tokenizer, most_tokens: int, pad: int, inputs: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(most_tokens)
        self._most_tokens = most_tokens
        self._pad = pad
        self.inputs = list(inputs)

    @classmethod
    def of(cls, tokenizer: Any, most_tokens: int) -> "Tokeniser":
        """That of a model's tokenizer (`transformers.PreTrainedTokenizerFast`)."""
        inputs = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in tokenizer.model_input_names]
        return cls(tokenizer.backend_tokenizer, most_tokens, int(tokenizer.pad_token_id or 0), inputs)

    @classmethod
    def load(cls, folder: Path) -> "Tokeniser":
        """Open what `save` wrote."""
        settings = json.loads((folder / _SETTINGS).read_text())
        return cls(Tokenizer.from_file(str(folder / _TOKENIZER)), **settings)

    def save(self, folder: Path) -> None:
        """Write the tokenizer and its settings."""
        self._tokenizer.save(str(folder / _TOKENIZER))
        settings = {"most_tokens": self._most_tokens, "pad": self._pad, "inputs": self.inputs}
        (folder / _SETTINGS).write_text(json.dumps(settings))

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of every text, cut to the model's length."""
        if len(texts) <= _FEW:
            return [self._tokenizer.encode(text).ids for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Input ids and attention mask, int64 [rows, longest row]."""
        width = max(len(row) for row in rows)
        input_ids = np.full((len(rows), width), self._pad, np.int64)
        attention_mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            input_ids[i, : len(row)] = row
            attention_mask[i, : len(row)] = 1
        return input_ids, attention_mask

    def features(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays the model takes, by name. Titles are single sequences, so every token type is 0."""
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": np.zeros_like(input_ids)}
        return {name: arrays[name] for name in self.inputs}
