import pytest

from indexer.room import RESERVE, Form, Resident, needed, needed_for_codes, verdict

GIB = 2**30
# One vector of so many components takes 1 GiB in half precision, 3 GiB with its float32 copy.
DIMENSIONS = GIB // 2


def asked(free: int, *there: Resident, shelf: str = "indexes") -> Form | None:
    """The form in which an index of 1 or 3 GiB is admitted; GiB beyond the reserve."""
    return verdict("it", needed(1, DIMENSIONS), shelf, there, (RESERVE + free * GIB, 100 * GIB)).form


def test_what_an_index_needs() -> None:
    assert needed(1_200_000, 384) == {"full": 1_200_000 * 384 * (2 + 4), "half": 1_200_000 * 384 * 2}
    # Its code, its row number; of each list a float32 centre and where it begins.
    assert needed_for_codes(1_200_000, 96, 4_096, 384) == 1_200_000 * (96 + 4) + 4_096 * (384 * 4 + 8)


@pytest.mark.parametrize(("free", "form"), [(8, "full"), (7, "half"), (2, "half"), (1, None)])
def test_the_first_of_a_shelf_leaves_as_much_again(free: int, form: Form | None) -> None:
    assert asked(free) == form


@pytest.mark.parametrize(("free", "form"), [(3, "full"), (2, "half"), (1, "half"), (0, None)])
def test_a_successor_needs_only_itself(free: int, form: Form | None) -> None:
    assert asked(free, Resident("indexes", 3 * GIB, "full")) == form


def test_a_successor_gets_no_better_form() -> None:
    assert asked(50, Resident("indexes", GIB, "half")) == "half"
    assert asked(50, Resident("indexes", GIB // 8, "codes")) is None
    codes = [Resident("indexes", GIB // 8, "codes")]
    found = verdict("it", needed(1, DIMENSIONS), "indexes", codes, (99 * GIB, 100 * GIB))
    assert found.told == "it were on the card as codes before, and get no better form"
    assert verdict("it", {"codes": GIB}, "indexes", codes, (99 * GIB, 100 * GIB)).form == "codes"
    # What another shelf's index is says nothing of this one's.
    assert verdict("it", needed(1, DIMENSIONS), "models", codes, (99 * GIB, 100 * GIB)).form == "full"


@pytest.mark.parametrize(("free", "admitted"), [(2, True), (1, False)])
def test_codes_leave_as_much_again_too(free: int, admitted: bool) -> None:
    found = verdict("it", {"codes": GIB}, "indexes", [], (RESERVE + free * GIB, 100 * GIB))
    assert (found.form == "codes") == admitted


@pytest.mark.parametrize(("free", "form"), [(12, "full"), (11, "half"), (6, "half"), (5, None)])
def test_the_first_of_another_shelf_leaves_room_for_both(free: int, form: Form | None) -> None:
    assert asked(free, Resident("indexes", 4 * GIB, "full"), shelf="models") == form


def test_two_releases_fit_wherever_the_first_was_admitted() -> None:
    """Titles, then products, as a start opens them, and both again at the swap, with the least memory that will do."""
    for total in range(1, 40):
        there: list[Resident] = []
        free = RESERVE + total * GIB
        for shelf, dimensions in (("indexes", 4 * DIMENSIONS), ("models", DIMENSIONS)) * 2:
            sizes = needed(1, dimensions)
            form = verdict("it", sizes, shelf, there, (free, 100 * GIB)).form
            starts = not any(resident.shelf == shelf for resident in there)
            assert form or starts
            if form is None:
                break
            free -= sizes[form]
            there.append(Resident(shelf, sizes[form], form))
        else:
            assert total >= 10
            continue
        assert total < 10


def test_a_refusal_tells_its_numbers() -> None:
    sizes = needed(1_000_000, 512)
    told = verdict("1,000,000 vectors", sizes, "indexes", [], (3 * GIB, 80 * GIB)).told
    size, reserve = 1_000_000 * 512 * 2 / GIB, RESERVE / GIB
    assert told == (
        f"1,000,000 vectors need {size:.2f} GiB, as much again ({size:.2f} GiB) for the release that follows and "
        f"{reserve:.2f} GiB of reserve; 3.00 GiB of 80.00 GiB are free"
    )
    before = Resident("indexes", 1, "full")
    assert "as much again" not in verdict("it", sizes, "indexes", [before], (0, 80 * GIB)).told
