"""A log too short to learn a ranking from: a model without members, and what is still an error."""

from typing import Any, cast

import polars as pl
import pytest

from indexer.errors import InputError
from ranker.examples import Example, Slice
from ranker.log import Sources
from ranker.model import stored_report
from ranker.train import evaluate_again, shortfall, train


@pytest.mark.parametrize(("rows", "tower"), [(None, False), (0, False), (2_000, False), (12_000, True)])
def test_a_log_too_short_to_learn_from_makes_a_model_without_members(shop: Any, rows: int | None, tower: bool) -> None:
    sources = Sources(None if rows is None else shop.dump.events.head(rows), None)
    said: list[str] = []
    # Half of 12,000 rows is enough for a tower, and a twentieth of them too little for the last slices.
    config = shop.config.model_copy(update={"time_cuts": (0.5, 0.8, 0.85, 0.9)})
    name = train(shop.store, config, shop.indexing, shop.snapshot, shop.encoder, sources, said.append)
    model, manifest = shop.load(name), shop.store.manifest("models", name)
    assert model.members is None
    assert (manifest["fusion"], manifest["learnt"], manifest["answered"]) == ("none", [], [])
    lacking = {part: count for part, count in manifest["requests"].items() if part != "tower" and count < 20}
    part, count = next(iter(lacking.items()))
    assert manifest["unranked"] == (
        f"the log is too short to learn a ranking from (slice {part} has {count} requests, 20 are needed): "
        "hits come in recall order until the next rebuild"
    )
    assert said[-1] == manifest["unranked"]
    # What needs less is there: the product space, and the neighbours that the log tells of.
    assert (model.space.tower is not None) == tower
    assert (len(model.retrieval.covisited.rows) > 0) == bool(rows)
    assert stored_report(shop.store, name) is None
    assert {"network.safetensors", "trees.txt", "ease_weights.npy", "schema.json", "report/report.json"}.isdisjoint(
        manifest["files"]
    )
    with pytest.raises(InputError, match=f"Nothing to evaluate: model {name} has no ranking"):
        evaluate_again(model, shop.config, shop.snapshot, shop.encoder, shop.sources, lambda _: None)


def test_a_ranked_model_says_nothing_of_a_short_log(shop: Any) -> None:
    assert shop.model.manifest["unranked"] is None
    report = stored_report(shop.store, shop.model.id)
    assert report is not None
    assert report["chosen"] == shop.model.manifest["fusion"]


@pytest.mark.parametrize("part", [Slice.MEMBERS, Slice.CALIBRATE, Slice.VALIDATE, Slice.TEST])
def test_every_slice_that_is_fitted_or_measured_needs_requests(part: Slice) -> None:
    examples = [cast(Example, None)] * 20
    enough = {each: [] if each is Slice.TOWER else examples for each in Slice}
    assert shortfall(enough) is None
    lacking = shortfall({**enough, part: examples[1:]})
    assert lacking is not None
    assert f"slice {part.name.lower()} has 19 requests, 20 are needed" in lacking


def test_a_log_of_another_shop_is_an_input_error(shop: Any) -> None:
    strangers = shop.dump.events.with_columns(product_id=pl.lit("?"))
    before = shop.store.ids("models")
    for sources in (Sources(strangers, None), Sources(None, shop.dump.judgments.with_columns(product_id=pl.lit("?")))):
        with pytest.raises(InputError, match=r"Cannot train: of [\d,]+ events and judgments none names a product"):
            shop.train(sources=sources)
    assert shop.store.ids("models") == before
    # One that is known makes it this shop's; so few could be anybody's.
    for events in (pl.concat([strangers, shop.dump.events.head(1)]), strangers.head(19)):
        assert shop.load(shop.train(sources=Sources(events, None))).members is None
