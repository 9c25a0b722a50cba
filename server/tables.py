"""What the commands print for people."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.config import Settings
from server.machine import Machine, Space
from server.release import Release
from server.uses import Use

# What fits 80 columns; the report page and --json have all figures. Header by figure.
_METRICS = {"hr@10": "HR@10", "recall@100": "recall\n@100", "auc": "AUC"}
_CLASSES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "log_loss": "log\nloss",
    "ece": "ECE",
}
_ROLES = ("chosen", "best member", "best baseline")


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
    table = Table(title="indexes")
    table.add_column("id", no_wrap=True)
    table.add_column("products", justify="right", no_wrap=True)
    table.add_column("recall\n@100", justify="right", no_wrap=True)
    table.add_column("kind", overflow="fold")
    table.add_column("encoder", overflow="fold")
    for entry in manifests:
        index = entry["index"]
        products, recall = f"{entry['counts']['products']:,}", f"{index['recall_at_100']:.4f}"
        table.add_row(entry["id"], products, recall, index["kind"], _encoder(entry["encoder"]))
    console.print(table)


def built(console: Console, manifest: Mapping[str, Any]) -> None:
    """An index that was just built, and what the build did."""
    indexes(console, [manifest])
    done = manifest["counts"]
    console.print(
        f"{done['embedded']:,} titles embedded, {done['rejected']:,} rows rejected, {manifest['seconds']:.1f} s"
    )
    if queries := manifest.get("queries"):
        use = f"a table of {queries['tokens']:,} tokens" if queries["used"] else "the encoder, since no table agrees"
        found = f"cosine {queries['cosine']:.3f} to the encoder, {queries['overlap']:.2f} of its nearest titles"
        console.print(f"queries by {use} ({found})")


def _encoder(entry: Mapping[str, Any]) -> str:
    name = f"tuned {entry['tuned']['id']}" if entry.get("tuned") else entry["name"]
    return f"{name} {entry['fingerprint']} ({entry['backend']})"


def releases(console: Console, listed: Sequence[Release], live: Release | None) -> None:
    """Releases, the live one marked."""
    table = Table("", "release", "index", "model", "recall@100", "NDCG@10", "made", "note", title="releases")
    for release in listed:
        mark = "live" if live and live.number == release.number else ""
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(release.time))
        ndcg = release.gate["ndcg"]
        figures = (f"{release.gate['recall_at_100']:.4f}", "unranked" if ndcg is None else f"{ndcg:.4f}")
        trained = release.gate.get("carried_from")
        model = release.model if trained is None else f"{release.model}\ncarried from {trained}"
        table.add_row(mark, str(release.number), release.index, model, *figures, made, escape(release.note))
    console.print(table)


def report(console: Console, content: Mapping[str, Any], title: str) -> None:
    """An evaluation: ranking figures, the chosen order against each other, figures as a classifier, segments."""
    ranking = Table(
        title=f"{title}: test slice, {content['requests']:,} requests",
        caption="±: half of the 95 % bootstrap interval. p: paired randomisation test of NDCG@10, two-sided, "
        "with Holm's correction",
    )
    _columns(ranking, "scorer", "NDCG@10", *_METRICS.values(), "chosen\nminus this", "p")
    for row in content["table"]:
        chosen = row["scorer"] == content["chosen"]
        difference = content["chosen_minus_other_ndcg"].get(row["scorer"])
        ranking.add_row(
            row["scorer"],
            _interval(row["metrics"]["ndcg@10"]),
            *(_number(row["metrics"][name]["mean"]) for name in _METRICS),
            "chosen" if chosen else _interval(difference, sign="+"),
            "" if difference is None else _p(difference["p_holm"]),
            style="bold" if chosen else "",
        )
    console.print(ranking)
    _classifiers(console, content)
    _segments(console, content)


def _classifiers(console: Console, content: Mapping[str, Any]) -> None:
    table = Table(title="as a classifier; the threshold was chosen on the validation slice")
    _columns(table, "scorer", *_CLASSES.values())
    for row in content["table"]:
        if row["classification"]:
            style = "bold" if row["scorer"] == content["chosen"] else ""
            table.add_row(row["scorer"], *(_number(row["classification"][name]) for name in _CLASSES), style=style)
    if table.row_count:
        console.print(table)


def _segments(console: Console, content: Mapping[str, Any]) -> None:
    shown = {role: scorer for role, scorer in content["shown"].items() if role in _ROLES}
    table = Table(title="NDCG@10 in parts of the requests")
    heads = (f"{role}:\n{scorer}".replace("best ", "best\n") for role, scorer in shown.items())
    _columns(table, "segment", "requests", *heads)
    group = None
    for row in content["segments"]:
        if row["group"] != group:
            group = row["group"]
            table.add_section()
            table.add_row(f"[dim]{group}[/]")
        table.add_row(row["segment"], f"{row['requests']:,}", *(_interval(row["ndcg@10"][role]) for role in shown))
    if table.row_count:
        console.print(table)


def _columns(table: Table, name: str, *figures: str) -> None:
    """A name that is folded where the terminal is narrow, and figures that are never cut."""
    table.add_column(name, overflow="fold")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)


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


def machine(console: Console, found: Machine) -> None:
    """What a machine has."""
    table = Table(title="this machine", show_header=False)
    for card in found.cards:
        table.add_row("card", f"{card.name}, {card.architecture}, {_space(card.memory)}")
    if not found.cards:
        table.add_row("card", f"none that PyTorch sees, of {found.driver_cards}" if found.driver_cards else "none")
    table.add_row("NVIDIA driver", found.driver or "none")
    table.add_row("PyTorch", f"{found.torch}, {f'CUDA {found.torch_cuda}' if found.torch_cuda else 'no CUDA'}")
    table.add_row("FAISS", f"{found.faiss}; sees {found.faiss_cards} cards")
    for name, number in found.packages.items():
        table.add_row(name, number or "not installed")
    table.add_row("CPU", f"{found.cpu}, {found.cores} cores; {' '.join(found.flags) or 'none of AVX2, AVX-512, AMX'}")
    table.add_row("memory", _space(found.memory))
    table.add_row("store's disk", _space(found.disk))
    console.print(table)


def uses(console: Console, found: Sequence[Use]) -> None:
    """What each stage runs on, faults in red."""
    table = Table("stage", "runs on", "why", title="what will be used")
    for use in found:
        table.add_row(use.stage, escape(use.on), escape(use.why), style="red" if use.fault else "")
    console.print(table)


def _space(space: Space) -> str:
    return f"{space.free / 2**30:.1f} of {space.total / 2**30:.1f} GiB free" if space.total else "unknown"


def _number(value: float | None, sign: str = "") -> str:
    """Three places, which is more than the interval knows; a figure below 1 without its nought."""
    if value is None:
        return "–"
    text = f"{value:{sign}.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else _number(value)


def _interval(value: Mapping[str, float | None] | None, sign: str = "") -> str:
    if value is None or value["mean"] is None:
        return "–"
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return _number(value["mean"], sign)
    return f"{_number(value['mean'], sign)} ±{_number((high - low) / 2)}"
