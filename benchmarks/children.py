"""A child process, and what it cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

FEATURES = Path(sys.executable).with_name("features")


@dataclass(frozen=True)
class Cost:
    """CPU seconds (user and system), wall seconds, and the most memory that it held, in MB."""

    cpu: float
    wall: float
    peak: float


def run_child(*command: object, **environment: str) -> Cost:
    """Run a command to its end, which must be a good one; what it prints is dropped."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(c) for c in command], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    assert process.returncode == 0, said
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss / 1024)
