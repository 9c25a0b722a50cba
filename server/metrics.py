"""What a server counts for whoever watches it, served as Prometheus reads it (https://prometheus.io/docs/concepts)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from indexer import fallbacks
from indexer.errors import VitrineError
from server.pipeline import Answer

if TYPE_CHECKING:
    from server.desk import Desk

Handle = Callable[[Any, Any], Awaitable[Any]]

# Seconds. A stage takes fractions of a millisecond, a whole request up to its deadline.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_REQUESTS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


class Metrics:
    """The counters of one process. What is live is looked at when they are read; the names of calls are those that
    go-grpc-prometheus made common."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        call = ("grpc_type", "grpc_service", "grpc_method")
        self._handled = Counter(
            "grpc_server_handled", "Calls that ended, by code.", (*call, "grpc_code"), registry=self.registry
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds", "Time to answer a call.", call, buckets=_SECONDS, registry=self.registry
        )
        self._stages = Histogram(
            "vitrine_stage_seconds",
            "Time of a stage, for the batch that went through it.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waited = Histogram(
            "vitrine_wait_seconds",
            "Time of a request before its batch began.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "vitrine_batch_requests", "Requests in a batch.", buckets=_REQUESTS, registry=self.registry
        )
        self._degraded = Counter(
            "vitrine_degraded", "Answers that left a stage out.", ("stage",), registry=self.registry
        )

    def counted(self, handle: Handle, method: str) -> Handle:
        """`handle`, timed and counted as the rpc `method`, /package.Service/Method."""
        _, service, name = method.split("/")
        handling = self._handling.labels("unary", service, name)

        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            began, code = time.perf_counter(), grpc.StatusCode.OK.name
            try:
                return await handle(request, context)
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED.name
                raise
            finally:
                handling.observe(time.perf_counter() - began)
                self._handled.labels("unary", service, name, code).inc()

        return call

    def ran(self, answers: Sequence[Answer]) -> None:
        """Count a batch that the pipeline answered."""
        self._batches.observe(len(answers))
        for stage, seconds in answers[0].timings[1:]:
            self._stages.labels(stage).observe(seconds)
        for answer in answers:
            self._waited.observe(answer.timings[0][1])
            for stage, _ in answer.degraded:
                self._degraded.labels(stage).inc()

    def watch(self, desk: "Desk") -> None:
        """Tell, whenever the metrics are read, what `desk` answers from."""
        self.registry.register(_Facts(desk))

    def serve(self, address: str, port: int) -> tuple[int, Callable[[], None]]:
        """Listen in a thread; returns the port and what ends it. Raises `VitrineError` where the address is taken."""
        try:
            server, thread = start_http_server(port, address, self.registry)
        except OSError as error:
            raise VitrineError(f"{address}:{port} (server.metrics_port) cannot be listened on: {error}.") from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return int(server.server_port), stop


class _Facts(Collector):
    """What is live, read when it is asked for."""

    def __init__(self, desk: "Desk") -> None:
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        live, state = self._desk.live, self._desk.live.state
        for name, told, value in (
            ("vitrine_release", "Number of the live release.", state.release.number),
            ("vitrine_release_loaded_timestamp_seconds", "When it was loaded.", state.loaded),
            ("vitrine_products", "Products of the live release.", len(state.snapshot)),
            ("vitrine_products_added", "Those that came since.", state.newcomers),
            ("vitrine_products_changed", "Those that were said anew since.", len(state.upserts) - state.newcomers),
            ("vitrine_users", "Users with a history.", len(state.behaviour.users)),
            ("vitrine_rules", "Rules in force now.", live.rulebook.of(state.columns).in_force(time.time())),
            ("vitrine_rules_faults", "What is wrong with rules.", len(live.rulebook.faults(state.columns))),
            ("vitrine_waiting_requests", "Requests in the queue.", self._desk.waiting),
            ("vitrine_journal_sequence", "The journal's last entry.", live.sequence()),
        ):
            yield GaugeMetricFamily(name, told, value)
        queries = state.query_vectors
        for name, told, value in (
            ("vitrine_queries", "Queries since the release was loaded.", queries.asked),
            ("vitrine_queries_cached", "Those whose vectors were known.", queries.found),
            ("vitrine_queries_by_table", "Those embedded without the encoder.", queries.by_table),
        ):
            yield CounterMetricFamily(name, told, value)
        fallen = CounterMetricFamily("vitrine_fallbacks", "How often the CPU stood in for a card.", labels=["stage"])
        for stage, times in fallbacks.counted().items():
            fallen.add_metric([stage], times)
        yield fallen
