"""One normalisation for titles and queries, and the word tokens of both, English and Chinese."""

import re
import unicodedata
import zlib

import numpy as np

from indexer.arrays import Ints

# A run of Latin letters and digits, with the inner marks of "3.5", "3/4" and "gt-1030", or a run of Chinese characters.
_TOKEN = re.compile(r"[^\W_\u3400-\u9fff]+(?:[./-][^\W_\u3400-\u9fff]+)*|[\u3400-\u9fff]+")


def normalise(text: str) -> str:
    """NFKC, control characters out, white space collapsed. Case is left to the model's own tokeniser."""
    text = unicodedata.normalize("NFKC", text)
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())


def tokens(text: str) -> list[str]:
    """Case-folded words of a normalised text, in order; a Chinese run gives its overlapping pairs of characters.

    Pairs need no dictionary and are the usual index unit of Chinese search (Nie et al., SIGIR 2000).
    """
    words: list[str] = []
    for word in _TOKEN.findall(text.casefold()):
        if "\u3400" <= word[0] <= "\u9fff" and len(word) > 1:
            words.extend(word[i : i + 2] for i in range(len(word) - 1))
        else:
            words.append(_singular(word))
    return words


def _singular(word: str) -> str:
    """The S-stemmer (Harman 1991): enough to join "boot" and "boots"."""
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word


def token_hashes(text: str) -> Ints:
    """CRC-32 of every token of `text`, in order, as int64 [number of tokens]."""
    return np.fromiter((zlib.crc32(t.encode()) for t in tokens(normalise(text))), np.int64)
