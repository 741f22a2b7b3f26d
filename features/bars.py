"""FEATURES.md section 7: bars. A rule says where bars end, families of columns say what a bar holds.

Both are features of a channel of bars, ``orderbook_bars``, ``trades_bars`` or ``ticker_bars``, and read the columns
of that silver channel. Any rule goes with any columns: a package that offers a rule gets every column, one that
offers columns gets them for every kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np

from tickstate.features.base import BARS, SECOND, Column, Feature, FeatureError, Param
from tickstate.kernels import bars, barsums

_NUMBER = r"[1-9][0-9]*(?:\.[0-9]*[1-9])?|0\.[0-9]*[1-9]"
AUTO = "auto"
NULL, ZERO, CLOSE = "null", "zero", "close"
"""What a bar without rows holds: null, 0, or the close before it."""
LARGEST = float(1 << 53)
"""Thresholds are below: whole numbers are exact there, and kernels count to three times as many."""


def as_number(value: float) -> str:
    """A number as the names of kinds have it.

    >>> as_number(1e6), as_number(2.5)
    ('1000000', '2.5')
    """
    return format(Decimal(repr(value)).normalize(), "f")


@dataclass(frozen=True)
class BarColumn(Column):
    """A column of bars; ``empty``: what it is in a bar without rows (``fill_empty``)."""

    empty: str = NULL


@dataclass(frozen=True)
class Threshold(Param):
    """A number above 0; ``"auto"``: from the lane's past; ``""``: given by the kind's name."""

    whole: bool = False

    def parse(self, value: Any, where: str) -> Any:
        if isinstance(value, str) and value in ("", AUTO):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < LARGEST:
            raise FeatureError(f"{value!r}", where=where, expected=f'a number above 0 and below {LARGEST:g}, or "auto"')
        if self.whole and value != int(value):
            raise FeatureError(f"{value!r}", where=where, expected=f"a whole number, like {max(1, round(value))}")
        return float(value)


@dataclass(frozen=True)
class Length(Param):
    """Seconds that divide a day."""

    def parse(self, value: Any, where: str) -> Any:
        found = super().parse(value, where)
        if 86_400 % found:
            raise FeatureError(f"bars of {found} s", where=where, expected="a divisor of a day, 86400 s")
        return found


class BarColumns(Feature):
    """A family of columns: ``kernel(*inputs, ends, *state, *arguments, out)``, ``out`` [column, bar].

    Inputs are columns of silver (a value a row), columns of families before it, or ``bar_end`` (int64 us; a value a
    bar). Where ``stacked``, the columns of silver come as one array [column, row].
    """

    group = "bars"
    stacked: ClassVar[bool] = False


_TARGET = Param(100, "bars a day that auto aims at", "bars", minimum=1)
_THRESHOLD = Threshold("", 'what closes a bar; "auto": from the lane\'s past')
_COUNTED = {"threshold": replace(_THRESHOLD, whole=True), "target": _TARGET}


class BarRule(Feature):
    """A kind of bars: ``kernel(*inputs, *state, *arguments, out)``, see ``kernels/bars.py``.

    ``prefix`` begins the kind's name (``volume`` for ``volume_500``), ``reasons`` are what its codes mean, ``total`` is
    the total of a day that ``auto`` divides. ``formula`` says in words when a bar closes.
    """

    group = "bars"
    prefix: ClassVar[str] = ""
    reasons: ClassVar[tuple[str, ...]] = ("threshold",)
    total: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    params: ClassVar[Mapping[str, Param]] = {"threshold": _THRESHOLD, "target": _TARGET}

    @classmethod
    def kind_pattern(cls) -> str:
        """How kinds of this rule are called."""
        return f"{cls.prefix}_{{threshold}}, {cls.prefix}_auto or {cls.prefix}"

    @classmethod
    def read_kind(cls, kind: str) -> dict[str, Any] | None:
        """The parameters that a kind's name gives, or None where it is of another rule."""
        if kind == cls.prefix:
            return {}
        found = re.fullmatch(rf"{cls.prefix}_({_NUMBER}|{AUTO})", kind)
        if found is None:
            return None
        if found[1] == AUTO:
            return {"threshold": AUTO}
        try:
            return {"threshold": cls.params.get("threshold", Threshold("", "")).parse(float(found[1]), "")}
        except FeatureError as error:
            expected = error.expected.replace("like ", f"like {cls.prefix}_")
            raise FeatureError(f"bars {kind!r}", where="--bars", expected=expected) from None

    @property
    def whole(self) -> bool:
        """Whether thresholds are whole numbers."""
        return getattr(self.params.get("threshold"), "whole", False)

    @property
    def settles(self) -> bool:
        """Whether a bar is known to end with its last row; else the next row shows it."""
        return True

    def bounds(self, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """bar_start and bar_end (us) of bars, from capture_ts of their first and last rows."""
        return first, last

    def resolved(self, totals: Mapping[str, float]) -> BarRule:
        """The rule with ``auto`` replaced: the median of daily ``totals`` over ``target``."""
        found = float(np.median(list(totals.values()))) / self["target"]
        found = max(1.0, float(round(found))) if self.whole else found
        values = {**dict(self.values), "threshold": found}
        return replace(self, values=tuple(sorted(values.items())))


class TimeBars(BarRule):
    """Bars of a fixed length, aligned to midnight UTC."""

    name, prefix, inputs = "time_bars", "", ("capture_ts",)
    reasons = ("time",)
    formula = "the interval [k h, (k + 1) h) is over"
    params = {
        "seconds": Length(60, "length, a divisor of a day", "s", minimum=1),
        "fill_empty": Param(False, "a flat bar for each interval without a row between the day's first and last one"),
    }
    state, kernel = bars.CLOCK_STATE, bars.cut_by_time

    @classmethod
    def kind_pattern(cls) -> str:
        return "{seconds}s"

    @classmethod
    def read_kind(cls, kind: str) -> dict[str, Any] | None:
        found = re.fullmatch(r"([1-9][0-9]*)s", kind)
        return {"seconds": int(found[1])} if found else None

    def bounds(self, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = self["seconds"] * SECOND
        start = first // width * width
        return start, start + width

    def arguments(self) -> tuple[object, ...]:
        return (self["seconds"] * SECOND,)


class BookTimeBars(TimeBars):
    """Bars of a fixed length from order books, aligned to midnight UTC."""

    channel = "orderbook_bars"


class TradesTimeBars(TimeBars):
    """Bars of a fixed length from trades, aligned to midnight UTC."""

    channel = "trades_bars"


class TickerTimeBars(TimeBars):
    """Bars of a fixed length from ticker quotes, aligned to midnight UTC."""

    channel = "ticker_bars"


class SumBars(BarRule):
    """Base of bars that close by what they sum."""

    channel = "trades_bars"
    state, kernel = bars.SUM_STATE, bars.cut_by_sum

    def arguments(self) -> tuple[object, ...]:
        return (float(self["threshold"] or 0),)


class TickBars(SumBars):
    """Bars of N trades."""

    name, prefix, inputs = "tick_bars", "tick", ("capture_ts",)
    total, params, formula = "trades", _COUNTED, "it has threshold trades"
    kernel = bars.cut_by_count


class VolumeBars(SumBars):
    """Bars of a volume."""

    name, prefix, inputs = "volume_bars", "volume", ("amount",)
    total, formula = "amount", "its volume reaches threshold lots"


class DollarBars(SumBars):
    """Bars of a notional."""

    name, prefix, inputs = "dollar_bars", "dollar", ("quote_volume",)
    total, formula = "quote", "its quote volume reaches threshold"


class PrintBars(BarRule):
    """Base of imbalance and run bars: they work on prints, an order's fills taken together."""

    channel = "trades_bars"
    reasons = ("threshold", "warmup", "cap")
    total = "prints"
    source = "Lopez de Prado 2018, ch. 2, in a form that neither explodes nor collapses (FEATURES.md section 7)"
    params = {
        **_COUNTED,
        "merge_prints": Param(True, "consecutive trades with the same timestamp and side are one print"),
    }
    state = bars.PRINT_STATE
    counted: ClassVar[bool] = False

    @property
    def settles(self) -> bool:
        return not self["merge_prints"]

    def arguments(self) -> tuple[object, ...]:
        return (int(self["threshold"] or 0), int(self["merge_prints"]), int(self.counted))


class ImbalanceBars(PrintBars):
    """Base of imbalance bars."""

    formula = (
        "abs(theta) >= max(T abs(E[s]), sqrt(T E[w^2])), T = threshold prints; at 3 T prints; the day's first bar at T"
    )
    kernel = bars.cut_by_imbalance


class RunBars(PrintBars):
    """Base of run bars."""

    formula = (
        "max(theta_buy, theta_sell) >= T max(E[w 1(buy)], E[w 1(sell)]), T = threshold prints; at 3 T prints; "
        "the day's first bar at T"
    )
    kernel = bars.cut_by_run


_PRINTS = ("timestamp", "side", "price")


class TickImbalanceBars(ImbalanceBars):
    """Bars of prints that lean to one side, each print alike."""

    name, prefix, inputs, counted = "tick_imbalance_bars", "tick_imbalance", (*_PRINTS, "amount"), True


class VolumeImbalanceBars(ImbalanceBars):
    """Bars of volume that leans to one side."""

    name, prefix, inputs = "volume_imbalance_bars", "volume_imbalance", (*_PRINTS, "amount")


class DollarImbalanceBars(ImbalanceBars):
    """Bars of notional that leans to one side."""

    name, prefix, inputs = "dollar_imbalance_bars", "dollar_imbalance", (*_PRINTS, "quote_volume")


class TickRunBars(RunBars):
    """Bars of many prints of one side, each print alike."""

    name, prefix, inputs, counted = "tick_run_bars", "tick_run", (*_PRINTS, "amount"), True


class VolumeRunBars(RunBars):
    """Bars of much volume of one side."""

    name, prefix, inputs = "volume_run_bars", "volume_run", (*_PRINTS, "amount")


class DollarRunBars(RunBars):
    """Bars of much notional of one side."""

    name, prefix, inputs = "dollar_run_bars", "dollar_run", (*_PRINTS, "quote_volume")


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

    def new_state(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(len(self.inputs), barsums.FOLD_STATE),)

    def arguments(self) -> tuple[object, ...]:
        return (self.kinds,)


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
    inputs = ("ofi", "mlofi", "log_return", "log_return")
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

    name, channel, inputs = "trade_returns", "trades_bars", ("log_return", "log_return")
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
    BookTimeBars, BookPrices, BookMeans, BookFlows, SpreadTime, SecondVariance, AnnualVolatility,
    TradesTimeBars, TickBars, VolumeBars, DollarBars,
    TickImbalanceBars, VolumeImbalanceBars, DollarImbalanceBars, TickRunBars, VolumeRunBars, DollarRunBars,
    TradePrices, TradeFlows, TradeReturns,
    TickerTimeBars, QuotePrices, QuoteMeans,
)  # fmt: skip

assert {f.channel for f in FEATURES} == set(BARS)
