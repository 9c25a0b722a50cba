"""Fitted trees as LightGBM writes them, laid out for scoring; LightGBM itself is loaded only by whoever asks for it."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.arrays import Doubles, Floats
from ranker.forest import Forest

if TYPE_CHECKING:
    import lightgbm as lgb


class Trees:
    """The trees of one booster, by its text."""

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def of(cls, booster: "lgb.Booster") -> "Trees":
        """What `booster.predict` would use: up to its best iteration."""
        return cls(booster.model_to_string(num_iteration=booster.best_iteration))

    @classmethod
    def load(cls, path: Path) -> "Trees":
        """Open what `save` wrote."""
        return cls(path.read_text(encoding="utf-8"))

    def save(self, path: Path) -> None:
        """Write LightGBM's text."""
        path.write_text(self._text, encoding="utf-8")

    @cached_property
    def booster(self) -> "lgb.Booster":
        """LightGBM's own object. A server never needs it, and starts a second earlier without its import."""
        import lightgbm as lgb

        return lgb.Booster(model_str=self._text)

    @cached_property
    def forest(self) -> Forest:
        """The trees laid out flat. Raises `SnapshotError` where they cannot be scored."""
        return Forest.read(self._text)

    def score(self, features: Floats) -> Doubles:
        """Raw scores float64 [rows]; the booster's own `predict` takes six times as long."""
        return self.forest.score(features)
