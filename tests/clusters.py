"""Dask clusters for tests: a scheduler and workers as processes of 127.0.0.1, each with what it shall do wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import indent

import bronze

KILL_AT = """
import os, signal, threading
from tickstate.lake import files, write

at = threading.local()  # an hour is written while the next is begun: each thread is at a path of its own
replacing, begin, encode = files.replacing, write.PartitionWriter.__init__, write.PartitionWriter._encode

def hook(name):
    if name == {step!r} and {keyword!r} in getattr(at, "path", ""):
        try:
            {flag}
        except FileExistsError:
            return
        os.kill({victim}, signal.SIGKILL)

def replacing_known(path, *others):
    at.path = str(path)
    return replacing(path, *others)

def begin_known(writer, path, *others):
    writer.path = str(path)
    begin(writer, path, *others)

def encode_known(writer, group):
    at.path = writer.path
    encode(writer, group)

files.replacing = write.replacing = replacing_known
write.PartitionWriter.__init__, write.PartitionWriter._encode = begin_known, encode_known
files.hook = hook
"""


def kill_at(step, *, once=None, victim="os.getpid()", keyword=""):
    """A preload script: SIGKILL at a step of a commit, once in all workers (`once`: a file that says so) or always."""
    flag = "pass" if once is None else f"os.close(os.open({str(once)!r}, os.O_CREAT | os.O_EXCL))"
    return KILL_AT.format(step=step, flag=flag, victim=victim, keyword=keyword)


class Cluster:
    """A scheduler, its file, and workers; all of them end with the block."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self._count, self._processes = folder, 0, []
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "scheduler.json"
        self._environment = {**os.environ, "DASK_TEMPORARY_DIRECTORY": str(folder), **environment}
        self.scheduler = self._start("scheduler", "--port", "0", "--no-show", "--scheduler-file", self.file)
        limit = time.monotonic() + 30
        while not self.file.exists() or not self.file.read_text().strip().endswith("}"):
            assert time.monotonic() < limit, self.logs()
            time.sleep(0.05)

    @property
    def executor(self) -> str:
        """As `--executor` takes it."""
        return f"dask:{self.file}"

    def add(self, script: str = "", *options: str) -> subprocess.Popen:
        """One more worker of one thread, without a nanny unless `options` say so; a script runs in it first."""
        self._count += 1
        if script:
            path = self.folder / f"preload{self._count}.py"
            path.write_text("def dask_setup(worker):\n" + indent(script, "    "))
            options = (*options, "--preload", str(path))
        if "--nanny" not in options:
            options = (*options, "--no-nanny")
        return self._start(
            "worker",
            "--scheduler-file",
            self.file,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--memory-limit",
            "0",
            *options,
        )

    def _start(self, what: str, *options: object) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host", "127.0.0.1", *map(str, options)]
        with open(self.folder / f"{what}{self._count}.log", "w") as log:
            made = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, start_new_session=True, cwd=self.folder
            )
        self._processes.append(made)
        threading.Thread(target=made.wait, daemon=True).start()  # a killed one is gone, and no zombie
        return made

    def logs(self) -> str:
        """What the processes have said."""
        return "\n".join(f"{p.name}:\n{p.read_text()}" for p in sorted(self.folder.glob("*.log")))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if error[1] is not None:
            print(self.logs())


def command(*arguments, **environment):
    """The command line in a process of its own, with a shorter patience than users need."""
    patience = {"DASK_TICKSTATE__CONNECT_TIMEOUT": "5s", "DASK_TICKSTATE__WORKER_TIMEOUT": "20s"}
    words = [sys.executable, "-c", "from tickstate.runners.cli import main; main()", *map(str, arguments)]
    return {"args": words, "text": True, "env": {**os.environ, **patience, **environment}}


def features(*arguments, timeout=60, **environment):
    """A command, to its end."""
    return subprocess.run(**command(*arguments, **environment), capture_output=True, timeout=timeout, check=False)


def cheap(lake, executor, *arguments):
    """`features run` of one cheap column, silver alone."""
    chosen = ("--lake", lake, "--tier", "silver", *(a for name in bronze.CHEAP for a in ("--feature", name)))
    return ("run", *chosen, "--executor", executor, *arguments)


def run(lake, executor, *arguments, **environment):
    """A run of the cheap column, to its end."""
    return features(*cheap(lake, executor, *arguments), **environment)


@contextmanager
def running(lake, executor):
    """A run of the cheap column, on its way."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(**command(*cheap(lake, executor)), **pipes, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupted(lake, executor, timeout=60):
    """A run of the cheap column whose process group gets SIGINT once it writes."""
    with running(lake, executor) as process:
        limit = time.monotonic() + timeout
        while not list(lake.glob("silver/orderbook/*")):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
