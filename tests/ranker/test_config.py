"""The `[ranker]` table."""

import pytest
from pydantic import ValidationError

from ranker.config import RankerConfig


def test_defaults_are_valid() -> None:
    assert RankerConfig.model_validate(RankerConfig().model_dump()) == RankerConfig()


@pytest.mark.parametrize(
    ("key", "value"), [("tree", 3), ("candidates", 0), ("space", 63), ("device", "gpu"), ("positive_grade", 0)]
)
def test_what_cannot_be_used_is_refused(key: str, value: object) -> None:
    """An odd space would not split into the tower's two attention heads."""
    with pytest.raises(ValidationError, match=key):
        RankerConfig.model_validate({key: value})
