"""FEATURES.md sections 4 and 5: the channels trades and ticker."""

from __future__ import annotations

import numpy as np

from tickstate.features.base import Column, Feature, Lookback
from tickstate.features.windows import TAPE_HORIZONS, Windows
from tickstate.kernels import moments, tape, window


class OnTrades(Feature):
    """Base of the trades channel's features."""

    channel, group = "trades", "tape"


class TradeValues(OnTrades):
    """Side and notional of a trade."""

    name, inputs = "trade_values", ("amount", "side", "quote")
    outputs = (
        Column("is_buy", "1", "1 buy, 0 sell", "without a side", "int8"),
        Column("quote_volume", "quote", "notional by the lane facts: price * amount * contract_size, or, inverse, "
               "amount * contract_size"),
        Column("signed_volume", "lots", "+ amount (buy), - amount (sell)", "without a side"),
    )  # fmt: skip
    kernel = tape.trade_values


class PriceSteps(OnTrades):
    """Return from trade to trade."""

    name, version, inputs = "price_steps", 2, ("capture_ts", "price")
    outputs = (
        Column("log_return", "1", "ln(price / previous price)", "on the first row and after a gap > max_staleness"),
    )
    looks_back = Lookback(steps=1)
    kernel = tape.price_steps

    def arguments(self) -> tuple[object, ...]:
        return (self.settings.max_staleness_us,)


class Calendar(Feature):
    """Day of the week, UTC."""

    name, group, inputs = "calendar", "calendar", ("capture_ts",)
    outputs = (
        Column("day_of_week", "1", "ISO: 1 Monday to 7 Sunday, UTC", dtype="int8"),
        Column("is_weekend", "1", "Saturday or Sunday, UTC", dtype="bool"),
    )
    kernel = tape.calendar


class TradesCalendar(Calendar):
    """Day of the week of a trade, UTC."""

    channel = "trades"


class TickerCalendar(Calendar):
    """Day of the week of a quote, UTC."""

    channel = "ticker"


class OnTradeWindows(Windows):
    """Base of the trades channel's windows."""

    channel, group = "trades", "tape"
    params = {"horizons": TAPE_HORIZONS}
    nulls = "never on a valid row"


class VolumeSum(OnTradeWindows):
    """Traded volume over windows."""

    name, inputs = "volume", ("capture_ts", "amount")
    pattern, unit, formula = "volume", "lots", "sum of amount"


class QuoteVolumeSum(OnTradeWindows):
    """Traded notional over windows."""

    name, inputs = "quote_volume_sum", ("capture_ts", "quote")
    pattern, unit, formula = "quote_volume", "quote", "sum of quote_volume"


class TradeCount(OnTradeWindows):
    """Number of trades over windows."""

    name, inputs = "trade_count", ("capture_ts",)
    pattern, unit, formula, dtype = "trade_count", "trades", "number of trades", "int64"
    kernel, joint = window.count_windows, 1

    def arguments(self) -> tuple[object, ...]:
        return (self.widths(),)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return ()


class Vwap(OnTradeWindows):
    """Volume-weighted average price over windows."""

    name, inputs = "vwap", ("capture_ts", "quote", "base")
    pattern, unit, formula = "vwap", "quote", "sum of quote / sum of base, by the lane facts,"
    kernel, joint = window.ratio_windows, 1

    def arguments(self) -> tuple[object, ...]:
        return (self.widths(),)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(2 * len(self["horizons"]), window.SUMS),)


class BuyRatio(OnTradeWindows):
    """Share of trades that buyers began, over windows."""

    name, inputs = "buy_ratio", ("capture_ts", "is_buy")
    pattern, unit, formula = "buy_ratio", "1", "number of buys / number of trades with a side"
    nulls, kind = "if none has a side", window.MEAN


class RealizedVariance(OnTradeWindows):
    """Realised variance of trade prices; it contains the bid-ask bounce."""

    name, inputs = "realized_var", ("capture_ts", "log_return")
    pattern, unit, formula = "realized_var", "1", "sum of log_return^2"
    nulls, kind = "if none", window.SUM_OF_SQUARES


class QuoteValues(Feature):
    """Spread, mid and volume imbalance of a quote."""

    name, channel, group = "quote_values", "ticker", "quote"
    inputs = ("bid", "ask", "bid_volume", "ask_volume")
    outputs = (
        Column("spread", "quote", "ask - bid"),
        Column("mid_price", "quote", "(bid + ask) / 2"),
        Column("relative_spread", "1", "spread / mid_price"),
        Column(
            "volume_imbalance", "1", "(bid_volume - ask_volume) / (bid_volume + ask_volume)",
            "where a volume is missing, not finite or negative, or 0 / 0",
        ),
    )  # fmt: skip
    kernel = tape.quote_values


class OnQuoteWindows(Windows):
    """Base of the ticker channel's windows."""

    channel, group = "ticker", "quote"
    params = {"horizons": TAPE_HORIZONS}
    kind = window.MEAN


class SpreadMean(OnQuoteWindows):
    """Mean spread over windows, each quote alike."""

    name, inputs = "spread_mean", ("capture_ts", "spread")
    pattern, unit, formula = "spread_mean", "quote", "mean of spread"


class ImbalanceMean(OnQuoteWindows):
    """Mean volume imbalance over windows."""

    name, inputs = "vol_imbalance_mean", ("capture_ts", "volume_imbalance")
    pattern, unit, formula = "vol_imbalance_mean", "1", "mean of volume_imbalance"


class MidMoments(OnQuoteWindows):
    """Mean and sample deviation of the mid over windows."""

    name, inputs = "mid_moments", ("capture_ts", "mid_price")
    kernel, joint = moments.moment_windows, 1

    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(f"mid_price_{what}_{h}s", "quote", f"{formula} of mid_price over (t - {h} s, t]", nulls)
            for h in self["horizons"]
            for what, formula, nulls in (
                ("mean", "mean", "never on a valid row"), ("std", "sample deviation (n - 1)", "below 2 values"),
            )
        )  # fmt: skip

    def arguments(self) -> tuple[object, ...]:
        return (self.widths(),)

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(len(self["horizons"]), moments.MOMENTS),)


FEATURES = (
    TradeValues, PriceSteps, TradesCalendar, VolumeSum, QuoteVolumeSum, TradeCount, Vwap, BuyRatio, RealizedVariance,
    QuoteValues, TickerCalendar, SpreadMean, ImbalanceMean, MidMoments,
)  # fmt: skip
