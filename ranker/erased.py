"""Who was erased, as a journal keeps it: no names, but what tells a name when it is held against it."""

import hashlib
import secrets
from collections.abc import Mapping

import polars as pl


class Erased:
    """Who was erased, and when: the users themselves are known by a digest only."""

    def __init__(self, key: bytes, moments: Mapping[bytes, int]) -> None:
        self._key = key
        self._moments = moments

    def __bool__(self) -> bool:
        return bool(self._moments)

    def moment(self, user: str) -> int | None:
        """When a user was last erased, in Unix microseconds; None of one who never was."""
        return self._moments.get(digest(self._key, user))

    def dropped(self, events: pl.DataFrame) -> pl.DataFrame:
        """Canonical events without those of erased users, and of their sessions, up to their erasures."""
        if not self:
            return events
        users = events["user_id"].unique().drop_nulls().to_list()
        moments = {user: moment for user in users if (moment := self.moment(user)) is not None}
        theirs = events.select(
            pl.when(pl.col("user_id").is_null()).then(pl.col("session_id")).alias("session_id"),
            pl.col("user_id").replace_strict(moments, default=None, return_dtype=pl.Int64).alias("until"),
        )
        known = events.select("session_id").with_columns(theirs["until"]).drop_nulls()
        sessions = known.group_by("session_id").agg(pl.col("until").max().alias("session_until"))
        until = theirs.join(sessions, on="session_id", how="left", maintain_order="left").select(
            pl.coalesce("until", "session_until")
        )
        later = events["event_time"].dt.epoch("us") > until.to_series()
        return events.filter(later.fill_null(True))


def new_key() -> bytes:
    """A key for the digests of one journal."""
    return secrets.token_bytes(32)


def digest(key: bytes, user: str) -> bytes:
    """What is kept of a user who was erased."""
    return hashlib.blake2b(user.encode(), digest_size=16, key=key).digest()
