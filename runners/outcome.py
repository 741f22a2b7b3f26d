"""What became of a partition: what workers send back, runs count and observers are told."""

from __future__ import annotations

from dataclasses import dataclass, field

from tickstate.lake.commit import Quarantined
from tickstate.lake.names import Lane, time_name


@dataclass(frozen=True)
class Outcome:
    """What became of one partition."""

    channel: str
    lane: Lane
    hour: int
    error: str = ""
    """Empty: written and committed, unless ``changed``."""
    busy: bool = False
    """Another runner is at it."""
    changed: bool = False
    """Its input changed while it was read: nothing was written, plan again."""
    counters: dict[str, int] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    cutoff: int | None = None
    """The hour is open: rows before this time (us)."""
    dropped_state: str = ""
    """Why a saved state was not used and the lane started from its lookback."""

    def __str__(self) -> str:
        return f"{self.channel} {self.lane} {time_name(self.channel, self.hour)}"
