"""Queries made of titles: words of theirs, in their order."""

from indexer.pieces import pieces

TITLES = ["Nordic Waterproof Hiking Boots, Brown, Size 42", "red dress", "防水登山靴棕色", "x", ""]


def test_a_query_is_made_of_its_titles_words_in_order() -> None:
    for _ in range(2):
        made = [pieces([title] * 50) for title in TITLES]
        for query in made[0]:
            words, rest = query.split(), iter(TITLES[0].split())
            assert 2 <= len(words) <= 4
            assert all(word in rest for word in words)
        assert len(set(made[0])) > 20
        assert set(made[1]) == {"red dress"}
        assert set(made[3]) == {"x"}
        assert set(made[4]) == {""}


def test_without_spaces_characters_that_stand_together() -> None:
    made = pieces([TITLES[2]] * 50)
    assert all(2 <= len(query) <= 4 and query in TITLES[2] for query in made)
    assert len(set(made)) > 5


def test_the_same_titles_make_the_same_queries() -> None:
    assert pieces(TITLES) == pieces(TITLES)
