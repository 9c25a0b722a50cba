"""A ranked answer as tables, for a person who asks by a command."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from vitrine.v1 import facet_pb2, filter_pb2, hit_pb2, recommend_service_pb2


def show(out: Console, response: Any, title: str, seconds: float) -> None:
    """A ranked answer as a table, with its stages."""
    table = Table("#", "id", "title", "price", "score", "recall sources (rank)", "DNN", "trees", title=title)
    for column in table.columns:
        # A long word, such as a Chinese title, is folded and not cut.
        column.overflow = "fold"
    for hit in response.hits:
        members = hit.member_scores
        table.add_row(
            str(hit.rank),
            hit.product.id,
            hit.product.title,
            f"{hit.product.price:.2f}" if hit.product.HasField("price") else "",
            f"{hit.score:.4f}",
            ", ".join(f"{_channel(source)} {source.rank}" for source in hit.recall_sources),
            f"{members.network:.2f}" if members.HasField("network") else "",
            f"{members.trees:.2f}" if members.HasField("trees") else "",
        )
    out.print(table)
    if any(hit.HasField("explanation") for hit in response.hits):
        _show_explanations(out, response)
    _show_facets(out, getattr(response, "facets", ()))
    stages = ", ".join(f"{t.stage} {t.duration.ToMicroseconds() / 1e3:.1f}" for t in response.info.timings)
    out.print(f"{seconds * 1e3:.1f} ms ({stages} ms in the server); {response.info.candidates} candidates")
    if getattr(response, "fallback", 0) == recommend_service_pb2.RecommendResponse.POPULAR:
        out.print("Nothing is known of this user: these are the popular products.")
    if getattr(response, "corrected_query", ""):
        out.print(f"searched “{response.corrected_query}”: no product has all words as they were typed")
    for rule in response.info.applied_rules:
        out.print(", ".join([f"rule {rule.name}", *_done(rule)]))
    if getattr(response, "redirect_uri", ""):
        out.print(f"redirect: {response.redirect_uri}")
    for left_out in response.info.degraded:
        out.print(f"degraded: {left_out.stage}: {left_out.reason}")


def show_suggestions(out: Console, response: Any, title: str, seconds: float) -> None:
    """Suggested queries, then values of the catalogue, as one table."""
    table = Table("suggestion", "is", "products", title=title)
    for query in response.queries:
        table.add_row(query.text, "asked before", "")
    for value in response.values:
        table.add_row(value.value, value.column, f"{value.products:,}")
    out.print(table)
    out.print(f"{seconds * 1e3:.1f} ms")


def _done(rule: hit_pb2.AppliedRule) -> list[str]:
    """What a rule did to an answer, as far as the answer tells."""
    pinned = [f"pinned {', '.join(rule.pinned_product_ids)}"] if rule.pinned_product_ids else []
    return [*pinned, *([f"searched “{rule.rewritten_query}”"] if rule.rewritten_query else [])]


def _show_explanations(out: Console, response: Any) -> None:
    """What changed each hit's score most, a row each."""
    table = Table("#", "title", "score", "from", "because of (value)", title="why")
    for hit in response.hits:
        told = hit.explanation
        parts = [f"{part.contribution:+.3f} {part.name}{_value(part)}" for part in told.contributions]
        because = ", ".join([*parts, f"{told.others:+.3f} all others"])
        table.add_row(str(hit.rank), hit.product.title, f"{told.total:.4f}", f"{told.base:.3f}", because)
    out.print(table)
    if any(hit.explanation.subject == hit_pb2.Explanation.TREES for hit in response.hits):
        out.print("The members are fused by their ranks: what is explained is the trees' score.")


def _value(part: hit_pb2.Explanation.Contribution) -> str:
    return f" ({part.value:.4g})" if part.HasField("value") else " (none)"


def _channel(source: hit_pb2.RecallSource) -> str:
    return str(hit_pb2.RecallSource.Channel.Name(source.channel)).lower()


def _show_facets(out: Console, facets: Sequence[facet_pb2.Facet]) -> None:
    """How often each value stands among the candidates, a row a column."""
    if not facets:
        return
    table = Table("column", "candidates", "without", title="facets")
    for facet in facets:
        counts = [f"{_scalar(each.value)} {each.count}" for each in facet.counts]
        extent = [f"{facet.min:g} to {facet.max:g}"] if facet.HasField("min") else []
        table.add_row(facet.column, ", ".join(counts + extent), str(facet.missing or ""))
    out.print(table)


def _scalar(value: filter_pb2.Value) -> str:
    return str(getattr(value, value.WhichOneof("kind")))
