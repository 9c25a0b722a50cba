import sys

import pytest

from indexer.batches import CARD, CPU, FEW, Limits, padded_length, padded_texts, parts, power_of_two


def limits(texts: int, tokens: int) -> Limits:
    return Limits(texts, tokens, 1, 1)


def test_lengths_are_filled_up_to_few_and_by_a_third_at_most() -> None:
    padded = [padded_length(length) for length in range(1, 513)]
    assert sorted(set(padded)) == [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert all(length <= filled for length, filled in enumerate(padded, 1))
    assert all(filled - length < filled / 3 for length, filled in enumerate(padded, 1) if length > 16)
    assert padded_length(0) == 8


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (300, 512)])
def test_powers_of_two(count: int, size: int) -> None:
    assert power_of_two(count) == size


def test_few_texts_are_filled_up_to_a_power_of_two() -> None:
    assert {padded_texts(texts) for texts in range(1, FEW + 1)} == {1, 2, 4, 8, 16, 32, 64, 128, 256}
    assert all(padded_texts(texts) >= texts for texts in range(1, FEW + 1))
    assert padded_texts(FEW + 1) == FEW + 1


def test_the_cpu_takes_so_many_texts_however_long() -> None:
    assert list(parts([500] * 70, CPU)) == [slice(0, 64), slice(64, 70)]


def test_a_card_takes_so_many_tokens() -> None:
    # Of 16 tokens and of 48 (40 filled up) as many as there may be.
    assert list(parts([16] * 5_000, CARD)) == [slice(0, 4_096), slice(4_096, 5_000)]
    assert next(parts([40] * 5_000, CARD)) == slice(0, 65_536 // 48)


@pytest.mark.parametrize("tokens", [1, 8, 100, 1_000, sys.maxsize])
@pytest.mark.parametrize("texts", [1, 3, 64])
def test_every_row_is_in_one_batch_within_the_limits(texts: int, tokens: int) -> None:
    lengths = sorted([1, 5, 8, 9, 9, 17, 17, 17, 33, 100, 256] * 7)
    found = list(parts(lengths, limits(texts, tokens)))
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in found:
        rows = lengths[part]
        assert 1 <= len(rows) <= texts
        assert len(rows) == 1 or len(rows) * padded_length(rows[-1]) <= tokens


def test_no_rows_no_batches() -> None:
    assert list(parts([], CARD)) == []
