"""Watchers that end with SIGKILL at a given step, one forked child a run; `driver.py` does the same for single runs.

Reads lines `BRONZE SILVER CLOCK STEP OCCURRENCE` (STEP `record`: no kill, steps go to SILVER.steps) and answers
with the child's exit code. Nothing but imports happens before the fork, so that there are no threads yet.
"""

import os
import sys
from pathlib import Path

from driver import kill_at, record_to

FEATURES = ("mid_price", "ofi_ewma_60s")
GRACE = 120.0


def watch(bronze, silver, clock):
    """Cycles until nothing is left to do; the exit code of the run."""
    from tickstate.runners.selection import Selection
    from tickstate.runners.watcher import Pace, Watcher

    watcher = Watcher(Selection(bronze, silver, features=FEATURES), Pace(grace=GRACE), now=lambda: clock)
    return watcher.run(once=True).exit_code


def serve():
    import numba  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import tickstate.runners.watcher  # noqa: F401

    for line in sys.stdin:
        bronze, silver, clock, step, occurrence = line.split()
        child = os.fork()
        if not child:
            os.setsid()
            record_to(f"{silver}.steps") if step == "record" else kill_at(step, int(occurrence))
            os._exit(watch(Path(bronze), Path(silver), int(clock)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
