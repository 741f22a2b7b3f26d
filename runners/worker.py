"""What every worker does: its span's partitions one after the other, each locked, tried and accounted for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from filelock import Timeout

from tickstate.lake.commit import Quarantined
from tickstate.lake.errors import StoreError
from tickstate.lake.names import Lane, time_name
from tickstate.lake.segment import Files
from tickstate.lake.store import persistent
from tickstate.runners.locks import partition_lock


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


class Changed(Exception):  # noqa: N818 - not an error: the plan is out of date
    """An input is no longer the one that was planned with."""


class Worker:
    """Computes and commits the partitions of one lane. The watcher keeps one a lane; a span's lives as long as it.

    ``span`` has ``root`` (the tier that is written), ``writes`` (the channel), ``lane`` and ``hours``.
    """

    def __init__(self, span: Any, files: Files, patience: float = -1) -> None:
        self.span, self.files, self._patience = span, files, patience

    def update(self, span: Any) -> None:
        """Go on with a newer plan for the same lane."""
        self.span = span

    def fits(self, span: Any) -> bool:
        """Whether ``update`` with this plan makes sense."""
        return True

    def save(self) -> None:
        """Save what makes the next start cheaper."""

    def close(self) -> None:
        """End threads."""

    def run(
        self, report: Callable[[Outcome], None] | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> list[Outcome]:
        """All partitions of the span, in order, until ``stopped``."""
        found: list[Outcome] = []
        for hour in self.span.hours:
            if stopped():
                break
            blocked = self._blocked(found)
            outcomes = self._outcomes(hour, error=blocked) if blocked else self._try(hour)
            found += outcomes
            for outcome in outcomes if report is not None else ():
                report(outcome)
        return found

    def _try(self, hour: int) -> list[Outcome]:
        try:
            with partition_lock(self.span.root, f"{self.span.writes}/{self.span.lane}/{hour}", self._patience):
                return persistent(lambda: self._make(hour))
        except Timeout:
            return self._outcomes(hour, busy=True)
        except Changed:
            return self._outcomes(hour, changed=True)
        except Exception as error:  # this partition's fault: said in its outcome, and all else is done
            return self._outcomes(hour, **self._fault(hour, error))

    def _fault(self, hour: int, error: Exception) -> dict[str, Any]:
        """What an outcome says of an exception."""
        text = str(error).strip().splitlines()
        moved = isinstance(error, OSError) and not isinstance(error, StoreError)
        if moved:
            try:
                moved = self._has_changed(hour)
            except StoreError as fault:
                error, moved, text = fault, False, [str(fault)]
        reason = "" if moved else f"{type(error).__name__}: {text[0] if text else ''}"
        return {"error": reason, "changed": moved}

    def _outcomes(self, hour: int, **what: Any) -> list[Outcome]:
        """The same of everything that ``hour`` stands for."""
        return [Outcome(self.span.writes, self.span.lane, hour, **what)]

    def _blocked(self, found: list[Outcome]) -> str:
        """Why the next partition cannot be tried after these outcomes."""
        return ""

    def _make(self, hour: int) -> list[Outcome]:
        """Compute and commit what ``hour`` stands for; nothing where another runner has done it."""
        raise NotImplementedError

    def _has_changed(self, hour: int) -> bool:
        """Whether a file that was read is no longer the one that was planned with."""
        raise NotImplementedError
