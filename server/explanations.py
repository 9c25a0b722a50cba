"""Explanations as messages: what changed the score of each hit most."""

import numpy as np
from vitrine.v1 import hit_pb2

from ranker.explain import explain
from server.pipeline import Answer

# Contributions that are told of each hit; the others are summed.
_MOST = 10
_Explanation = hit_pb2.Explanation


def explanations(answer: Answer) -> list[hit_pb2.Explanation]:
    """One for each hit; none where the request did not ask why, or the hits were not ranked."""
    members, evidence = answer.state.model.members, answer.evidence
    if members is None or evidence is None or not len(evidence.matrix):
        return []
    told = explain(members, evidence)
    subject = _Explanation.FUSED if told.fused else _Explanation.TREES
    made = []
    for values, parts in zip(told.values, told.contributions, strict=True):
        order = np.argsort(-np.abs(parts), kind="stable")
        most = [i for i in order[:_MOST].tolist() if parts[i]]
        made.append(
            _Explanation(
                subject=subject,
                base=told.base,
                contributions=[_contribution(told.names[i], values[i], parts[i]) for i in most],
                others=parts.sum() - parts[most].sum(),
                total=told.base + parts.sum(),
            )
        )
    return made


def _contribution(name: str, value: float, part: float) -> hit_pb2.Explanation.Contribution:
    return _Explanation.Contribution(name=name, value=None if np.isnan(value) else value, contribution=part)
