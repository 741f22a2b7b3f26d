"""FEATURES.md section 7: bars. A rule says where bars end; what a bar holds, families of columns (``barcolumns.py``).

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

from tickstate.features.base import SECOND, Feature, FeatureError, Param, Settings
from tickstate.kernels import bars

_NUMBER = r"[1-9][0-9]*(?:\.[0-9]*[1-9])?|0\.[0-9]*[1-9]"
AUTO = "auto"
LARGEST = float(1 << 53)
"""Thresholds are below: whole numbers are exact there, and kernels count to three times as many."""


def as_number(value: float) -> str:
    """A number as the names of kinds have it.

    >>> as_number(1e6), as_number(2.5)
    ('1000000', '2.5')
    """
    return format(Decimal(repr(value)).normalize(), "f")


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


_TARGET = Param(100, "bars a day that auto aims at", "bars", minimum=1)
_THRESHOLD = Threshold("", 'what closes a bar; "auto": from the lane\'s past')
_COUNTED = {"threshold": replace(_THRESHOLD, whole=True), "target": _TARGET}


class BarRule(Feature):
    """A kind of bars: ``kernel(*inputs, *state, *arguments, out)``, see ``kernels/bars.py``.

    ``prefix`` begins the kind's name (``volume`` for ``volume_500``), ``reasons`` are what its codes mean, ``total`` is
    the total of a day that ``auto`` divides (none: no ``auto``). ``formula`` says in words when a bar closes.
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
        return f"{cls.prefix}_{{threshold}}{f', {cls.prefix}_auto' if cls.total else ''} or {cls.prefix}"

    @classmethod
    def make(cls, settings: Settings | None = None, given: Mapping[str, Any] | None = None) -> Feature:
        made = super().make(settings, given)
        if not cls.total and dict(made.values).get("threshold") == AUTO:
            where = f"[features.{cls.name}] threshold"
            raise FeatureError(f"{AUTO!r}", where=where, expected="a number: no total of a day says what is usual")
        return made

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


FEATURES = (
    BookTimeBars, TradesTimeBars, TickerTimeBars,
    TickBars, VolumeBars, DollarBars,
    TickImbalanceBars, VolumeImbalanceBars, DollarImbalanceBars, TickRunBars, VolumeRunBars, DollarRunBars,
)  # fmt: skip
