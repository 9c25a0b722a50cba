"""The user tower's training: its histories end before their targets, and a cyclic log is learnt."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr

from ranker import train_tower
from ranker.compiled_tower import CompiledTower
from ranker.config import RankerConfig
from ranker.history import CLICK, PURCHASE, VIEW, History
from ranker.recent import RECENT
from ranker.train_tower import FEWEST, fit_tower
from ranker.user_tower import UserTower

CPU = torch.device("cpu")
PRODUCTS = 100
DAY = 86_400.0


def frame(*rows: tuple[str | None, int, float], kind: int = PURCHASE) -> pl.DataFrame:
    """Engagements of (user, row, time)."""
    schema = {"user_id": pl.String, "row": pl.Int64, "time": pl.Float64}
    return (
        pl.DataFrame(rows, schema, orient="row")
        .with_columns(kind=pl.lit(kind, pl.Int64))
        .sort("time", maintain_order=True)
    )


def told(log: pl.DataFrame) -> list[tuple[list[int], list[int]]]:
    """(history, what followed) of every example."""
    made = train_tower._histories(log)
    spans = zip(made.first, made.end, made.stop, strict=True)
    return [(made.rows[first:end].tolist(), made.rows[end:stop].tolist()) for first, end, stop in spans]


def cyclic_log(users: int, length: int, seed: int) -> pl.DataFrame:
    """Every user walks round the products from a place of their own: after product i comes i + 1."""
    starts = np.random.default_rng(seed).integers(0, PRODUCTS, users)
    walks = [(f"u{u:04d}", int(s + i) % PRODUCTS, DAY * i + u) for u, s in enumerate(starts) for i in range(length)]
    return frame(*walks, kind=VIEW)


@pytest.fixture(scope="module")
def titles() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(PRODUCTS, 24)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def hit_rate(tower: UserTower, space: np.ndarray) -> float:
    """How often the next product of a cyclic walk is among the ten nearest."""
    found = []
    for start in range(PRODUCTS):
        walk = tuple((start + i) % PRODUCTS for i in range(6))
        vector = CompiledTower.of(tower).user_vector(
            space, History(walk, (VIEW,) * 6, tuple(DAY * i for i in range(6))), 6 * DAY
        )
        found.append((start + 6) % PRODUCTS in np.argsort(-(space @ vector))[:10])
    return float(np.mean(found))


def test_a_basket_is_predicted_from_the_baskets_before() -> None:
    log = frame(("u", 1, 10), ("u", 2, 10), ("v", 9, 15), ("u", 3, 20), ("v", 8, 25), ("u", 4, 30), ("u", 5, 30))
    assert told(log) == [([1, 2], [3]), ([1, 2, 3], [4, 5]), ([9], [8])]


def test_a_first_basket_has_no_history() -> None:
    assert told(frame(("u", 1, 10), ("u", 2, 10), ("v", 3, 10))) == []
    assert told(frame()) == []


def test_nobody_has_no_history() -> None:
    assert told(frame((None, 1, 10), (None, 2, 20), ("u", 3, 5), ("u", 4, 6))) == [([3], [4])]


def test_histories_keep_the_newest() -> None:
    made = told(frame(*(("u", i, float(i)) for i in range(RECENT + 10))))
    assert made[-1] == (list(range(9, RECENT + 9)), [RECENT + 9])
    assert made[3] == ([0, 1, 2, 3], [4])


@pytest.mark.parametrize("seed", range(5))
def test_histories_are_strictly_earlier_than_what_followed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 400
    rows = zip(rng.integers(0, 12, count), rng.integers(0, 50, count), rng.integers(0, 60, count), strict=True)
    log = frame(*((f"u{user}", int(row), float(time)) for user, row, time in rows))
    made = train_tower._histories(log)
    users = log.sort(["user_id", "time"], maintain_order=True)["user_id"].to_numpy()
    assert len(made.end) > 100
    for first, end, stop in zip(made.first, made.end, made.stop, strict=True):
        assert first < end < stop
        assert set(users[first:stop]) == {users[end]}
        assert made.times[first:end].max() < made.times[end]
        assert (made.times[end:stop] == made.times[end]).all()
        assert stop == len(users) or users[stop] != users[end] or made.times[stop] > made.times[end]


def test_frequencies_are_the_logs() -> None:
    made = train_tower._histories(frame(("u", 0, 1), ("u", 0, 2), ("u", 0, 3), ("v", 1, 1)))
    # A product nobody touched counts as one, so that its logarithm exists: 3 + 1 + 1.
    assert train_tower._log_frequency(made, 3).tolist() == pytest.approx(np.log([3 / 5, 1 / 5, 1 / 5]).tolist())


def test_a_short_log_teaches_nothing(titles: np.ndarray) -> None:
    log = frame(*((f"u{i}", j, float(j)) for i in range(FEWEST - 1) for j in range(2)))
    assert fit_tower(log, titles, RankerConfig(space=8), CPU, lambda _: None) is None


def test_the_next_product_of_a_cycle_is_recalled(titles: np.ndarray) -> None:
    said: list[str] = []
    config = RankerConfig(space=16, tower_epochs=60)
    fitted = fit_tower(cyclic_log(150, 12, 0), titles, config, CPU, said.append)
    assert fitted is not None
    tower, space = fitted
    assert space.shape == (PRODUCTS, 16)
    assert space.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(space, axis=1), 1.0, atol=1e-5)
    assert len(said) == 60
    assert not tower.training
    # Chance is 10 of 100.
    assert hit_rate(tower, space) > 0.5


def agreement_with_popularity(titles: np.ndarray) -> float:
    """Rank correlation of user scores with the chances (Zipf's) by which a log drew products, whatever came before."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, PRODUCTS + 1)
    drawn = rng.choice(PRODUCTS, (150, 8), p=chances / chances.sum())
    log = frame(*((f"u{u:03d}", int(drawn[u, i]), DAY * i) for u in range(150) for i in range(8)), kind=CLICK)
    fitted = fit_tower(log, titles, RankerConfig(space=16, tower_epochs=20), CPU, lambda _: None)
    assert fitted is not None
    tower, space = fitted
    vectors = [
        CompiledTower.of(tower).user_vector(space, History((row,), (CLICK,), (0.0,)), DAY)
        for row in range(0, PRODUCTS, 5)
    ]
    return float(np.mean([spearmanr(space @ vector, chances).statistic for vector in vectors]))


def test_log_q_gives_the_popular_their_due(titles: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """In-batch negatives are drawn by popularity: without the correction they cancel what the log says of it."""
    assert agreement_with_popularity(titles) > 0.3
    monkeypatch.setattr(train_tower, "_log_frequency", lambda _, products: torch.zeros(products))
    assert abs(agreement_with_popularity(titles)) < 0.15


def test_the_same_seed_gives_the_same_tower(titles: np.ndarray) -> None:
    log, config = cyclic_log(60, 4, 0), RankerConfig(space=8, tower_epochs=2)
    one, other = (fit_tower(log, titles, config, CPU, lambda _: None) for _ in range(2))
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one[1], other[1])


def test_mixed_precision_learns_as_well(titles: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card, whose products of matrices are in bfloat16: the CPU can do that too, only slowly."""
    log, config = cyclic_log(150, 12, 0), RankerConfig(space=16, tower_epochs=30)
    exact = fit_tower(log, titles, config, CPU, lambda _: None)
    asked: list[torch.device] = []

    def mixed(device: torch.device) -> torch.autocast:
        asked.append(device)
        return torch.autocast("cpu", torch.bfloat16)

    monkeypatch.setattr(train_tower, "mixed", mixed)
    rounded = fit_tower(log, titles, config, CPU, lambda _: None)
    assert set(asked) == {CPU}
    assert exact is not None
    assert rounded is not None
    assert rounded[1].dtype == np.float32
    assert not np.allclose(exact[1], rounded[1], atol=1e-6)
    # What is published is not rounded: vectors of bfloat16's digits would be off by 0.002.
    np.testing.assert_allclose(np.linalg.norm(rounded[1], axis=1), 1.0, atol=1e-5)
    assert hit_rate(*rounded) == pytest.approx(hit_rate(*exact), abs=0.1)


def test_histories_of_like_length_together_are_as_each_alone(
    titles: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is padded with what changes no vector: users with histories of 1 to 40, in groups and one by one."""
    monkeypatch.setattr(train_tower, "_RESIDUAL_DROPOUT", 0.0)
    walks = [(f"u{u:03d}", (7 * u + i) % PRODUCTS, DAY * i) for u in range(90) for i in range(1 + u % 40)]
    made = train_tower._histories(frame(*walks, ("u000", 1, 99 * DAY), kind=VIEW))
    torch.manual_seed(0)
    tower = UserTower(titles.shape[1], 16).eval()
    residual = torch.nn.Embedding(PRODUCTS, 16, sparse=True)
    batch = np.argsort(made.end - made.first, kind="stable")[-70:]
    with torch.inference_mode():
        together = train_tower._users(tower, residual, torch.from_numpy(titles), made, batch)
        alone = [
            train_tower._users(tower, residual, torch.from_numpy(titles), made, one)
            for one in np.split(batch, len(batch))
        ]
    assert len(set((made.end - made.first)[batch])) > 5
    np.testing.assert_allclose(together.numpy(), torch.cat(alone).numpy(), atol=1e-5)


def test_rates_rise_and_then_fall_to_nothing() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=2.0)
    (schedule,) = train_tower._schedules([optimiser], 100)
    rates = []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.4)
    assert int(np.argmax(rates)) == 4
    assert (np.diff(rates[4:]) < 0).all()
    assert 0 < rates[-1] < 0.03
    # A log of one batch has a rate too.
    assert train_tower._schedules([torch.optim.SGD([parameter], lr=2.0)], 1)[0].get_last_lr() == [2.0]


@pytest.mark.gpu
def test_a_card_learns_as_well(titles: np.ndarray) -> None:
    rates = []
    for device in (CPU, torch.device("cuda:0")):
        fitted = fit_tower(cyclic_log(150, 12, 0), titles, RankerConfig(space=16, tower_epochs=60), device, str)
        assert fitted is not None
        assert next(fitted[0].parameters()).device == CPU
        rates.append(hit_rate(*fitted))
    assert rates[1] == pytest.approx(rates[0], abs=0.1)
