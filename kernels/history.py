"""How full the windows are: FEATURES.md section 1, "Previous snapshot, staleness"."""

import numpy as np

from tickstate.kernels._jit import Block, Int, Ints, State, kernel

HISTORY_STATE = np.dtype([("first", "i8"), ("last", "i8"), ("known", "i8")])
"""capture_ts (us) of the first row since the last gap and of the last row; ``known`` 0 before any row."""


@kernel
def row_history(
    capture_ts: Ints, start: Int, state: State(HISTORY_STATE), max_gap: Int, limit: Int, out: Block
) -> None:
    """min(limit, t - the first row since the last gap of more than ``max_gap``), in seconds. k = 1.

    ``max_gap`` and ``limit`` in microseconds. A cold start at limit + max_gap before a row gives that row's bits.
    """
    first, last, known = state[0]["first"], state[0]["last"], state[0]["known"]
    for i in range(start, capture_ts.shape[0]):
        t = capture_ts[i]
        if known == 0 or t - last > max_gap:
            first = t
        known, last = 1, t
        out[0, i - start] = min(limit, t - first) / 1e6
    state[0]["first"], state[0]["last"], state[0]["known"] = first, last, known
