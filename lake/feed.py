"""Trades beside the book: handed over by the event clock, whatever files and hours they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tickstate.lake.tape import TapeRows

Arrays = Mapping[str, np.ndarray]


class TradeFeed:
    """The good trades of a lane in order, each handed over once."""

    def __init__(self, chunks: Iterator[TapeRows]) -> None:
        self._chunks = chunks
        self._held: Arrays | None = None

    def pieces(self, time: int) -> Iterator[Arrays]:
        """The trades with capture_ts <= ``time`` that have not been handed over yet, as they were read."""
        while True:
            if self._held is None:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self._held = chunk.arrays
            times = self._held["capture_ts"]
            cut = int(np.searchsorted(times, time, side="right"))
            taken = {name: values[:cut] for name, values in self._held.items()}
            done = cut == times.shape[0]
            self._held = None if done else {name: values[cut:] for name, values in self._held.items()}
            if cut:
                yield taken
            if not done:
                return

    def until(self, time: int) -> Arrays | None:
        """All of ``pieces`` as one; None if there are none."""
        found = list(self.pieces(time))
        if len(found) < 2:
            return found[0] if found else None
        return {name: np.concatenate([piece[name] for piece in found]) for name in found[0]}
