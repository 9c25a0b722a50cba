"""One normalisation for titles and queries, and the word tokens of both, English and Chinese."""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from indexer.arrays import Ints
from indexer.units import AMBIGUOUS, NAMES, POWERS, UNITS

# Chinese characters, as a range within the brackets of a pattern.
HAN = "\u3400-\u9fff"
_LETTER = rf"[^\W_{HAN}]"
# NFKC writes "1½" as "11⁄2".
_MIXED = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
# Unicode's category Cc.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")
# What is written onto a number, and how it is written out.
_WRITTEN_OUT = (
    (re.compile(r"['’]s\b"), ""),
    (re.compile(r"(?<=[\d.'’′\"”])\s*[x×*]\s*(?=[\d.])"), " "),
    (re.compile(r"(?<=\d)\s?(?:''|’’|′′|[\"”])"), " inch "),
    (re.compile(r"(?<=\d)\s?['’′](?![a-z])"), " foot "),
    (
        re.compile(
            rf"(?<!{_LETTER})(\d++(?:\.\d++)?|\.\d++)({'|'.join(sorted(UNITS, key=len, reverse=True))})(?!{_LETTER})"
        ),
        r"\1 \2",
    ),
)
# A number ("3/4", ".5", "1,000", "18"), a run of Latin letters and digits with its inner hyphens and points ("gt-1030",
# "usb2.0"), or a run of Chinese characters.
_TOKEN = re.compile(
    rf"(?P<number>(?:\d++[/⁄]\d++|\d*+\.\d++|\d{{1,3}}(?:,\d{{3}})++|\d++)(?!{_LETTER}))"
    rf"|{_LETTER}+(?:-{_LETTER}+|\.\d+)*|[{HAN}]+"
)


# A query is normalised at several places of its way; what comes between its requests in a batch is kept too.
@lru_cache(256)
def normalise(text: str) -> str:
    """NFKC, control characters out, white space collapsed. Case is left to the model's own tokeniser."""
    text = unicodedata.normalize("NFKC", _MIXED.sub(" ", text))
    return " ".join(text.translate(_CONTROLS).split())


def query_key(query: str) -> str:
    """What two writings of one query have in common: normalised and case-folded."""
    return normalise(query).casefold()


def tokens(text: str) -> list[str]:
    """Case-folded words of a normalised text, in order.

    A number stands apart from its unit, and a unit has one name: "3/4in", '3/4"' and "3/4 inch" are the same, as are
    "2x4" and "2 x 4". Hyphenated words give their parts and the whole without hyphens, so that "t light" and "tlight"
    find "t-light". A Chinese run gives its characters and their overlapping pairs, the usual index unit of Chinese
    search (Nie et al., SIGIR 2000).
    """
    text = text.casefold()
    for pattern, plain in _WRITTEN_OUT:
        text = pattern.sub(plain, text)
    words: list[str] = []
    # Whether a unit may follow: behind a number, or behind "square" and "cubic" after one.
    measuring = False
    for found in _TOKEN.finditer(text):
        word = found.group()
        if found["number"]:
            words.append(_number(word))
            measuring = True
        elif word in UNITS and (measuring or word not in AMBIGUOUS):
            words.append(UNITS[word])
            measuring = measuring and UNITS[word] in POWERS
        elif word == "x" and words and words[-1] in NAMES:
            continue  # "2in x 4in", as "2x4" is split.
        else:
            words.extend(_characters(word) if "\u3400" <= word[0] <= "\u9fff" else _parts(word))
            measuring = False
    return words


def _number(word: str) -> str:
    word = word.replace("⁄", "/").replace(",", "")
    return f"0{word}" if word.startswith(".") else word


def _characters(run: str) -> list[str]:
    return [*run, *(run[i : i + 2] for i in range(len(run) - 1))]


def _parts(word: str) -> list[str]:
    parts = word.split("-")
    return [singular(part) for part in (parts if len(parts) == 1 else [*parts, "".join(parts)])]


def singular(word: str) -> str:
    """The S-stemmer (Harman 1991), and "es" behind a hiss: enough to join "boot" and "boots", "box" and "boxes"."""
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zzes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        return word[:-1]
    return word


def hashes_of(words: Sequence[str]) -> Ints:
    """CRC-32 of every word, in order, as int64 [number of words]."""
    return np.fromiter((zlib.crc32(word.encode()) for word in words), np.int64, len(words))


def token_hashes(text: str) -> Ints:
    """CRC-32 of every token of `text`, in order, as int64 [number of tokens]."""
    return hashes_of(tokens(normalise(text)))
