"""A child process, and what it cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FEATURES = Path(sys.executable).with_name("features")
START = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024]))
raise SystemExit(done.returncode)
"""


@dataclass(frozen=True)
class Cost:
    """CPU seconds (user and system), wall seconds, and the most memory that one process of it held, in MB."""

    cpu: float
    wall: float
    peak: float


def run_child(*command: object, **environment: str) -> Cost:
    """Run a command to its end, which must be a good one; what it prints is dropped.

    A small process starts and measures it, since on Linux one begins with the peak memory of that it was forked from.
    """
    run = [sys.executable, "-c", START, *map(str, command)]
    done = subprocess.run(run, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Cost(*json.loads(done.stdout))
