"""Runs that end with SIGKILL at a given step of a commit. The product knows nothing of this but `files.hook`.

`driver.py LAKE RUNNER FEATURE...` runs once: `TICKSTATE_KILL=STEP:OCCURRENCE` says where it ends, counted in each
process. Batch workers import this module again, so that the hook is set in them as well; then the whole process
group goes, as when the machine does.

`driver.py serve FEATURE...` reads lines `LAKE STEP OCCURRENCE WRITING` and does each as a single run in a forked
child, so that many points cost one start of Python; it answers with the child's exit code. With the step `record`
nothing is killed, and each step is written to LAKE.steps. WRITING is `prompt`, or `late`: then the first hour's rows
wait to be written until the second is computed, so that what is killed stands in both.
"""

import os
import signal
import sys
import threading

from tickstate.lake import files


def kill_at(step, occurrence):
    """Set the hook that ends this process group."""
    reached = [0]

    def hook(name):
        reached[0] += name == step
        if name == step and reached[0] == occurrence:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    files.hook = hook


def record_to(path):
    """Set the hook that writes steps down."""

    def hook(name):
        with open(path, "a") as file:
            file.write(name + "\n")

    files.hook = hook


def write_late():
    """Set a hook before the one there is: the thread that writes waits for the one that computes."""
    hook, computed, further = files.hook, [], threading.Event()

    def waits(name):
        if name == "data:rows" and not further.wait(20):
            os._exit(3)  # it never came that far: nothing overlaps
        hook(name)
        if name == "compute:chunk":
            computed.append(name)
            if len(computed) == 2:
                further.set()

    files.hook = waits


def run(lake, runner, features):
    import tickstate

    return tickstate.run(lake, tier="silver", runner=runner, workers=2, features=features).exit_code


def serve(features):
    """One forked child a line; nothing but imports happens before the fork, so there are no threads yet."""
    import numba  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import tickstate.runners.run  # noqa: F401

    for line in sys.stdin:
        lake, step, occurrence, writing = line.split()
        child = os.fork()
        if not child:
            os.setsid()
            record_to(f"{lake}.steps") if step == "record" else kill_at(step, int(occurrence))
            if writing == "late":
                write_late()
            os._exit(run(lake, "single", features))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if "TICKSTATE_KILL" in os.environ:
    at, _, count = os.environ["TICKSTATE_KILL"].rpartition(":")
    kill_at(at, int(count))

if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
