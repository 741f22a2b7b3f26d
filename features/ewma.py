"""Exponentially weighted flow and mid: built-in features whose past is unbounded, off unless selected."""

from __future__ import annotations

import numpy as np

from tickstate.features.base import Column, Feature, Lookback, Param
from tickstate.kernels import ewma

RESTART = "on the first row and on the first after a gap > max_staleness"


class Ewma(Feature):
    """Decayed sum of order-flow imbalance, and time-weighted mean of past mids, by half-life."""

    name, group, version, default = "ewma", "ewma", 2, False
    inputs = ("capture_ts", "ofi", "mid_price")
    params = {"half_lives": Param((5, 60, 900), "half-lives, in event time", "s", minimum=1, ascending=True)}
    looks_back = Lookback(unbounded=True)
    kernel, state = ewma.decay_flow, ewma.EWMA_STATE

    def columns(self) -> tuple[Column, ...]:
        flow = "D * previous + ofi, D = 2^(-dt / {h} s)"
        mean = "D * previous + (1 - D) * the previous row's mid, D = 2^(-dt / {h} s)"
        return (
            *(Column(f"ofi_ewma_{h}s", "lots", flow.format(h=h), RESTART) for h in self["half_lives"]),
            *(Column(f"mid_ewma_{h}s", "quote", mean.format(h=h), RESTART) for h in self["half_lives"]),
        )

    def new_state(self) -> tuple[np.ndarray, ...]:
        w = len(self["half_lives"])
        return (np.zeros(1, self.state), np.zeros(w), np.zeros(w))

    def arguments(self) -> tuple[object, ...]:
        return (tuple(float(h) for h in self["half_lives"]), self.settings.max_staleness_us)


FEATURES = (Ewma,)
