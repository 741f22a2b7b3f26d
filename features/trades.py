"""FEATURES.md sections 3.3 to 3.5: what the trades say at each snapshot."""

from __future__ import annotations

import numpy as np

from tickstate.features.base import SECOND, Column, Feature, Lookback, Param
from tickstate.features.windows import BOOK_HORIZONS
from tickstate.kernels import trades
from tickstate.kernels.window import SUMS

NOT_ALIVE = "where trades are not alive"


class TradeClock(Feature):
    """Age of the last trade, and how full trade windows are."""

    name, group = "trade_clock", "keys"
    inputs = ("capture_ts", "trades.capture_ts")
    outputs = (
        Column("trade_age_s", "s", "t - last trade", NOT_ALIVE),
        Column(
            "trade_history_s", "s", "min(900, t - the first trade since the last gap > trades_max_gap)", NOT_ALIVE
        ),
    )  # fmt: skip
    kernel, state = trades.trade_clock, trades.CLOCK_STATE
    limit = 900

    def trades_lookback(self) -> Lookback:
        return Lookback(seconds=self.limit + self.settings.trades_max_gap)

    def arguments(self) -> tuple[object, ...]:
        return (self.settings.trades_max_gap_us, self.limit * SECOND)


class SignedTradeVolume(Feature):
    """Net aggressive volume since the previous snapshot."""

    name, group = "signed_trade_vol", "flow"
    inputs = ("capture_ts", "trades.capture_ts", "trades.amount", "trades.side")
    outputs = (
        Column(
            "signed_trade_vol", "lots", "sum of +amount (buy), -amount (sell) of trades with capture_ts in (t_prev, t]",
            f"without a previous snapshot within max_staleness, or {NOT_ALIVE}",
        ),
    )  # fmt: skip
    looks_back = Lookback(steps=1)
    kernel = trades.signed_volume

    def trades_lookback(self) -> Lookback:
        return Lookback(seconds=max(self.settings.max_staleness, self.settings.trades_max_gap) + 1)

    def arguments(self) -> tuple[object, ...]:
        return (self.settings.max_staleness_us, self.settings.trades_max_gap_us)


class TradeWindows(Feature):
    """Volume, number and direction of trades over windows."""

    name, group = "trade_windows", "flow"
    inputs = ("capture_ts", "trades.capture_ts", "trades.amount", "trades.side")
    params = {"horizons": BOOK_HORIZONS}
    kernel = trades.trade_windows

    def columns(self) -> tuple[Column, ...]:
        kinds = (
            ("trade_vol", "lots", "sum of amount", NOT_ALIVE, "double"),
            ("trade_count", "trades", "number", NOT_ALIVE, "int64"),
            ("signed_vol", "lots", "buys - sells", NOT_ALIVE, "double"),
            ("tfi", "1", "(Vbuy - Vsell) / (Vbuy + Vsell)", f"{NOT_ALIVE}, or 0 / 0", "double"),
        )
        return tuple(
            Column(f"{name}_{h}s", unit, f"{formula} of the trades in (t - {h} s, t]", nulls, dtype)
            for name, unit, formula, nulls, dtype in kinds
            for h in self["horizons"]
        )

    def trades_lookback(self) -> Lookback:
        return Lookback(seconds=max(self["horizons"][-1], self.settings.trades_max_gap + 1))

    def arguments(self) -> tuple[object, ...]:
        return (tuple(h * SECOND for h in self["horizons"]), self.settings.trades_max_gap_us)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(3 * len(self["horizons"]), SUMS),)


class Vpin(Feature):
    """Volume-synchronised probability of informed trading; null until ``bucket_volume`` is set for the lane."""

    name, group = "vpin", "impact"
    inputs = ("capture_ts", "trades.capture_ts", "trades.amount", "trades.side")
    params = {
        "bucket_volume": Param(0.0, "volume V of a bucket; 0: not set, and the columns are null", "lots", minimum=0.0),
        "window": Param(50, "full buckets in the mean", "buckets", minimum=1),
        "min_buckets": Param(10, "full buckets below which vpin is null", "buckets", minimum=1),
    }
    outputs = (
        Column(
            "vpin", "1", "mean of abs(buy - sell) / V over the last `window` full buckets",
            f"below min_buckets, {NOT_ALIVE}, without bucket_volume",
        ),
        Column(
            "vpin_buckets", "buckets", "full buckets in the mean, of the UTC day and the day before",
            f"{NOT_ALIVE}, without bucket_volume", "int64",
        ),
    )  # fmt: skip
    kernel, state = trades.vpin, trades.VPIN_STATE
    examples = {"bucket_volume": 3.0, "window": 4, "min_buckets": 2}
    source = "Easley, Lopez de Prado, O'Hara 2012, Flow Toxicity and Liquidity in a High-frequency World, section 2"

    def new_state(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(1, self.state), np.zeros(self["window"]))

    def trades_lookback(self) -> Lookback:
        return Lookback(days=2) if self["bucket_volume"] else Lookback()

    def arguments(self) -> tuple[object, ...]:
        return (float(self["bucket_volume"]), self["min_buckets"], self.settings.trades_max_gap_us)


FEATURES = (TradeClock, SignedTradeVolume, TradeWindows, Vpin)
