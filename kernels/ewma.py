"""Exponentially weighted averages in event time: features whose past has no end."""

import math

import numpy as np

from tickstate.kernels._jit import Block, Floats, Int, Ints, OutFloats, State, kernel
from tickstate.kernels.elementary import exp2

EWMA_STATE = np.dtype([("last", "i8"), ("known", "i8"), ("mid", "f8")])
"""capture_ts (us) and mid of the last row; ``known`` 0 before any."""


@kernel
def decay_flow(
    capture_ts: Ints, ofi: Floats, mid: Floats, start: Int, state: State(EWMA_STATE), flows: OutFloats,
    mids: OutFloats, half_lives: Floats, max_staleness: Int, out: Block,
) -> None:  # fmt: skip
    """Decayed sum of ``ofi`` and weighted mean of past mids, for each half-life h in seconds. k = 2 w.

    D = 2^(-dt / h). Sum: D * previous + ofi. Mean: D * previous + (1 - D) * the previous row's mid, which weighs each
    mid by how long it stood. Both begin anew after a gap of more than ``max_staleness`` (us): that row is NaN, the
    sum begins at 0, the mean at that row's mid. ``flows``, ``mids`` (w) are carried beside ``state``.
    """
    last, known, before = state[0]["last"], state[0]["known"], state[0]["mid"]
    w = half_lives.shape[0]
    for i in range(start, capture_ts.shape[0]):
        o, t = i - start, capture_ts[i]
        for h in range(w):
            if known == 0 or t - last > max_staleness:
                flows[h], mids[h] = 0.0, mid[i]
                out[h, o] = out[w + h, o] = math.nan
                continue
            decay = exp2(-((t - last) / 1e6) / half_lives[h])
            flows[h] = decay * flows[h] + (0.0 if math.isnan(ofi[i]) else ofi[i])
            mids[h] = decay * mids[h] + (1.0 - decay) * before
            out[h, o], out[w + h, o] = flows[h], mids[h]
        last, known, before = t, 1, mid[i]
    state[0]["last"], state[0]["known"], state[0]["mid"] = last, known, before
