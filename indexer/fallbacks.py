"""How often the CPU stood in for a card: counted by stage, for whoever watches a server."""

import threading
from collections import Counter

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def count(stage: str, times: int = 1) -> None:
    """Count what was to be done on a card and is done by the CPU: an index or a model that is opened, or a request."""
    with _lock:
        _counts[stage] += times


def counted() -> dict[str, int]:
    """By stage (search, encoder, DNN), since this process began; a stage that never fell back is not in it."""
    with _lock:
        return {stage: times for stage, times in _counts.items() if times}
