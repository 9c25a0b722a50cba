"""The page: whole, self-contained, and nothing in it that the figures could break."""

import json
import re
import sys
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ranker import report
from ranker.report import page, summary, write_report

VOID = {"meta", "br", "use", "path", "rect"}


def interval(mean: float, **more: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, **more}


def row(scorer: str, kind: str, quality: float, classified: bool) -> dict[str, Any]:
    metrics = {name: interval(quality) for name in report._RANKING} | {"recall@100": interval(1.0)}
    return {
        "scorer": scorer,
        "kind": kind,
        "metrics": metrics,
        "classification": dict.fromkeys(report._CLASSES, 0.1234) if classified else {},
    }


def difference(mean: float, p: float) -> dict[str, float]:
    return interval(mean, p=p, p_holm=p)


@pytest.fixture
def figures() -> dict[str, Any]:
    differences = {"trees": difference(0.02, 0.3), "weighted": difference(-0.03, 0.01), "random": difference(0.4, 1e-4)}
    shown = {"chosen": "stacking", "best member": "trees", "random": "random"}
    return {
        "requests": 1_234,
        "rows": 56_789,
        "positive_grade": 1.0,
        "positive_share": 0.055,
        "chosen": "stacking",
        "alpha": 0.5,
        "draws": 10_000,
        "table": [
            row("trees", "member", 0.50, True),
            row("weighted", "fusion", 0.55, False),
            row("stacking", "fusion", 0.52, True),
            row("random", "baseline", 0.12, False),
        ],
        "chosen_minus_other_ndcg": differences,
        "chosen_minus_other_auc": differences,
        "shown": shown,
        "segments": [
            {
                "group": "request",
                "segment": "with a query",
                "requests": 1_000,
                "ndcg@10": {role: interval(0.6) for role in shown},
            }
        ],
        "cold": {
            "share_of_rows": 0.25,
            "wanted": 77,
            "requests": 66,
            "share_wanted": 0.28,
            "share_of_others_wanted": 0.5,
            "orders": {
                role: {
                    "share": 0.1,
                    "recall@10": interval(0.2),
                    "recall@100": interval(0.3),
                    "auc": interval(0.6),
                }
                for role in shown
            },
        },
        "calibration": {"trees": {"predicted": [0.1, 0.6], "observed": [0.12, 0.5], "rows": [10, 10]}},
        "recall_by_candidates": [{"candidates": k, **interval(k / 100)} for k in (10, 20, 50)],
        "gains": {"trees": {f"feature_{i}": (i + 1) / 465 for i in range(29, -1, -1)}},
        "variety": {"stacking": {"coverage": 0.4, "novelty": 9.876}, "all candidates": {"coverage": 0.9}},
    }


class Tags(HTMLParser):
    """The open elements, and what was written in the rows of the chosen order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    return tags


def test_the_summary_says_what_was_compared_and_what_won(figures: dict[str, Any]) -> None:
    what, won = summary(figures)
    assert "1,234 requests" in what
    assert "56,789 products" in what
    assert "5.5 % of them wanted" in what
    assert "by 1 member, 2 fusions of them and 1 order without any training." in what
    assert "Validation chose stacking; here its NDCG@10 is 0.5200." in won
    assert (
        "Against the best member, LightGBM with 0.5000, the requests cannot tell the two apart "
        "(difference +0.0200, p = 0.3000)." in won
    )
    assert "weighted sum with 0.5500, it is worse (difference −0.0300, p = 0.0100)." in won
    assert "random with 0.1200, it is better (difference +0.4000, p = 0.0001)." in won


def test_every_part_is_on_the_page(figures: dict[str, Any]) -> None:
    text = page(figures, "Evaluation of m")
    for heading in ("Ranking", "against each other", "As a classifier", "Segments", "Cold products", "What the trees"):
        assert heading in text
    for told in ("0.5500", "+0.4000", "−0.0300", "0.1234", "0.9450", "25.0 %", "9.88", "with a query", "77"):
        assert told in text
    # All orders agree on recall@100.
    assert "recall@50</th>" in text
    assert "<th>recall@100</th><th>AUC" not in text.replace("\n", "")


def test_a_page_needs_nothing_else(figures: dict[str, Any]) -> None:
    tags = parsed(page(figures, "Evaluation of m"))
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "img", "iframe"}
    links = [
        value for _, attributes in tags.seen for name, value in attributes.items() if "href" in name or "src" in name
    ]
    assert links
    assert all(str(value).startswith("#") for value in links)
    assert "url(http" not in page(figures, "m")


def test_ids_are_unique_and_every_link_meets_one(figures: dict[str, Any]) -> None:
    tags = parsed(page(figures, "Evaluation of m"))
    ids = [attributes["id"] for _, attributes in tags.seen if "id" in attributes]
    assert len(ids) == len(set(ids)) > 50
    links = {str(attributes["xlink:href"])[1:] for _, attributes in tags.seen if "xlink:href" in attributes}
    clips = set(re.findall(r"url\(#([^)]*)\)", page(figures, "Evaluation of m")))
    assert links
    assert clips
    assert links | clips <= set(ids)


def test_the_chosen_row_is_marked(figures: dict[str, Any]) -> None:
    marked = re.findall(r'<tr class="chosen"><?\s*<th>([^<]*)', page(figures, "m"))
    assert marked == ["stacking (chosen)", "stacking (chosen)", "chosen: stacking", "stacking"]


def test_everything_is_escaped(figures: dict[str, Any]) -> None:
    told = json.loads(json.dumps(figures).replace("trees", "<script>&$x$"))
    told["segments"][0]["segment"] = "<b>bold"
    text = page(told, "<i>title & more")
    parsed(text)
    assert "<script>" not in text
    assert "&lt;script&gt;&amp;$x$" in text
    assert "&lt;b&gt;bold" in text
    assert "&lt;i&gt;title &amp; more" in text


def test_the_same_figures_make_the_same_page(figures: dict[str, Any]) -> None:
    before = deepcopy(figures)
    assert page(figures, "m") == page(figures, "m")
    assert figures == before


def test_parts_without_figures_are_left_out(figures: dict[str, Any]) -> None:
    for part in ("segments", "recall_by_candidates", "calibration", "gains", "chosen_minus_other_auc"):
        figures[part] = type(figures[part])()
    figures["cold"] = None
    for each in figures["table"]:
        each["classification"] = {}
        each["metrics"]["gauc"] = {"mean": None, "low": None, "high": None}
    text = page(figures, "m")
    parsed(text)
    for heading in ("As a classifier", "Segments", "Cold products", "Recall by number", "What the trees", "GAUC</th>"):
        assert heading not in text


def test_without_matplotlib_the_page_has_its_tables(figures: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = page(figures, "m")
    parsed(text)
    assert "<svg" not in text
    assert "matplotlib is not installed" in text
    assert "0.5500" in text


def test_the_file_is_written_with_its_folder(figures: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "reports" / "m.html"
    write_report(figures, path, "Evaluation of m")
    assert path.read_text(encoding="utf-8") == page(figures, "Evaluation of m")
    assert [each.name for each in path.parent.iterdir()] == ["m.html"]


def test_how_places_were_weighed_is_told(figures: dict[str, Any]) -> None:
    """Where no list was logged with its places, and in reports from before, nothing is said."""
    whole = " ".join(summary(figures | {"examination": [1.0, 0.5, 0.25]}))
    assert "1: 1.00, 2: 0.50, 3: 0.25" in whole
    for without in (figures, figures | {"examination": [1.0]}):
        assert "place" not in " ".join(summary(without))
