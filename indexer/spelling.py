"""What a shopper meant by a word that no product has: the nearest word that some product has, or two of them."""

import copy
import re
from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence, Set
from itertools import pairwise

import numpy as np
from rapidfuzz.distance import OSA

from indexer.text import singular

# Shorter words have too many neighbours, longer ones are no words.
_SHORTEST, _LONGEST = 4, 24
# From this many letters on, two letters may be wrong.
_TWO_WRONG = 6
_SHORTEST_PART = 3
# A run of letters that no digit, hyphen or point ties to another: a part of "dw716" or "t-light" is no word.
_WORD = re.compile(r"(?<![\w.-])[^\W\d_]+(?![\w-]|\.\w)")


class Speller:
    """Mends the tokens of a query by those of a catalogue; `frequencies`: token -> how many rows it stands in."""

    def __init__(self, frequencies: MutableMapping[str, int]) -> None:
        self._frequencies = frequencies
        self._gone: Set[str] = frozenset()
        self._words = [word for word in frequencies if word.isalpha() and _SHORTEST_PART <= len(word) <= _LONGEST]
        self._lengths = np.array([len(word) for word in self._words], np.int8)
        self._letters = np.array([_letters(word) for word in self._words], np.uint32)

    def knowing(self, frequencies: Mapping[str, int], gone: Set[str] = frozenset()) -> "Speller":
        """A speller that knows further tokens too, and none that is `gone`; of one that is known nothing changes."""
        further = Speller({word: count for word, count in frequencies.items() if word not in self._frequencies})
        made = copy.copy(self)
        made._frequencies, made._gone = ChainMap(further._frequencies, self._frequencies), gone
        made._words = [*self._words, *further._words]
        made._lengths = np.concatenate([self._lengths, further._lengths])
        made._letters = np.concatenate([self._letters, further._letters])
        return made

    def corrected(self, words: Sequence[str]) -> list[str]:
        """`words` without repeats, the unknown ones mended where they can be, then known words made of two of them."""
        mended = [meant for word in words for meant in self._meant(word)]
        return list(dict.fromkeys([*mended, *self._joined(words)]))

    def mended(self, text: str) -> str:
        """`text` as it was meant: its unknown words written as the known ones they are taken for, the rest as typed."""
        return _WORD.sub(lambda found: self._written(found.group()), text)

    def _written(self, word: str) -> str:
        typed = singular(word.casefold())
        meant = self._meant(typed)
        return word if tuple(meant) == (typed,) else " ".join(meant)

    def _meant(self, word: str) -> Sequence[str]:
        if self._knows(word) or not word.isalpha() or not _SHORTEST <= len(word) <= _LONGEST:
            return (word,)
        distance, nearest = self._nearest(word)
        if distance == 1:
            return (nearest,)
        return self._split(word) or (nearest or word,)

    def _nearest(self, word: str) -> tuple[int, str]:
        """How many letters are wrong or swapped, and the nearest known word, the most frequent of several; or 0, "".

        A wrong letter changes at most two bits of the set of letters, which leaves few words to compare.
        """
        most = 2 if len(word) >= _TWO_WRONG else 1
        unlike = np.bitwise_count(self._letters ^ np.uint32(_letters(word)))
        places = np.flatnonzero((unlike <= 2 * most) & (np.abs(self._lengths - len(word)) <= most))
        near = [word for word in map(self._words.__getitem__, places) if word not in self._gone]
        found = ((OSA.distance(word, other, score_cutoff=most), other) for other in near)
        within = [(distance, -self._frequencies[other], other) for distance, other in found if distance <= most]
        distance, _, nearest = min(within, default=(0, 0, ""))
        return distance, nearest

    def _split(self, word: str) -> Sequence[str]:
        """The two known words that `word` is written of; of several the pair whose rarer word is the most frequent."""
        cuts = range(_SHORTEST_PART, len(word) - _SHORTEST_PART + 1)
        pairs = [(singular(word[:cut]), singular(word[cut:])) for cut in cuts]
        best = max(pairs, key=self._rarer, default=("", ""))
        return best if self._rarer(best) else ()

    def _rarer(self, words: tuple[str, str]) -> int:
        return min(self._frequencies[word] if self._knows(word) else 0 for word in words)

    def _joined(self, words: Sequence[str]) -> list[str]:
        whole = [singular(first + second) for first, second in pairwise(words)]
        # Two sizes that stand side by side are no model number.
        return [w for w in whole if len(w) >= _SHORTEST and not w.isdigit() and self._knows(w)]

    def _knows(self, word: str) -> bool:
        return word in self._frequencies and word not in self._gone


def _letters(word: str) -> int:
    """The set of a word's letters as 32 bits."""
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) & 31)
    return bits
