import pytest

from indexer.room import RESERVE, Resident, needed, verdict

GIB = 2**30
# One vector of so many components takes 1 GiB in half precision, 3 GiB with its float32 copy.
DIMENSIONS = GIB // 2


def asked(free: int, *there: Resident, shelf: str = "indexes") -> tuple[bool, bool]:
    """Whether an index of 1 or 3 GiB is admitted, and whether with its float32 vectors; GiB beyond the reserve."""
    found = verdict(1, DIMENSIONS, shelf, there, (RESERVE + free * GIB, 100 * GIB))
    return found.admitted, found.full


def test_what_an_index_needs() -> None:
    assert needed(1_200_000, 384, full=False) == 1_200_000 * 384 * 2
    assert needed(1_200_000, 384, full=True) == 1_200_000 * 384 * (2 + 4)


@pytest.mark.parametrize(
    ("free", "admitted", "full"), [(8, True, True), (7, True, False), (2, True, False), (1, False, False)]
)
def test_the_first_of_a_shelf_leaves_as_much_again(free: int, admitted: bool, full: bool) -> None:
    assert asked(free) == (admitted, full)


@pytest.mark.parametrize(
    ("free", "admitted", "full"), [(3, True, True), (2, True, False), (1, True, False), (0, False, False)]
)
def test_a_successor_needs_only_itself(free: int, admitted: bool, full: bool) -> None:
    assert asked(free, Resident("indexes", 3 * GIB, full=True)) == (admitted, full)


def test_a_successor_of_half_precision_takes_no_more() -> None:
    assert asked(50, Resident("indexes", GIB, full=False)) == (True, False)


@pytest.mark.parametrize(
    ("free", "admitted", "full"), [(12, True, True), (11, True, False), (6, True, False), (5, False, False)]
)
def test_the_first_of_another_shelf_leaves_room_for_both(free: int, admitted: bool, full: bool) -> None:
    assert asked(free, Resident("indexes", 4 * GIB, full=True), shelf="models") == (admitted, full)


def test_two_releases_fit_wherever_the_first_was_admitted() -> None:
    """Titles, then products, as a start opens them, and both again at the swap, with the least memory that will do."""
    for total in range(1, 40):
        there: list[Resident] = []
        free = RESERVE + total * GIB
        for shelf, dimensions in (("indexes", 4 * DIMENSIONS), ("models", DIMENSIONS)) * 2:
            found = verdict(1, dimensions, shelf, there, (free, 100 * GIB))
            starts = not any(resident.shelf == shelf for resident in there)
            assert found.admitted or starts
            if not found.admitted:
                break
            size = needed(1, dimensions, found.full)
            free -= size
            there.append(Resident(shelf, size, found.full))
        else:
            assert total >= 10
            continue
        assert total < 10


def test_a_refusal_tells_its_numbers() -> None:
    told = verdict(1_000_000, 512, "indexes", [], (3 * GIB, 80 * GIB)).told
    size, reserve = 1_000_000 * 512 * 2 / GIB, RESERVE / GIB
    assert f"1,000,000 vectors of 512 need {size:.2f} GiB" in told
    assert f"as much again ({size:.2f} GiB) for the release that follows" in told
    assert f"{reserve:.2f} GiB of reserve" in told
    assert "3.00 GiB of 80.00 GiB are free" in told
    before = Resident("indexes", 1, full=True)
    assert "as much again" not in verdict(1_000_000, 512, "indexes", [before], (0, 80 * GIB)).told
