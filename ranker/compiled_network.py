"""The DNN as serving runs it, in NumPy: `Network.forward` with all that one list has in common done once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

import numpy as np

from indexer.amended import Vectors
from indexer.arrays import Doubles, Floats
from ranker.features import PLACE, Context
from ranker.recent import recent
from ranker.scoring import Scorable
from ranker.weights import Weights, weights_of

if TYPE_CHECKING:
    from ranker.network import Network

_State: TypeAlias = Mapping[str, Doubles]


class _Standard(NamedTuple):
    """Features to standardised ones; the bounds are rows, since NumPy's minimum and maximum are slow with a number."""

    mean: Floats
    scale: Floats
    least: Floats
    most: Floats


class _Attention(NamedTuple):
    """One product with an engagement's vector t gives what the candidates c need of it: [key | offset | value].

    The logit ask(c) . key(t) / sqrt(d) is then c . key + offset.
    """

    age: Floats  # [ages, d]
    weight: Floats  # [d, d + 1 + d]
    bias: Floats


class _Dense(NamedTuple):
    """Both cross layers and the perceptron for the network's input x, in parts.

    They are [query * vectors | features | vectors | interest | interest * vectors | query], each d wide but the second.
    With x1 = x (U1 V1 x + b1 + 1), the first cross layer, and w the weights of the logit, the second one ends in
        w . (x (U2 V2 x1 + b2) + x1) = (U2^T w x) . (V2 x1) + w b2 . x + w . x1
    so it is never made at full width, and all that is linear in x is one product, `read`.
    """

    read: Floats  # [W, r + 1 + r + 1 + hidden], to [V1 x | 1 | U2^T w x | w b2 . x | first layer of the perceptron]
    bias: Floats
    spread: Floats  # [r + 1, W], of [V1 x | 1] to x1 / x
    gather: Floats  # [W, 1 + r], of x1 to [w . x1 | V2 x1]
    hidden: Floats
    hidden_bias: Floats
    last: Floats
    offset: Floats


class _Place(NamedTuple):
    """The term of the place that a row was shown at."""

    column: int
    weight: Floats
    bias: Floats
    last: Floats
    offset: Floats


class CompiledNetwork:
    """A trained network's logits, to about 1e-6 those of `Network.forward` in eval mode (see decision 16).

    Nothing is written after it is made: any number of threads may score at once.
    """

    # What it runs on, for people.
    kind = "NumPy"

    def __init__(self, weights: Weights, place: int | None = PLACE) -> None:
        """`place` is as in `Network`."""
        state = {name: np.asarray(array, np.float64) for name, array in weights.items()}
        self._features, self._space = len(state["mean"]), state["age.weight"].shape[1]
        self._standard = _standard(state)
        self._attention = _attention(state)
        self._dense = _dense(state, place)
        self._place = None if place is None else _place(state, place)

    @classmethod
    def of(cls, network: "Network") -> Self:
        """The trained module compiled."""
        return cls(weights_of(network), network.place)

    def logits(self, lists: Sequence[Scorable], space: Vectors) -> Doubles:
        """Logits float64 of all candidates, list after list; `space` [products, d] as in `network_input`.

        One list after the other: side by side they cost as much, and could change each other's last bits.
        """
        return np.concatenate([self._list(item, space) for item in lists])

    def _list(self, item: Scorable, space: Vectors) -> Doubles:
        query = item.context.query_in_space
        features = self._standardised(item.features)
        x = _input(features, space[item.rows], query, self._told(item.context, space))
        logits = self._logits(x, query)
        if self._place is not None:
            column, weight, bias, last, offset = self._place
            logits += _relu(features[:, column, None] * weight + bias) @ last + offset
        return logits.astype(np.float64)

    def _standardised(self, features: Floats) -> Floats:
        mean, scale, least, most = self._standard
        out = features - mean
        out *= scale
        np.minimum(out, most, out=out)
        np.maximum(out, least, out=out)
        np.copyto(out, 0.0, where=np.isnan(out))
        return out

    def _told(self, context: Context, space: Vectors) -> Floats | None:
        """[key | offset | value] of each engagement that is attended over, [L, d + 1 + d]; None without a history."""
        if not context.history.rows:
            return None
        rows, ages, _ = (part[0, : len(context.history.rows)] for part in recent(context.history, context.now))
        told: Floats = (space[rows] + self._attention.age[ages]) @ self._attention.weight
        told += self._attention.bias
        return told

    def _logits(self, x: Floats, query: Floats | None) -> Floats:
        dense, rank = self._dense, len(self._dense.spread) - 1
        start = self._space if query is None else 0
        parts = slice(start, start + x.shape[1])
        read, bias, turned = self._of_query(query, parts.stop)
        linear = x[:, self._space - start :] @ read
        linear += bias
        down = linear[:, : rank + 1]
        crossed = down @ dense.spread[:, parts]
        crossed *= x
        second = crossed @ dense.gather[parts]
        if turned is not None:
            second += down @ turned
        deep = _relu(linear[:, 2 * rank + 2 :]) @ dense.hidden
        deep += dense.hidden_bias
        logits: Floats = _relu(deep) @ dense.last
        logits += np.einsum("ij,ij->i", linear[:, rank : 2 * rank + 1], second)
        logits += linear[:, 2 * rank + 1]
        logits += dense.offset
        return logits

    def _of_query(self, query: Floats | None, stop: int) -> tuple[Floats, Floats, Floats | None]:
        """`read` without its rows of query * vectors, `bias`, and what the query's own part adds of [V1 x | 1].

        The query is the same for all rows of a list, and so linear in their vectors is its product with these.
        """
        dense, d = self._dense, self._space
        read = dense.read[d:stop]
        if query is None:
            return read, dense.bias, None
        read = read.copy()
        read[self._features : self._features + d] += query[:, None] * dense.read[:d]
        turned = (query * dense.spread[:, -d:]) @ dense.gather[-d:]
        return read, dense.bias + query @ dense.read[-d:], np.asarray(turned, np.float32)


def _input(features: Floats, vectors: Floats, query: Floats | None, told: Floats | None) -> Floats:
    """[query * vectors | features | vectors | interest | interest * vectors], without what there is no cause for."""
    parts = [features, vectors]
    if query is not None:
        parts.insert(0, query * vectors)
    if told is not None:
        interest = _interest(vectors, told)
        parts += [interest, interest * vectors]
    return np.concatenate(parts, axis=1)


def _interest(vectors: Floats, told: Floats) -> Floats:
    """What of the history bears on each candidate, [candidates, d]."""
    d = vectors.shape[1]
    weights = told[:, :d] @ vectors.T
    weights += told[:, d, None]
    weights -= weights.max(0)
    np.exp(weights, out=weights)
    weights /= weights.sum(0)
    return np.asarray(weights.T @ told[:, d + 1 :], np.float32)


def _relu(x: Floats) -> Floats:
    # Against a row of zeros: with a number NumPy takes three times as long.
    return np.maximum(x, np.zeros(x.shape[1], np.float32))


def _standard(state: _State) -> _Standard:
    six = np.full(len(state["mean"]), 6.0)
    return _Standard(*_floats(state["mean"], 1.0 / state["deviation"], -six, six))


def _attention(state: _State) -> _Attention:
    scale = state["age.weight"].shape[1] ** -0.5
    weight, bias = state["key.weight"] * scale, state["key.bias"] * scale
    ask, asked = state["ask.weight"], state["ask.bias"]
    return _Attention(
        *_floats(
            state["age.weight"],
            np.column_stack([weight.T @ ask, weight.T @ asked, state["value.weight"].T]),
            np.concatenate([bias @ ask, [bias @ asked], state["value.bias"]]),
        )
    )


def _dense(state: _State, place: int | None) -> _Dense:
    down, up, bias = (
        [state[f"cross.{i}.{name}"] for i in range(2)] for name in ("down.weight", "up.weight", "up.bias")
    )
    rank, width = down[0].shape
    last, deep = state["logit.weight"][0, :width], state["deep.0.weight"]
    read = np.column_stack([down[0].T, np.zeros(width), last[:, None] * up[1], last * bias[1], deep.T])
    gather = np.column_stack([last, down[1].T])
    if place is not None:
        # Only its own term may see the place.
        read[place] = gather[place] = 0.0
    # The network's last part, query * vectors, comes first, so that a list without a query or a history needs a slice.
    order = np.roll(np.arange(width), state["age.weight"].shape[1])
    constant = np.concatenate([np.zeros(rank), [1.0], np.zeros(rank + 1), state["deep.0.bias"]])
    return _Dense(
        *_floats(read[order], constant, np.column_stack([up[0], bias[0] + 1.0]).T[:, order], gather[order]),
        *_floats(state["deep.3.weight"].T, state["deep.3.bias"], state["logit.weight"][0, width:], state["logit.bias"]),
    )


def _place(state: _State, column: int) -> _Place:
    first, last = state["seen.0.weight"][:, 0], state["seen.2.weight"][0]
    return _Place(column, *_floats(first, state["seen.0.bias"], last, state["seen.2.bias"]))


def _floats(*arrays: np.ndarray) -> list[Floats]:
    return [np.ascontiguousarray(array, np.float32) for array in arrays]
