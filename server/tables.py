"""What the commands print for people."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.config import Settings
from server.release import Release

_METRICS = ("mrr", "hr@10", "recall@10", "recall@100", "auc", "gauc")
_CLASSES = ("accuracy", "precision", "recall", "f1", "threshold", "log_loss", "ece")


def counts(console: Console, title: str, kept: Mapping[str, int], dropped: Mapping[str, int]) -> None:
    """What was read and what was left out."""
    table = Table("", "rows", title=title)
    for name, count in kept.items():
        table.add_row(name, f"{count:,}")
    for name, count in dropped.items():
        table.add_row(f"dropped: {name}", f"{count:,}", style="dim")
    console.print(table)


def indexes(console: Console, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Published indexes."""
    table = Table("id", "products", "rejected", "embedded", "kind", "recall@100", "encoder", "seconds", title="indexes")
    for entry in manifests:
        numbers, index = entry["counts"], entry["index"]
        table.add_row(
            entry["id"],
            f"{numbers['products']:,}",
            f"{numbers['rejected']:,}",
            f"{numbers['embedded']:,}",
            index["kind"],
            f"{index['recall_at_100']:.4f}",
            f"{entry['encoder']['name']} {entry['encoder']['fingerprint']} ({entry['encoder']['backend']})",
            f"{entry['seconds']:.1f}",
        )
    console.print(table)


def releases(console: Console, listed: Sequence[Release], live: Release | None) -> None:
    """Releases, the live one marked."""
    table = Table("", "release", "index", "model", "recall@100", "NDCG@10", "made", "note", title="releases")
    for release in listed:
        mark = "live" if live and live.number == release.number else ""
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(release.time))
        figures = (f"{release.gate['recall_at_100']:.4f}", f"{release.gate['ndcg']:.4f}")
        table.add_row(mark, str(release.number), release.index, release.model, *figures, made, escape(release.note))
    console.print(table)


def report(console: Console, content: Mapping[str, Any], title: str) -> None:
    """An evaluation: ranking figures, the chosen order against each other, figures as a classifier, segments."""
    heading = (
        f"{title}: test slice, {content['requests']:,} requests, {content['rows']:,} rows; 95 % bootstrap intervals"
    )
    ranking = Table("scorer", "ndcg@10", *_METRICS, "NDCG@10: chosen minus this", "p", title=heading)
    for row in content["table"]:
        chosen = row["scorer"] == content["chosen"]
        difference = content["chosen_minus_other_ndcg"].get(row["scorer"])
        ranking.add_row(
            row["scorer"],
            _interval(row["metrics"]["ndcg@10"]),
            *(_number(row["metrics"][name]["mean"]) for name in _METRICS),
            "chosen" if chosen else _signed(difference),
            "" if difference is None else _number(difference["p_holm"]),
            style="bold" if chosen else "",
        )
    ranking.caption = "p: paired randomisation test, two-sided, with Holm's correction for the number of comparisons"
    console.print(ranking)
    _classifiers(console, content)
    _segments(console, content)


def _classifiers(console: Console, content: Mapping[str, Any]) -> None:
    table = Table("scorer", *_CLASSES, title="as a classifier; the threshold was chosen on the validation slice")
    for row in content["table"]:
        if row["classification"]:
            style = "bold" if row["scorer"] == content["chosen"] else ""
            table.add_row(row["scorer"], *(_number(row["classification"][name]) for name in _CLASSES), style=style)
    if table.row_count:
        console.print(table)


def _segments(console: Console, content: Mapping[str, Any]) -> None:
    shown = [role if role == scorer else f"{role}: {scorer}" for role, scorer in content["shown"].items()]
    table = Table("by", "segment", "requests", *shown, title="NDCG@10 in parts of the requests")
    for row in content["segments"]:
        figures = (_interval(value) for value in row["ndcg@10"].values())
        table.add_row(row["group"], row["segment"], f"{row['requests']:,}", *figures)
    if table.row_count:
        console.print(table)


def settings(console: Console, current: Settings, default: Settings) -> None:
    """Every setting; what differs from the default is bold."""
    table = Table("key", "value", "what it is", title="configuration in force")
    for name, field in Settings.model_fields.items():
        value = getattr(current, name)
        if hasattr(type(value), "model_fields"):
            for key, inner in type(value).model_fields.items():
                changed = getattr(value, key) != getattr(getattr(default, name), key)
                table.add_row(
                    f"{name}.{key}",
                    escape(str(getattr(value, key))),
                    inner.description or "",
                    style="bold" if changed else "",
                )
        else:
            table.add_row(name, escape(str(value)), field.description or "")
    console.print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return "–"
    return f"{value['mean']:.4f} [dim]{value['low']:.3f}–{value['high']:.3f}[/]"


def _signed(value: Mapping[str, float | None] | None) -> str:
    if value is None or value["mean"] is None:
        return ""
    return f"{value['mean']:+.4f} [dim]{value['low']:+.4f} to {value['high']:+.4f}[/]"
