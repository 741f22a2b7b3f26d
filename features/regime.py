"""FEATURES.md sections 3.4 and 3.5: returns over horizons, the 1 s grid, regimes, impact, and rolling moments."""

from __future__ import annotations

import numpy as np

from tickstate.features.base import SECOND, Column, Feature, Lookback, Param
from tickstate.features.windows import Windows
from tickstate.kernels import cells, moments, regime

REGIMES = ("tight", "normal", "wide")


class HorizonReturns(Windows):
    """Log return of the mid over each horizon."""

    name, group, version = "ret", "flow", 2
    inputs = ("capture_ts", "mid_price")
    kernel, joint = regime.horizon_returns, 1

    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(
                f"ret_{h}s", "1", f"ln(m / m_h), m_h of the last valid snapshot with capture_ts <= t - {h} s",
                "if there is none, or a gap > max_staleness since",
            )
            for h in self["horizons"]
        )  # fmt: skip

    def lookback(self) -> Lookback:
        return Lookback(seconds=self["horizons"][-1] + self.settings.max_staleness + 1)

    def arguments(self) -> tuple[object, ...]:
        return (self.widths(), self.settings.max_staleness_us)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(1, regime.GAPS),)


class CellVolatility(Windows):
    """Realised volatility on a 1 s grid, free of the bounce within a second."""

    name, group = "rv_1s", "flow"
    inputs = ("capture_ts", "log_return")
    kernel, joint = cells.cell_volatility, 1

    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(
                f"rv_1s_{h}s", "1",
                f"sqrt(sum of the squared cell sums of log_return over the last {h} completed 1 s cells)", "if none",
            )
            for h in self["horizons"]
        )  # fmt: skip

    def lookback(self) -> Lookback:
        return Lookback(seconds=self["horizons"][-1] + 1)

    def arguments(self) -> tuple[object, ...]:
        return (self.widths(),)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(self["horizons"][-1] + 3, cells.CELLS),)


class SpreadRank(Feature):
    """Where the spread stands among those of the last minutes."""

    name, group = "spread_rank", "impact"
    inputs = ("capture_ts", "spread")
    params = {
        "window": Param(300, "window", "s", minimum=1),
        "min_rows": Param(30, "rows below which there is no rank", "rows", minimum=1),
        "tight": Param(0.2, "share up to which the regime is tight", minimum=0.0),
        "wide": Param(0.8, "share from which on it is wide", minimum=0.0),
    }
    kernel = regime.rank_in_window
    slack, distinct = 1e-6, 4096

    def columns(self) -> tuple[Column, ...]:
        few = f"with fewer than {self['min_rows']} rows in the window"
        return (
            Column(
                "spread_percentile", "1",
                f"share of the {self['window']} s window's rows whose spread < this row's spread * (1 - 1e-6)", few,
            ),
            Column(
                "spread_regime", "1",
                f"tight if spread_percentile <= {self['tight']:g}, wide if >= {self['wide']:g}, else normal",
                few, "string", REGIMES,
            ),
        )  # fmt: skip

    def lookback(self) -> Lookback:
        return Lookback(seconds=self["window"])

    def arguments(self) -> tuple[object, ...]:
        return (self["window"] * SECOND, self.slack, self["min_rows"], self["tight"], self["wide"])

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(self.distinct + 1, regime.RANKS),)


class RegimeShares(Feature):
    """How much of the last minutes the spread was tight, and wide."""

    name, group = "regime_shares", "impact"
    inputs = ("capture_ts", "spread_regime")
    params = {"window": Param(300, "window", "s", minimum=1)}
    outputs = (
        Column("spread_regime_tight_frac", "1", "share of time in regime tight over the window", "if no time counts"),
        Column("spread_regime_wide_frac", "1", "share of time in regime wide over the window", "if no time counts"),
    )
    kernel = regime.regime_shares

    def lookback(self) -> Lookback:
        return Lookback(seconds=self["window"] + self.settings.max_staleness + 1)

    def arguments(self) -> tuple[object, ...]:
        return (self["window"] * SECOND, self.settings.max_staleness_us)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(1, regime.SHARES),)


class CellRegression(Feature):
    """Base of price-impact regressions on the 1 s grid."""

    group = "impact"
    params = {
        "window": Param(300, "completed cells looked at", "s", minimum=1),
        "min_cells": Param(30, "cells below which there is no estimate", "cells", minimum=2),
    }
    kernel = cells.cell_regression

    def lookback(self) -> Lookback:
        return Lookback(seconds=self["window"] + 1)

    def arguments(self) -> tuple[object, ...]:
        return (self["window"] * SECOND, self["min_cells"])

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(self["window"] + 3, cells.PAIRS),)


class OfiBeta(CellRegression):
    """Price impact of order flow."""

    name = "ofi_beta"
    inputs = ("capture_ts", "ofi", "log_return", "mid_price")
    outputs = (
        Column(
            "ofi_beta", "1/lot", "cov(x, y) / var(x) over completed 1 s cells, x = sum of ofi, y = sum of log_return",
            "with fewer than min_cells cells, or var(x) = 0",
        ),
        Column("ofi_beta_r2", "1", "squared correlation of x and y", "as ofi_beta, or var(y) = 0"),
    )  # fmt: skip
    source = "Cont, Kukanov, Stoikov 2014, The Price Impact of Order Book Events, section 3"


class KyleLambda(CellRegression):
    """Price impact of signed trade volume, in log returns a lot."""

    name = "kyle_lambda"
    inputs = ("capture_ts", "signed_trade_vol", "log_return", "trade_age_s")
    outputs = (
        Column(
            "kyle_lambda", "1/lot", "as ofi_beta with signed_trade_vol for ofi",
            "as ofi_beta, or where trades are not alive",
        ),
        Column("kyle_lambda_r2", "1", "squared correlation of x and y", "as kyle_lambda, or var(y) = 0"),
    )  # fmt: skip
    source = "Kyle 1985, Continuous Auctions and Insider Trading, section 2"


class RollingMoments(Feature):
    """Base of features that are mean and sample deviation of one column over one window."""

    group = "impact"
    params = {"window": Param(60, "window", "s", minimum=1)}
    kernel, joint = moments.moment_window, moments.COLUMNS
    pattern, unit = "", ""
    has_mean = 1

    def columns(self) -> tuple[Column, ...]:
        of = self.inputs[1]
        return (
            Column(f"{self.pattern}_mean_{self['window']}s", self.unit, f"mean of {of}", "if the window has no value"),
            Column(f"{self.pattern}_std_{self['window']}s", self.unit, f"sample deviation of {of}", "below 2 values"),
        )

    def lookback(self) -> Lookback:
        return Lookback(seconds=self["window"])

    def arguments(self) -> tuple[object, ...]:
        return (self["window"] * SECOND, (self.has_mean,))

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(1, moments.MOMENTS),)


class BidSlopeMoments(RollingMoments):
    """Rolling mean and deviation of the bid side's slope."""

    name, inputs = "bid_slope_moments", ("capture_ts", "bid_slope_regression")
    pattern, unit = "bid_slope", "lots/bps"


class AskSlopeMoments(RollingMoments):
    """Rolling mean and deviation of the ask side's slope."""

    name, inputs = "ask_slope_moments", ("capture_ts", "ask_slope_regression")
    pattern, unit = "ask_slope", "lots/bps"


class CogMomentum(RollingMoments):
    """Rolling mean and deviation of the centre of gravity's distance from the mid."""

    name, inputs = "cog_momentum", ("capture_ts", "cog_vs_mid")
    pattern, unit = "cog_momentum", "bps"


class DepthSigma(RollingMoments):
    """How much the depth near the touch varies."""

    name, inputs = "depth_sigma", ("capture_ts", "depth_5bps")
    params = {"window": Param(300, "window", "s", minimum=1)}
    has_mean = 0

    def columns(self) -> tuple[Column, ...]:
        of = f"sample deviation of depth_5bps over {self['window']} s"
        return (Column("depth_5bps_sigma", "lots", of, "below 2 values"),)


FEATURES = (
    HorizonReturns, CellVolatility, SpreadRank, RegimeShares, OfiBeta, KyleLambda,
    BidSlopeMoments, AskSlopeMoments, CogMomentum, DepthSigma,
)  # fmt: skip
