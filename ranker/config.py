"""What the ranker can be told: the `[ranker]` table of vitrine.toml."""

from pathlib import Path

from pydantic import Field

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
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where the networks are trained.")
    candidates: int = Field(200, ge=1, le=1_000, description="Products recalled for one request and ranked.")
    space: int = Field(64, ge=2, multiple_of=2, description="Dimensions of the product space.")
    tower_epochs: int = Field(12, ge=1, description="Passes of the user tower over its slice.")
    network_epochs: int = Field(
        8, ge=1, description="Most passes of the DNN; it stops when a later slice no longer improves."
    )
    trees: int = Field(300, ge=1, description="Most trees; fewer where a later slice no longer improves.")
    leaves: int = Field(31, ge=2, description="Leaves of a tree.")
    most_requests: int = Field(20_000, ge=100, description="Requests taken from one slice of the log, spread evenly.")
    seed: int = Field(0, ge=0)
