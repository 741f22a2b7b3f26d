"""``/metrics`` for Prometheus and ``/healthz``, on 127.0.0.1, while the watcher runs (extra ``watch``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tickstate.features.base import FeatureError
from tickstate.lake.names import HOUR, Lane
from tickstate.runners.outcome import Outcome
from tickstate.runners.run import AnyPlan, Observer


class Metrics:
    """An observer that counts for Prometheus and hands on to another observer."""

    def __init__(self, inner: Observer, stale_after: float) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge
        except ImportError:
            fix = "pip install 'tickstate[watch]'"
            raise FeatureError("--metrics-port needs prometheus-client", fix=fix) from None
        self._inner, self._stale_after, self._last_plan = inner, stale_after, time.monotonic()
        self.registry = CollectorRegistry()
        self._now, self._held = 0, dict[tuple[str, Lane], int]()

        def counter(name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"tickstate_{name}", about, labels, registry=self.registry)

        def gauge(name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"tickstate_{name}", about, labels, registry=self.registry)

        self._partitions = counter("partitions", "partitions by outcome", ("channel", "outcome"))
        self._rows = gauge("rows", "rows of the last partition computed", ("channel", "exchange", "symbol"))
        self._segments = gauge("segments", "bronze segments listed", ("channel",))
        self._quarantined = gauge("quarantined_files", "bronze files left out now")
        lane = ("channel", "exchange", "symbol")
        self._lag = gauge("lag_seconds", "now less the time up to which a lane is in silver, or in gold", lane)
        self._commit = gauge("last_commit_timestamp_seconds", "when a partition was last committed")

    def planned(self, plan: AnyPlan) -> None:
        """Count what the listing holds, and how far each lane is behind the clock."""
        self._last_plan = time.monotonic()
        for channel, listing in plan.listings.items():
            self._segments.labels(channel).set(sum(len(s) for lane in listing.lanes.values() for s in lane.values()))
        if plan.source == "bronze":
            self._quarantined.set(len(plan.misplaced) + len(plan.known))
        if plan.clock is not None:
            self._now = plan.clock.now
            for p in plan.partitions:
                self._held.pop((p.channel, p.lane), None)
            for p in plan.partitions:
                begin = p.hour * HOUR
                self._reaches(p.channel, p.lane, p.held or begin)
        self._inner.planned(plan)

    def compiling(self, kernels: int) -> None:
        """Hand on."""
        self._inner.compiling(kernels)

    def finished(self, outcome: Outcome) -> None:
        """Count a partition."""
        self._last_plan = time.monotonic()
        what = "failed" if outcome.error else "changed" if outcome.changed else "computed"
        self._partitions.labels(outcome.channel, what).inc()
        if what == "computed":
            labels = outcome.channel, outcome.lane.exchange, outcome.lane.symbol
            self._rows.labels(*labels).set(outcome.counters.get("rows", 0))
            self._commit.set(time.time())
            self._reaches(outcome.channel, outcome.lane, outcome.cutoff or (outcome.hour + 1) * HOUR)
        self._inner.finished(outcome)

    def _reaches(self, channel: str, lane: Lane, until: int) -> None:
        """A lane is in silver up to a time (us)."""
        until = max(until, self._held.get((channel, lane), until))
        self._held[channel, lane] = until
        self._lag.labels(channel, lane.exchange, lane.symbol).set(max(0, self._now - until) / 1e6)

    def noticed(self, text: str) -> None:
        """Hand on."""
        self._inner.noticed(text)

    def is_healthy(self) -> bool:
        """Whether the watcher has looked at the listing lately."""
        return time.monotonic() - self._last_plan < self._stale_after

    @contextmanager
    def served(self, port: int) -> Iterator[int]:
        """Serve until the block ends; yields the port (``port`` 0: any that is free)."""
        from prometheus_client import generate_latest

        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body, status = b"not found\n", 404
                if self.path == "/metrics":
                    body, status = generate_latest(metrics.registry), 200
                elif self.path == "/healthz":
                    healthy = metrics.is_healthy()
                    body, status = (b"ok\n", 200) if healthy else (b"no cycle lately\n", 503)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, name="tickstate-metrics", daemon=True)
            thread.start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()
                thread.join()
