"""Bars from a row-at-a-time processor: running totals, one dict a bar."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from benchmarks.rowwise import Row, rows_of

MINUTE = 60_000_000


class Bar:
    """The open bar."""

    __slots__ = ("buy", "close", "count", "high", "low", "moves", "open", "quote", "sell", "squares", "volume")

    def __init__(self, price: float) -> None:
        self.open = self.high = self.low = self.close = price
        self.count = 0
        self.volume = self.quote = self.buy = self.sell = self.squares = self.moves = 0.0

    def add(self, trade: Row) -> None:
        price, amount, move = trade["price"], trade["amount"], trade["log_return"]
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.count += 1
        self.volume += amount
        self.quote += trade["quote_volume"]
        if trade["side"] > 0:
            self.buy += amount
        else:
            self.sell += amount
        if move is not None:
            self.squares += move * move
            self.moves += move

    def row(self) -> Row:
        return {
            "open": self.open, "high": self.high, "low": self.low, "close": self.close, "trade_count": self.count,
            "volume": self.volume, "quote_volume": self.quote, "vwap": self.quote / self.volume,
            "buy_volume": self.buy, "sell_volume": self.sell, "realized_variance": self.squares,
            "log_return_cc": self.moves,
        }  # fmt: skip


class Mean:
    """Exponentially weighted mean of what came before, weights normalised."""

    __slots__ = ("decay", "total", "weight")

    def __init__(self, expected: float) -> None:
        self.decay, self.total, self.weight = 1 - 2 / (expected + 1), 0.0, 0.0

    def add(self, x: float) -> None:
        self.total = self.total * self.decay + x
        self.weight = self.weight * self.decay + 1

    @property
    def value(self) -> float:
        return self.total / self.weight


def time_bars(tape: pa.Table) -> list[Row]:
    found, bar, number = [], None, None
    for trade in rows_of(tape):
        now = trade["capture_ts"] // MINUTE
        if now != number:
            if bar is not None:
                found.append(bar.row())
            bar, number = Bar(trade["price"]), now
        bar.add(trade)
    return [*found, bar.row()]


def sum_bars(tape: pa.Table, total: str, threshold: float) -> list[Row]:
    """Volume and dollar bars: ``total`` is ``volume`` or ``quote``."""
    found, bar = [], None
    for trade in rows_of(tape):
        bar = bar or Bar(trade["price"])
        bar.add(trade)
        if getattr(bar, total) >= threshold:
            found.append(bar.row())
            bar = None
    return [*found, *([bar.row()] if bar else [])]


def imbalance_bars(tape: pa.Table, expected: int) -> list[Row]:
    """Volume imbalance bars of prints that are one trade each."""
    signed, square = Mean(expected), Mean(expected)

    def thresholds() -> float:
        return max(expected * abs(signed.value), math.sqrt(expected * square.value))

    def add(side: float, amount: float) -> None:
        signed.add(side * amount)
        square.add(amount * amount)

    return list(_print_bars(tape, expected, thresholds, add, lambda buy, sell: abs(buy - sell)))


def run_bars(tape: pa.Table, expected: int) -> list[Row]:
    """Volume run bars of prints that are one trade each."""
    buys, sells = Mean(expected), Mean(expected)

    def thresholds() -> float:
        return expected * max(buys.value, sells.value)

    def add(side: float, amount: float) -> None:
        buys.add(amount if side > 0 else 0.0)
        sells.add(amount if side < 0 else 0.0)

    return list(_print_bars(tape, expected, thresholds, add, max))


def _print_bars(tape: pa.Table, expected: int, threshold: Any, add: Any, theta: Any) -> Iterator[Row]:
    bar, closed = None, 0
    for trade in rows_of(tape):
        bar = bar or Bar(trade["price"])
        bar.add(trade)
        met = bar.count >= (3 if closed else 1) * expected or (closed and theta(bar.buy, bar.sell) >= threshold())
        add(trade["side"], trade["amount"])
        if met:
            yield bar.row()
            bar, closed = None, closed + 1
    if bar:
        yield bar.row()
