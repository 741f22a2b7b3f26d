"""Base of features over the windows (t - h, t] of one column at its own rows."""

from __future__ import annotations

import numpy as np

from tickstate.features.base import SECOND, Column, Feature, Lookback, Param
from tickstate.kernels import window

BOOK_HORIZONS = Param((5, 15, 60, 300, 900), "window lengths", "s", minimum=1, ascending=True)
TAPE_HORIZONS = Param((60, 300, 900), "window lengths", "s", minimum=1, ascending=True)


class Windows(Feature):
    """One column a horizon, ``pattern``_``h``s; ``kind`` says which fold of the second input it is."""

    params = {"horizons": BOOK_HORIZONS}
    kernel, joint = window.sum_windows, 4
    kind = window.SUM
    pattern, unit, formula, nulls = "", "", "", "if the window has no value"
    dtype = "double"

    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(f"{self.pattern}_{h}s", self.unit, f"{self.formula} over (t - {h} s, t]", self.nulls, self.dtype)
            for h in self["horizons"]
        )

    def lookback(self) -> Lookback:
        return Lookback(seconds=self["horizons"][-1])

    def widths(self) -> tuple[int, ...]:
        """Window lengths in microseconds."""
        return tuple(h * SECOND for h in self["horizons"])

    def arguments(self) -> tuple[object, ...]:
        return (self.widths(), (self.kind,))

    def new_memory(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(len(self["horizons"]), window.SUMS),)
