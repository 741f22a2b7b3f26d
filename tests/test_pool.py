"""Worker processes of this machine: begun early, ended with their run, and without pandas unless somebody asks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import bronze
import pytest

from tickstate.kernels.errors import TickstateError
from tickstate.runners import KEEPS_MEMORY, run
from tickstate.runners.pool import LocalPool
from tickstate.runners.selection import Selection

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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look for processes in")
def test_workers_end_when_their_run_is_killed(tmp_path):
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as run:
        try:
            pids = [int(pid) for pid in run.stdout.readline().split()]
            alive = [is_alive(pid) for pid in pids]
        finally:
            os.kill(run.pid, signal.SIGKILL)
    assert alive == [True, True]
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_alive(pid) for pid in pids)


STOPPED = """
import os, signal, sys, time
from tickstate.runners.pool import LocalPool

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, however the tests were started
    pool = LocalPool(2)
    try:
        pool.expect(2)
        if "begun" in sys.argv:
            with pool.executor() as executor:
                executor.submit(os.getpid).result()
                print("go", flush=True)
                time.sleep(60)
        print("go", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        pool.close()
        print("stopped")
"""


@pytest.mark.parametrize("when", ["begun", "while they begin"])
def test_workers_end_without_a_word_on_ctrl_c(tmp_path, when):
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, script, when], **pipes) as run:
        try:
            assert run.stdout.readline() == "go\n"
            os.killpg(run.pid, signal.SIGINT)
            said = run.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    assert said == ("stopped\n", "")


@pytest.mark.parametrize(("tasks", "processes"), [(1, 1), (2, 2), (5, 3)])
def test_no_more_processes_begin_than_there_are_tasks(tasks, processes):
    before = set(multiprocessing.active_children())
    pool = LocalPool(3)
    pool.expect(tasks)
    assert len(set(multiprocessing.active_children()) - before) == processes
    with pool.executor() as executor:
        found = [executor.submit(os.getpid) for _ in range(tasks)]
        begun = set(multiprocessing.active_children()) - before
        assert {f.result() for f in found} <= {process.pid for process in begun}
    assert len(begun) == processes
    assert not begun & set(multiprocessing.active_children())


def test_workers_keep_memory_and_the_caller_keeps_its_environment(monkeypatch):
    name, value = KEEPS_MEMORY
    asked = f"__import__('os').environ[{name!r}]"
    for before, expected in ((None, value), ("10", "10")):
        monkeypatch.delenv(name, raising=False) if before is None else monkeypatch.setenv(name, before)
        pool = LocalPool(1)
        pool.expect(1)
        assert os.environ.get(name) == before
        with pool.executor() as executor:
            assert executor.submit(eval, asked).result() == expected


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
def test_pyarrow_imports_no_pandas_where_it_is_kept_from_it(tmp_path, before, said):
    """It does elsewhere, else ``without_pandas`` would be for nothing; and whoever asks for pandas gets it."""
    (tmp_path / "pandas.py").write_text(PANDAS)
    code = f"{before}\n{CONVERTS}\nimport pandas"
    environment = {**os.environ, "PYTHONPATH": path_with(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, said), done.stderr


CONVERTED = f"""
import sys
from tickstate.runners.pool import LocalPool

def convert():
    loaded = set(sys.modules)
{CONVERTS.replace(chr(10), chr(10) + "    ")}
    return "pandas" in sys.modules, {{"pyarrow", "tickstate.runners.executor"}} <= loaded

if __name__ == "__main__":
    pool = LocalPool(1)
    pool.expect(1)
    with pool.executor() as executor:
        print(executor.submit(convert).result())
"""


def test_workers_have_what_every_task_needs_but_no_pandas(tmp_path):
    (tmp_path / "pandas.py").write_text(PANDAS)
    script = tmp_path / "converted.py"
    script.write_text(CONVERTED)
    environment = {**os.environ, "PYTHONPATH": path_with(tmp_path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1:], "imported" in done.stdout) == (["(False, True)"], False), done.stderr


def path_with(folder):
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_a_pool_that_fails_before_its_tasks_leaves_no_process(tmp_path):
    before = set(multiprocessing.active_children())

    class Failing(LocalPool):
        def prepare(self, work, observer):
            raise TickstateError("no compiler")

    selection = Selection(bronze.tiny() / "bronze", tmp_path, tiers=("silver",))
    with pytest.raises(TickstateError, match="no compiler"):
        run._run(selection, Failing(2), run.Silent())
    assert set(multiprocessing.active_children()) <= before


def test_a_run_begins_a_process_a_task_at_most(tmp_path, monkeypatch):
    """A day of bars is one task, whatever kinds it has."""
    lake, expected = bronze.copy_tiny(tmp_path / "lake"), []
    real = LocalPool.expect
    monkeypatch.setattr(LocalPool, "expect", lambda self, tasks: expected.append(tasks) or real(self, tasks))
    found = bronze.run(lake, tier=None, runner="batch", workers=2, exchange="alpha", features=bronze.CHEAP)
    assert len([o for o in found.computed if "_bars" in o.channel]) == 8
    assert expected[-1] == 2, "two days of a lane, four kinds of bars each"
