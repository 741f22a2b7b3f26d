"""FEATURES.md sections 3.3 and 3.4: steps between snapshots, and their sums over windows."""

from __future__ import annotations

from decimal import Decimal

from tickstate.features.base import LEVELS, SECOND, Column, Feature, Lookback
from tickstate.features.windows import Windows
from tickstate.kernels import history, step, window

NO_PREVIOUS = "without a previous snapshot within max_staleness"


class BookHistory(Feature):
    """How full the windows are: seconds of unbroken history, up to the longest window."""

    name, group = "book_history", "keys"
    inputs = ("capture_ts",)
    outputs = (
        Column("book_history_s", "s", "min(900, t - the first valid snapshot since the last gap > max_staleness)"),
    )
    kernel, state = history.row_history, history.HISTORY_STATE
    limit = 900

    def lookback(self) -> Lookback:
        return Lookback(seconds=self.limit + self.settings.max_staleness)

    def arguments(self) -> tuple[object, ...]:
        return (self.settings.max_staleness_us, self.limit * SECOND)


class MidSteps(Feature):
    """Return, velocity and acceleration of the mid."""

    name, group, version = "mid_steps", "flow", 2
    inputs = ("capture_ts", "mid_price")
    outputs = (
        Column("log_return", "1", "ln(m / m_prev)", NO_PREVIOUS),
        Column("mid_velocity", "quote/s", "(m - m_prev) / dt", f"{NO_PREVIOUS}, or dt = 0"),
        Column("mid_accel", "quote/s^2", "(v - v_prev) / ((dt + dt_prev) / 2)", "where either velocity is"),
    )
    looks_back = Lookback(steps=2)
    kernel = step.mid_steps

    def arguments(self) -> tuple[object, ...]:
        return (self.settings.max_staleness_us,)


class OrderFlow(Feature):
    """Order-flow imbalance at the touch, by level, and over ten levels."""

    name, group = "ofi", "flow"
    inputs = ("capture_ts", *LEVELS)
    outputs = (
        Column("ofi", "lots", "e_bid - e_ask of the touch: sizes that came less sizes that went", NO_PREVIOUS),
        *(
            Column(f"ofi_L{i}", "lots", f"the same of level {i} by index", "where it is absent in either snapshot")
            for i in range(1, 10)
        ),
        Column("mlofi", "lots", "sum of exp(-0.5 i) * e_bid_i - sum of exp(-0.5 i) * e_ask_i, i < 10", NO_PREVIOUS),
    )
    looks_back = Lookback(steps=1)
    kernel = step.order_flow
    source = (
        "Cont, Kukanov, Stoikov 2014, The Price Impact of Order Book Events, section 2; "
        "Xu, Gould, Howison 2018, Multi-Level Order-Flow Imbalance, section 2"
    )

    def levels(self) -> int:
        return 10

    def arguments(self) -> tuple[object, ...]:
        weights = tuple(float((Decimal(-i) / 2).exp()) for i in range(self.levels()))  # no C library's: alike anywhere
        return (self.settings.max_staleness_us, weights)


class FlowWindows(Windows):
    """Base of the windows over steps of the book."""

    group = "flow"


class OfiSum(FlowWindows):
    """Order-flow imbalance over windows."""

    name, inputs = "ofi_sum", ("capture_ts", "ofi")
    pattern, unit, formula = "ofi_sum", "lots", "sum of ofi"


class MlofiSum(FlowWindows):
    """Multi-level order-flow imbalance over windows."""

    name, inputs = "mlofi_sum", ("capture_ts", "mlofi")
    pattern, unit, formula = "mlofi_sum", "lots", "sum of mlofi"


class RealisedVolatility(FlowWindows):
    """Realised volatility on every update (it contains the bounce of the mid)."""

    name, inputs = "rv", ("capture_ts", "log_return")
    pattern, unit, formula = "rv", "1", "sqrt(sum of log_return^2)"
    kind = window.ROOT_OF_SQUARES


class MeanSpread(FlowWindows):
    """Relative spread over windows, each snapshot alike."""

    name, inputs = "mean_relative_spread", ("capture_ts", "relative_spread")
    pattern, unit, formula = "mean_relative_spread", "1", "mean of relative_spread"
    kind = window.MEAN


FEATURES = (BookHistory, MidSteps, OrderFlow, OfiSum, MlofiSum, RealisedVolatility, MeanSpread)
