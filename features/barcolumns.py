"""FEATURES.md section 7: what a bar holds. Families of columns read silver, and go with every rule of their channel.

Where bars end is said by the rules of ``bars.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tickstate.features.base import Column, Feature
from tickstate.kernels import barsums

NULL, ZERO, CLOSE = "null", "zero", "close"
"""What a bar without rows holds: null, 0, or the close before it."""


@dataclass(frozen=True)
class BarColumn(Column):
    """A column of bars; ``empty``: what it is in a bar without rows (``fill_empty``)."""

    empty: str = NULL


class BarColumns(Feature):
    """A family of columns: ``kernel(*inputs, ends, *state, *arguments, out)``, ``out`` [column, bar].

    Inputs are columns of silver (a value a row), columns of families before it, or ``bar_end`` (int64 us; a value a
    bar). Where ``stacked``, the columns of silver come as one array [column, row].
    """

    group = "bars"
    stacked: ClassVar[bool] = False


def _prices(what: str) -> tuple[BarColumn, ...]:
    return (
        BarColumn("open", "quote", f"first {what}", "never", empty=CLOSE),
        BarColumn("high", "quote", f"highest {what}", "never", empty=CLOSE),
        BarColumn("low", "quote", f"lowest {what}", "never", empty=CLOSE),
        BarColumn("close", "quote", f"last {what}", "never", empty=CLOSE),
        BarColumn("return", "1", "close / open - 1", "never", empty=ZERO),
        BarColumn("range", "1", "(high - low) / open", "never", empty=ZERO),
    )


class PriceBars(BarColumns):
    """Prices of a bar."""

    state, kernel = barsums.PRICE_STATE, barsums.price_bars


class BookPrices(PriceBars):
    """Prices of a bar: the mid."""

    name, channel, inputs, outputs = "book_prices", "orderbook_bars", ("mid_price",), _prices("mid_price")


class TradePrices(PriceBars):
    """Prices of a bar: of its trades."""

    name, channel, inputs, outputs = "trade_prices", "trades_bars", ("price",), _prices("price")


class QuotePrices(PriceBars):
    """Prices of a bar: the quotes' mid."""

    name, channel, inputs, outputs = "quote_prices", "ticker_bars", ("mid_price",), _prices("mid_price")


class Folds(BarColumns):
    """Base of columns that are means, sums or sums of squares of silver columns, null values left out."""

    stacked, kernel = True, barsums.fold_bars
    kinds: ClassVar[tuple[int, ...]] = ()
    of: ClassVar[tuple[int, ...]] = ()
    """Which input each output is made of; empty: its own."""

    def new_state(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(len(self.kinds), barsums.FOLD_STATE),)

    def arguments(self) -> tuple[object, ...]:
        return (self.of or tuple(range(len(self.kinds))), self.kinds)


def _mean(name: str, unit: str, of: str) -> BarColumn:
    return BarColumn(name, unit, f"mean of {of}, each row alike", "in a bar without a value")


def _sum(name: str, unit: str, formula: str) -> BarColumn:
    return BarColumn(name, unit, formula, "in a bar without a value", empty=ZERO)


class BookMeans(Folds):
    """Means of an order book's columns over a bar."""

    name, channel = "book_means", "orderbook_bars"
    inputs = (
        "spread", "relative_spread", "weighted_mid", "weighted_mid_minus_mid", "depth_imbalance_1", "total_imbalance",
        "total_bid_depth", "total_ask_depth", "smart_depth_imbalance",
    )  # fmt: skip
    kinds = (barsums.MEAN,) * 9
    outputs = (
        _mean("mean_spread", "quote", "spread"),
        _mean("mean_relative_spread", "1", "relative_spread"),
        _mean("mean_weighted_mid", "quote", "weighted_mid"),
        _mean("mean_weighted_mid_minus_mid", "quote", "weighted_mid_minus_mid"),
        _mean("mean_depth_imbalance_1", "1", "depth_imbalance_1"),
        _mean("mean_total_imbalance", "1", "total_imbalance"),
        _mean("mean_bid_depth", "lots", "total_bid_depth"),
        _mean("mean_ask_depth", "lots", "total_ask_depth"),
        _mean("mean_smart_depth_imbalance", "1", "smart_depth_imbalance"),
    )


class BookFlows(Folds):
    """Order flow and variance of an order book over a bar."""

    name, channel = "book_flows", "orderbook_bars"
    inputs, of = ("ofi", "mlofi", "log_return"), (0, 1, 2, 2)
    kinds = (barsums.SUM, barsums.SUM, barsums.SUM_OF_SQUARES, barsums.SUM)
    outputs = (
        _sum("sum_ofi", "lots", "sum of ofi"),
        _sum("sum_mlofi", "lots", "sum of mlofi"),
        _sum("realized_variance", "1", "sum of log_return^2"),
        _sum("log_return_cc", "1", "sum of log_return: from the close before"),
    )


class SpreadTime(BarColumns):
    """Time-weighted spread."""

    name, channel, inputs = "spread_time", "orderbook_bars", ("capture_ts", "spread", "bar_end")
    outputs = (
        BarColumn(
            "twa_spread", "quote", "each snapshot's spread weighted by the time to the next one or the bar's end; a "
            "stretch longer than max_staleness does not count", "where no time counts",
        ),
        BarColumn("covered_sec", "s", "the time that counted", "never", empty=ZERO),
    )  # fmt: skip
    state, kernel = barsums.CLOCK_STATE, barsums.spread_time

    def arguments(self) -> tuple[object, ...]:
        return (self.settings.max_staleness_us,)


class SecondVariance(BarColumns):
    """Variance on a 1 s grid, free of the bounce within a second."""

    name, channel, inputs = "second_variance", "orderbook_bars", ("capture_ts", "log_return")
    outputs = (_sum("realized_variance_1s", "1", "sum over 1 s cells of the squared sum of log_return"),)
    state, kernel = barsums.CLOCK_STATE, barsums.second_variance


class AnnualVolatility(BarColumns):
    """Volatility a year, from the time that counted."""

    name, channel, inputs = "annual_volatility", "orderbook_bars", ("realized_variance_1s", "covered_sec")
    outputs = (
        BarColumn(
            "annualized_vol", "1", "sqrt(realized_variance_1s * 31,536,000 / covered_sec)", "without either, or 0 s"
        ),
    )
    kernel = barsums.annual_volatility

    def arguments(self) -> tuple[object, ...]:
        return (31_536_000,)


class TradeFlows(BarColumns):
    """Volumes of a bar."""

    name, channel, inputs = "trade_flows", "trades_bars", ("amount", "quote_volume", "base", "side")
    outputs = (
        _sum("volume", "lots", "sum of amount"),
        _sum("quote_volume", "quote", "sum of quote_volume"),
        _sum("buy_volume", "lots", "sum of amount of the buys"),
        _sum("sell_volume", "lots", "sum of amount of the sells"),
        BarColumn("vwap", "quote", "sum of quote / sum of base, by the lane facts", "in a bar without trades"),
        BarColumn("trade_imbalance", "1", "(buy - sell) / (buy + sell) volume", "0 / 0"),
    )
    state, kernel = barsums.FLOW_STATE, barsums.flow_bars


class TradeReturns(Folds):
    """Variance of trade prices over a bar."""

    name, channel, inputs, of = "trade_returns", "trades_bars", ("log_return",), (0, 0)
    kinds = (barsums.SUM_OF_SQUARES, barsums.SUM)
    outputs = (
        _sum("realized_variance", "1", "sum of log_return^2"),
        _sum("log_return_cc", "1", "sum of log_return: from the close before"),
    )


class QuoteMeans(Folds):
    """Means of a ticker's columns over a bar."""

    name, channel, inputs = "quote_means", "ticker_bars", ("spread", "relative_spread", "volume_imbalance")
    kinds = (barsums.MEAN,) * 3
    outputs = (
        _mean("mean_spread", "quote", "spread"),
        _mean("mean_relative_spread", "1", "relative_spread"),
        _mean("mean_volume_imbalance", "1", "volume_imbalance"),
    )


FEATURES = (
    BookPrices, BookMeans, BookFlows, SpreadTime, SecondVariance, AnnualVolatility,
    TradePrices, TradeFlows, TradeReturns,
    QuotePrices, QuoteMeans,
)  # fmt: skip
