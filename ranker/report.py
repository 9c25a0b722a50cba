"""The evaluation as one page that needs no network: what was compared, what won and how sure that is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from indexer.store import replace_text
from ranker import plots
from ranker.examination import ALIKE, Examination

Figures = Mapping[str, Any]

_TEMPLATE = "report.html.j2"
# A difference is called one from here down, after the correction.
_SURE = 0.05
_FEATURES = 25
_NAMES = {
    "network": "DNN",
    "trees": "LightGBM",
    "transformer": "Transformer",
    "weighted": "weighted sum",
    "stacking": "stacking",
    "residual": "residual",
    "rank": "reciprocal ranks",
}
_RANKING = {
    "ndcg@10": "NDCG@10",
    "mrr": "MRR",
    "hr@10": "HR@10",
    "recall@10": "recall@10",
    "recall@50": "recall@50",
    "recall@100": "recall@100",
    "auc": "AUC",
    "gauc": "GAUC",
}
_CLASSES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "threshold": "threshold",
    "log_loss": "log loss",
    "ece": "ECE",
}


def write_report(figures: Figures, path: Path, title: str = "Evaluation") -> None:
    """Write the page of `evaluate.report`'s figures to `path`, in one step; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, page(figures, title))


def page(figures: Figures, title: str) -> str:
    """The HTML page. Without matplotlib it has no plots and says so."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(named=named, number=number, signed=signed, share=share)
    template = environment.get_template(_TEMPLATE)
    return template.render(
        title=title,
        figures=figures,
        summary=summary(figures),
        drawn=_drawn(figures),
        ranking=_telling(figures["table"]),
        classes=_CLASSES,
        sure=_SURE,
    )


def summary(figures: Figures) -> list[str]:
    """In plain words: what was compared on how much, what won, and by how sure a margin."""
    table, chosen = figures["table"], figures["chosen"]
    kinds = {kind: sum(row["kind"] == kind for row in table) for kind in ("member", "fusion", "baseline")}
    mine = _quality(figures, chosen)
    # Reports from before know of no places.
    shares = figures.get("examination", ALIKE.shares)
    return [
        f"{figures['requests']:,} requests that nothing was fitted on, with {figures['rows']:,} products to rank, "
        f"{share(figures['positive_share'])} of them wanted (grade {figures['positive_grade']:g} and above). "
        f"Each list was ranked by {_counted(kinds['member'], 'member')}, {_counted(kinds['fusion'], 'fusion')} of them "
        f"and {_counted(kinds['baseline'], 'order')} without any training.",
        f"Validation chose {named(chosen)}; here its NDCG@10 is {number(mine)}. "
        + " ".join(_against(figures, kind) for kind in ("member", "fusion", "baseline") if _rival(figures, kind)),
        *([_places(Examination(np.array(shares)))] if len(shares) > 1 else []),
    ]


def _places(examination: Examination) -> str:
    return (
        "In lists that were logged with their places NDCG@10 counts a click by the inverse of how often its place is "
        f"looked at, estimated as shares of the first place: {examination}. Other figures count clicks as they came."
    )


def named(scorer: str) -> str:
    """A scorer as people call it."""
    return _NAMES.get(scorer, scorer)


def number(value: float | None) -> str:
    """Four places, so that columns align; a dash where the figure does not apply."""
    return "–" if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """Four places with a sign."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def share(value: float | None) -> str:
    """A percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _quality(figures: Figures, scorer: str) -> float:
    return float(next(row["metrics"]["ndcg@10"]["mean"] for row in figures["table"] if row["scorer"] == scorer))


def _rival(figures: Figures, kind: str) -> str | None:
    others = [row["scorer"] for row in figures["table"] if row["kind"] == kind and row["scorer"] != figures["chosen"]]
    return max(others, key=lambda scorer: _quality(figures, scorer), default=None)


def _against(figures: Figures, kind: str) -> str:
    """One sentence on the best other order of a kind."""
    rival = str(_rival(figures, kind))
    found = figures["chosen_minus_other_ndcg"][rival]
    sides = f"{named(rival)} with {number(_quality(figures, rival))}"
    margin = f"difference {signed(found['mean'])}, p = {number(found['p_holm'])}"
    if found["p_holm"] >= _SURE:
        verdict = "the requests cannot tell the two apart"
    else:
        verdict = "it is better" if found["mean"] > 0 else "it is worse"
    best = {"member": "best member", "fusion": "best other fusion", "baseline": "best untrained order"}[kind]
    return f"Against the {best}, {sides}, {verdict} ({margin})."


def _telling(table: Sequence[Figures]) -> dict[str, str]:
    """The ranking figures in which any two orders differ, and those that apply at all."""
    values = {key: {row["metrics"][key]["mean"] for row in table} for key in _RANKING}
    return {key: title for key, title in _RANKING.items() if len(values[key]) > 1 or len(table) == 1}


def _drawn(figures: Figures) -> dict[str, Markup]:
    """The plots by name; those without anything to show are left out, and all of them where matplotlib is missing."""
    try:
        return {name: Markup(svg) for name, svg in _plots(figures).items()}
    except ModuleNotFoundError:
        return {}


def _plots(figures: Figures) -> dict[str, str]:
    ndcg = {named(row["scorer"]): row["metrics"]["ndcg@10"] for row in figures["table"]}
    against = {f"− {named(other)}": each for other, each in figures["chosen_minus_other_ndcg"].items()}
    curves = {named(scorer): curve for scorer, curve in figures["calibration"].items()}
    found = {"ndcg": plots.intervals("ndcg", ndcg, "NDCG@10", False, named(figures["chosen"]))}
    if against:
        found["against"] = plots.intervals("against", against, "NDCG@10 of the chosen order, minus", True)
    if curves:
        found["calibration"] = plots.reliability("calibration", curves)
    if figures["recall_by_candidates"]:
        found["recall"] = plots.band("recall", figures["recall_by_candidates"], "candidates", "share of wanted found")
    for booster, gains in figures["gains"].items():
        first = dict([item for item in gains.items() if item[1] > 0][:_FEATURES])
        found[f"gains-{booster}"] = plots.bars(f"gains-{booster}", first, "share of the gain")
    return found
