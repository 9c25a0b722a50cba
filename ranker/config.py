"""What the ranker can be told: the `[ranker]` table of vitrine.toml."""

from itertools import pairwise
from pathlib import Path

from pydantic import Field, field_validator

from indexer.config import Table


class RankerConfig(Table):
    """The log, the training and the recall that feeds both training and serving."""

    events: Path | None = Field(
        None, description="Canonical events (Parquet); the journal of the server is read as well."
    )
    judgments: Path | None = Field(None, description="Canonical judgments (Parquet).")
    positive_grade: float = Field(
        1.0, gt=0, description="Grades from here up count as positive where yes or no is asked."
    )
    positive_rating: float = Field(4.0, description="Ratings from here up are engagement; lower ones are not.")
    ratings: str = Field(
        "implicit",
        pattern="^(explicit|implicit)$",
        description="explicit: what a user rated in a sitting is a list, low ratings its negatives; implicit: high "
        "ratings are wanted from recall, low ones are nothing.",
    )
    time_cuts: tuple[float, float, float, float] = Field(
        (0.3, 0.8, 0.85, 0.9),
        description="Where the slices of the log begin, as shares of its requests in time order: up to the first the "
        "encoder and the user tower are fitted, then the members, then calibration, validation and test.",
    )
    encoder_share: float = Field(
        0.5, gt=0, lt=0.8, description="Share of the judged queries that `vitrine train encoder` is fitted on."
    )
    encoder_epochs: int = Field(2, ge=1, description="Passes of `vitrine train encoder` over its share.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where the networks are trained.")
    candidates: int = Field(200, ge=1, le=1_000, description="Products recalled for one request and ranked.")
    space: int = Field(64, ge=2, multiple_of=2, description="Dimensions of the product space.")
    tower_epochs: int = Field(12, ge=1, description="Passes of the user tower over its slice.")
    network_epochs: int = Field(
        8, ge=1, description="Most passes of the DNN; it stops when a later slice no longer improves."
    )
    trees: int = Field(300, ge=1, description="Most trees; fewer where a later slice no longer improves.")
    tree_patience: int = Field(
        40, ge=0, description="Trees without a gain on the later slice after which no more are grown; 0: all are grown."
    )
    leaves: int = Field(31, ge=2, description="Leaves of a tree.")
    most_requests: int = Field(20_000, ge=100, description="Requests taken from one slice of the log, spread evenly.")
    seed: int = Field(0, ge=0, description="Of all chance in training.")

    @field_validator("time_cuts")
    @classmethod
    def _rising(cls, cuts: tuple[float, ...]) -> tuple[float, ...]:
        if not all(a < b for a, b in pairwise((0.0, *cuts, 1.0))):
            raise ValueError("the four cuts must rise, between 0 and 1")
        return cuts
