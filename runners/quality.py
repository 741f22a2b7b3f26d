"""What a partition's rows say about the recording: gaps, coverage, clocks. For commit records and summaries."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tickstate.features.base import SECOND, Settings
from tickstate.features.engine import Rows, Values
from tickstate.kernels.book import FLAGS
from tickstate.kernels.tape import TOTALS_STATE, tape_totals
from tickstate.lake.tape import timestamps
from tickstate.runners.assemble import latency_ms

LATENCY_STEP = 500.0
"""Milliseconds by which latency_ms must move between two rows to count as a step of a clock."""


class Quality:
    """Counts over the rows of one partition, chunk by chunk.

    Steps end in a valid row of the partition; the first one begins at the row before (``last_time``, us) as far as
    the lookback shows it. Those up to ``max_staleness`` are covered time, longer ones are gaps. A covered step counts
    as alive where trades are alive at its later row.
    """

    def __init__(self, channel: str, settings: Settings, alive: bool, last_time: int | None = None) -> None:
        self._channel, self._limit, self._with_trades = channel, settings.max_staleness_us, alive
        self._last_time = last_time
        self._last_latency = np.nan
        self._covered, self._alive = 0, 0
        self._counts: Counter[str] = Counter()
        self._tape, self._totals = np.zeros(1, TOTALS_STATE), np.zeros(4)

    def add(self, rows: Rows, age: Values | None) -> None:
        """Count a chunk; ``age``: its column ``trade_age_s``."""
        if self._channel == "orderbook":
            for name, count in zip(FLAGS, np.bincount(rows.flag, minlength=len(FLAGS)).tolist(), strict=True):
                self._counts[f"flag_{name}"] += count
        else:
            self._counts["invalid"] += int(np.count_nonzero(rows.flag))
        if self._channel == "trades":
            tape = rows.arrays
            tape_totals(timestamps(rows), tape["side"], tape["amount"], tape["quote"], self._tape, self._totals)
        latency = latency_ms(rows.table)
        known = latency[~np.isnan(latency)]
        steps = np.diff(known, prepend=self._last_latency if known.size else [])
        self._counts["latency_steps"] += int(np.count_nonzero(np.abs(steps) > LATENCY_STEP))
        self._last_latency = known[-1] if known.size else self._last_latency
        times = rows.arrays["capture_ts"]
        if not times.size:
            return
        steps = np.diff(times, prepend=times[0] if self._last_time is None else self._last_time)
        covered = steps <= self._limit
        self._counts["gaps"] += int(np.count_nonzero(~covered))
        self._covered += int(steps[covered].sum())
        if age is not None:
            valid = age.data[rows.flag == 0] if rows.flag.any() else age.data
            self._alive += int(steps[covered & ~np.isnan(valid)].sum())
        self._last_time = int(times[-1])

    def dump(self) -> dict[str, Any]:
        """All that is counted so far, JSON-like."""
        latency = None if np.isnan(self._last_latency) else float(self._last_latency)
        found = {"last_time": self._last_time, "last_latency": latency, "counts": dict(self._counts)}
        return {**found, "covered": self._covered, "alive": self._alive, "tape": self._tape.tobytes().hex()}

    def load(self, found: dict[str, Any]) -> None:
        """Go on from a ``dump``."""
        self._last_time, self._counts = found["last_time"], Counter(found["counts"])
        self._last_latency = np.nan if found["last_latency"] is None else found["last_latency"]
        self._covered, self._alive = found["covered"], found["alive"]
        self._tape = np.frombuffer(bytes.fromhex(found["tape"]), TOTALS_STATE).copy()
        none = np.empty(0)
        tape_totals(none.astype(np.int64), none, none, none, self._tape, self._totals)

    def counters(self) -> dict[str, int]:
        """The counts; times in whole seconds, rounded down."""
        found = dict(self._counts)
        found["seconds_covered"] = self._covered // SECOND
        if self._with_trades:
            found["seconds_trades_alive"] = self._alive // SECOND
        return found

    def totals(self) -> dict[str, float]:
        """Of trades: number, prints, amount and notional; a total that is not finite is left out."""
        if self._channel != "trades":
            return {}
        found = zip(("trades", "prints", "amount", "quote"), self._totals.tolist(), strict=True)
        return {name: value for name, value in found if np.isfinite(value)}
