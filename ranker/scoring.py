"""What is scored."""

from typing import NamedTuple

from indexer.arrays import Floats, Ints
from ranker.features import Context


class Scorable(NamedTuple):
    """One request's candidates and their features."""

    context: Context
    rows: Ints
    features: Floats
