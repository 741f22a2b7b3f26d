"""Worker processes of this machine: begun early, ended with their run, and without pandas unless somebody asks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tickstate.runners.pool import LocalPool

BUSY = """
import os, time
from tickstate.runners.pool import LocalPool

if __name__ == "__main__":
    pool, found = LocalPool(2), set()
    pool.expect(2)
    with pool.executor() as executor:
        while len(found) < 2:
            found |= {f.result() for f in [executor.submit(os.getpid) for _ in range(4)]}
        executor.submit(time.sleep, 600)  # one works, the other waits
        print(*found, flush=True)
        time.sleep(600)
"""


def is_alive(pid):
    """Whether a process runs; one that is dead but not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_when_their_run_is_killed(tmp_path):
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as run:
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert len(pids) == 2
        assert all(is_alive(pid) for pid in pids)
        os.kill(run.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize(("tasks", "processes"), [(0, 0), (1, 1), (5, 2)])
def test_no_more_processes_begin_than_there_are_tasks(tasks, processes):
    before = set(multiprocessing.active_children())
    pool = LocalPool(2)
    pool.expect(tasks)
    begun = set(multiprocessing.active_children()) - before
    assert len(begun) == processes
    pool.close()
    assert not begun & set(multiprocessing.active_children())


PANDAS = "__version__ = '2.2.3'\nprint('imported')\n"
CONVERTS = """
import numpy as np, pyarrow as pa, pyarrow.compute as pc
from contextlib import suppress
with suppress(AttributeError):  # this pandas has no Series
    array = pa.array(np.arange(3.0))
    assert pc.fill_null(array, 0.0).to_numpy().sum() == np.asarray(array).sum() == pa.scalar(3.0).as_py()
    assert pa.array(["a", None]).null_count == 1
print("converted")
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", ["imported", "converted"]),
        ("from tickstate.lake.arrow import without_pandas; without_pandas()", ["converted", "imported"]),
    ],
)
def test_pyarrow_imports_no_pandas_in_a_worker(tmp_path, before, said):
    """It does elsewhere, else ``without_pandas`` would be for nothing; and whoever asks for pandas gets it."""
    (tmp_path / "pandas.py").write_text(PANDAS)
    code = f"{before}\n{CONVERTS}\nimport pandas"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, said), done.stderr
