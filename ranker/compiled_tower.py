"""The user tower as it is served, in NumPy: `UserTower.forward` for one user, of whom nothing is padded."""

from typing import TYPE_CHECKING

import numpy as np

from indexer.amended import Vectors
from indexer.arrays import Floats
from ranker.history import History
from ranker.recent import RECENT, recent
from ranker.weights import Weights, weights_of

if TYPE_CHECKING:
    from ranker.user_tower import UserTower

# Heads of the self-attention.
HEADS = 2
# What PyTorch's layer norm adds to a variance.
_EPSILON = 1e-5


class CompiledTower:
    """A trained tower; its vectors are those of `UserTower.forward` to about 1e-6.

    Training makes its contexts with this one too, so that the members are fitted on the very vectors that are served.
    """

    def __init__(self, weights: Weights) -> None:
        """`weights` are the tower's parameters by name, as arrays."""
        self.weights = {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}

    @classmethod
    def of(cls, tower: "UserTower") -> "CompiledTower":
        """The trained module compiled."""
        return cls(weights_of(tower))

    def user_vector(self, space: Vectors, history: History, now: float) -> Floats:
        """The unit vector float32 [d] of one non-empty history; `space` [products, d] are the product vectors."""
        rows, ages, kinds = (part[0, : len(history.rows)] for part in recent(history, now))
        products = np.asarray(space[rows])
        # Steps back from the newest, which stands last.
        back = np.arange(len(rows) - 1, -1, -1).clip(0, RECENT - 1)
        told = (
            self.weights["age.weight"][ages] + self.weights["kind.weight"][kinds] + self.weights["place.weight"][back]
        )
        x = products + self._mixed(products + told)
        weights = _softmax(self._linear("weigh", x)[:, 0])
        vector = self._linear("out", weights @ x)
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)

    def _mixed(self, x: Floats) -> Floats:
        """Self-attention, then the perceptron, each added to its input."""
        length, width = x.shape
        parts = self._linear("mix.parts", self._normed("mix.before", x)).reshape(length, 3, HEADS, width // HEADS)
        query, key, value = parts.transpose(1, 2, 0, 3)
        weights = _softmax(query @ key.transpose(0, 2, 1) * np.float32((width // HEADS) ** -0.5))
        x = x + self._linear("mix.join", (weights @ value).transpose(1, 0, 2).reshape(length, width))
        hidden = np.maximum(self._linear("mix.feed.1", self._normed("mix.feed.0", x)), np.float32(0.0))
        return x + self._linear("mix.feed.3", hidden)

    def _linear(self, name: str, x: Floats) -> Floats:
        made: Floats = x @ self.weights[f"{name}.weight"].T
        made += self.weights[f"{name}.bias"]
        return made

    def _normed(self, name: str, x: Floats) -> Floats:
        x = x - x.mean(1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(1, keepdims=True) + np.float32(_EPSILON))
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def _softmax(x: Floats) -> Floats:
    """Along the last axis."""
    made = np.exp(x - x.max(-1, keepdims=True))
    made /= made.sum(-1, keepdims=True)
    return np.asarray(made, np.float32)
