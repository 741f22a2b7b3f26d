"""Dask: the bytes of the local run, workers that differ, workers and schedulers that die. Everything on 127.0.0.1."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import bronze
import clusters
import pytest
from bronze import ALPHA, BETA, HOURS
from clusters import Cluster, features, kill_at

import tickstate
from tickstate.kernels import _jit, elementary
from tickstate.kernels.errors import TickstateError
from tickstate.runners import environment, submission
from tickstate.runners.cluster import DaskPool, parse_place
from tickstate.runners.plan import make_plan
from tickstate.runners.pool import GivenPool, Pool, WorkerLost, run_alone, run_spans
from tickstate.runners.run import Silent
from tickstate.runners.selection import Selection
from tickstate.runners.worker import Outcome

REAL = Path(__file__).resolve().parents[2] / "shared/bronze"


@cache
def expected():
    """What a run of the cheap column gives on this machine alone."""
    lake = bronze.tiny().with_name("cheap")
    shutil.copytree(bronze.tiny() / "bronze", lake / "bronze")
    assert bronze.run(lake, features=bronze.CHEAP).exit_code == 0
    return bronze.tree(lake / "silver")


@pytest.fixture
def lake(tmp_path):
    shutil.copytree(bronze.tiny() / "bronze", tmp_path / "lake/bronze")
    return tmp_path / "lake"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A scheduler and two workers that all is well with."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        for _ in range(2):
            made.add()
        yield made


def complete(lake, done, code=0):
    assert done.returncode == code, done.stdout + done.stderr
    assert bronze.tree(lake / "silver") == expected()
    assert bronze.left_over(lake) == []
    assert "Traceback" not in done.stderr


# ---- the same bytes


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_a_local_run(pair, tmp_path):
    """All features, silver and gold, data and records; and nothing of Dask's on stderr."""
    lake = tmp_path / "lake"
    shutil.copytree(bronze.tiny() / "bronze", lake / "bronze")
    done = features("run", "--lake", lake, "--executor", pair.executor, "--json")
    assert done.returncode == 0, done.stderr
    known = ("vpin is null for", "compiling ")
    said = [line for line in done.stderr.splitlines() if not line.endswith(" partitions")]
    assert [line for line in said if not line.startswith(known)] == []
    local = tmp_path / "local"
    shutil.copytree(lake / "bronze", local / "bronze")
    assert bronze.run(local, tier=None).exit_code == 0
    for tier in ("silver", "gold"):
        assert bronze.tree(lake / tier) == bronze.tree(local / tier) != {}
    again = features("run", "--lake", lake, "--executor", pair.executor)
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing to do" in again.stdout
    assert list(lake.rglob("beacon-*")) == []


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data beside the checkout ({REAL})")
def test_real_data_over_a_cluster(pair, tmp_path):
    """../shared/bronze: data and commit records of the local run."""
    places = {name: ("--bronze", REAL, "--silver", tmp_path / name / "silver") for name in ("local", "dask")}
    done = features("run", *places["dask"], "--executor", pair.executor)
    assert done.returncode == 0, done.stderr
    assert features("run", *places["local"], "--runner", "single").returncode == 0
    found = bronze.tree(tmp_path / "dask")
    assert found == bronze.tree(tmp_path / "local")
    assert sum(name.endswith(".parquet") for name in found) == 12


@pytest.mark.slow
def test_a_local_cluster_is_started_and_ended(lake):
    done = clusters.run(lake, "dask", "--workers", 2)
    complete(lake, done)
    assert [line for line in done.stderr.splitlines() if not line.endswith(" partitions")] == []


@pytest.mark.slow
def test_ctrl_c_ends_a_local_cluster_in_silence(lake):
    """A terminal sends it to all processes; the next run goes on."""
    done = clusters.interrupted(lake, "dask")
    assert done.returncode == 130
    assert [line for line in done.stderr.splitlines() if line] == [
        "features: stopped; the next run goes on where this one was"
    ]
    complete(lake, clusters.run(lake, "local", "--workers", 1))


FROM_PYTHON = """
import sys, warnings
import tickstate
from distributed import Client

if __name__ == "__main__":
    warnings.simplefilter("error")
    with Client(scheduler_file=sys.argv[1], set_as_default=False) as client:
        chosen = {"tier": "silver", "features": sys.argv[3]}
        end = "2024-03-02T00"
        assert len(tickstate.run(sys.argv[2], executor=client, end=end, **chosen).computed) == 4
        executor = client.get_executor()
        done = tickstate.run(sys.argv[2], executor=executor, **chosen)
        assert (len(done.computed), done.up_to_date, done.exit_code) == (4, 4, 0)
        assert executor.submit(len, "ab").result() == 2, "it is left open"
"""


@pytest.mark.slow
def test_a_client_and_its_executor_from_python(pair, lake, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FROM_PYTHON)
    command = [sys.executable, str(script), str(pair.file), str(lake), *bronze.CHEAP]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    complete(lake, done)


# ---- losses


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(lake, tmp_path):
    """SIGKILL in the middle of a partition: the other worker does the rest."""
    with Cluster(tmp_path / "cluster") as cluster:
        workers = [cluster.add(kill_at("data:rows", once=tmp_path / "died")) for _ in range(2)]
        complete(lake, clusters.run(lake, cluster.executor))
        assert (tmp_path / "died").exists()
        assert sorted(w.poll() is None for w in workers) == [False, True]


@pytest.mark.slow
def test_a_worker_that_is_killed_after_its_commit_is_accounted_for(lake, tmp_path):
    """Dask gives its task to another, which finds it done; the quarantined file is said nevertheless."""
    (bronze.bronze_folder(lake, ALPHA, HOURS[0]) / "bad.parquet").write_bytes(b"x")
    with Cluster(tmp_path / "cluster") as cluster:
        for _ in range(2):
            cluster.add(kill_at("commit:durable", once=tmp_path / "died", keyword="exchange=alpha"))
        done = clusters.run(lake, cluster.executor, "--start", HOURS[0], "--end", HOURS[1])
    assert (tmp_path / "died").exists()
    assert done.returncode == 1
    assert "bad.parquet: unreadable" in done.stdout


@pytest.mark.slow
def test_a_partition_that_always_kills_its_worker_is_named(lake, tmp_path):
    with Cluster(tmp_path / "cluster", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as cluster:
        culprit = "exchange=beta/symbol=ETH-USDT/year=2024/month=3/day=2/hour=0/"
        for _ in range(2):
            cluster.add(kill_at("data:rows", keyword=culprit), "--nanny")
        done = clusters.run(lake, cluster.executor)
    assert done.returncode == 1
    assert f"failed: orderbook beta/ETH-USDT {HOURS[2]}: its worker process died" in done.stdout
    assert len(bronze.parquet(lake / "silver")) == 7, done.stdout + done.stderr
    assert bronze.run(lake, features=bronze.CHEAP).exit_code == 0
    assert bronze.tree(lake / "silver") == expected()


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run_and_the_next_one_goes_on(lake, tmp_path):
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add(kill_at("commit:durable", victim=cluster.scheduler.pid, keyword="hour=23"))
        began = time.monotonic()
        done = clusters.run(lake, cluster.executor, DASK_TICKSTATE__CONNECT_TIMEOUT="2s")
        assert cluster.scheduler.poll() is not None
        assert time.monotonic() - began < 40
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("stopped: ")]
    assert "scheduler is lost" in line
    assert "run again" in line
    assert " left" in done.stdout.splitlines()[0]
    made = bronze.parquet(lake / "silver")
    assert 0 < len(made) < 8
    complete(lake, clusters.run(lake, "local", "--workers", 1))


@pytest.mark.slow
def test_no_worker_is_left(lake, tmp_path):
    """Each dies with what it is given, and nobody starts another."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add(kill_at("data:rows"))
        done = clusters.run(lake, cluster.executor, DASK_TICKSTATE__WORKER_TIMEOUT="3s")
    assert done.returncode == 1, done.stderr
    assert "no worker within 3 s" in done.stdout
    assert "Traceback" not in done.stderr
    complete(lake, clusters.run(lake, "local", "--workers", 1))


# ---- workers that are not like us

OTHER_VERSION = """
import importlib.metadata as m
plain = m.version
m.version = lambda name: "1.2.3" if name == "pyarrow" else plain(name)
"""
OTHER_BYTES = """
from tickstate.lake import write
plain = write.writer_options
write.writer_options = lambda schema: plain(schema) | {"compression_level": 9}
"""
OTHER_LATER = """
from tickstate.runners import remote
remote._here = lambda names: {}
"""
OTHER_STORAGE = """
import pathlib
plain = pathlib.Path.exists
pathlib.Path.exists = lambda path, **chosen: "beacon-" not in path.name and plain(path, **chosen)
"""
NO_TICKSTATE = """
import sys
sys.modules["tickstate"] = None
"""
UNLIKE = {
    "version": (OTHER_VERSION, "pyarrow is 1.2.3, expected "),
    "bytes": (OTHER_BYTES, "it computes or encodes otherwise"),
    "later": (OTHER_LATER, "numpy is not installed, expected "),
    "storage": (OTHER_STORAGE, "expected storage that all workers share"),
    "absent": (NO_TICKSTATE, "cannot run tickstate: ModuleNotFoundError"),
}


@pytest.mark.slow
def test_workers_that_differ_are_refused(lake, tmp_path):
    """Each is named with what it has and what is expected; the one that does not differ does all."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add()
        for script, _ in UNLIKE.values():
            cluster.add(script)
        wait_for_workers(cluster, 1 + len(UNLIKE))
        done = clusters.run(lake, cluster.executor)
    complete(lake, done)
    lines = [line for line in done.stderr.splitlines() if line.startswith("refused worker tcp://127.0.0.1:")]
    assert len(lines) == len(UNLIKE), done.stderr
    for what, (_, reason) in UNLIKE.items():
        (line,) = [line for line in lines if reason in line]
        assert line.count(";") >= 1, f"{what}: and what to do"


WAITS = """
import os, time
from tickstate.lake import files

def hook(name):
    while name == "data:rows" and not os.path.exists({go!r}):
        time.sleep(0.05)

files.hook = hook
"""


@pytest.mark.slow
def test_a_worker_that_joins_later_is_asked_first(lake, tmp_path):
    """While the first one works another comes, is asked and refused; and the run ends as ever."""
    go = tmp_path / "go"
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add(WAITS.format(go=str(go)))
        with clusters.running(lake, cluster.executor) as running:
            limit = time.monotonic() + 30
            while not list(lake.rglob(".tmp-*")):
                assert running.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.05)
            cluster.add(OTHER_VERSION)
            said = ""
            while "pyarrow is 1.2.3" not in said:
                said = running.stderr.readline()
                assert said, "it is refused before the run ends"
            go.touch()
            out, err = running.communicate(timeout=60)
    complete(lake, subprocess.CompletedProcess((), running.returncode, out, err))


@pytest.mark.slow
def test_when_all_workers_differ_nothing_is_computed(lake, tmp_path):
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.add(OTHER_VERSION)
        done = clusters.run(lake, cluster.executor)
    assert done.returncode == 2
    assert "every worker is refused" in done.stderr.splitlines()[-1]
    assert "pyarrow is 1.2.3, expected" in done.stderr.splitlines()[-1]
    assert bronze.parquet(lake / "silver") == {}


def wait_for_workers(cluster, count):
    """Both must be there before a run begins; a client in a process of its own waits for them."""
    code = f"from distributed import Client; Client(scheduler_file={str(cluster.file)!r}).wait_for_workers({count}, 30)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--executor", "ray://127.0.0.1:1"], "'ray://127.0.0.1:1'; expected local, dask"),
        (["--executor", "dask://127.0.0.1"], "expected local, dask"),
        (["--executor", "dask://127.0.0.1:x"], "expected local, dask"),
        (["--executor", "dask:nothing.json"], "no such file"),
        (["--executor", "dask://127.0.0.1:1", "--workers", "2"], "workers 2 for a cluster that has its own"),
        (["--executor", "dask", "--runner", "single"], "is for --runner batch: single works in its own process"),
        (["--executor", "dask", "--runner", "watcher"], "is for --runner batch: watcher works in its own process"),
    ],
)
def test_usage(lake, arguments, says):
    done = features("run", "--lake", lake, *arguments)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
    assert not (lake / "silver").exists()


@pytest.mark.slow
def test_nobody_at_the_address(lake):
    done = clusters.run(lake, "dask://127.0.0.1:1", DASK_TICKSTATE__CONNECT_TIMEOUT="1s")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "executor tcp://127.0.0.1:1: no Dask scheduler answers" in done.stderr


def test_distributed_is_not_installed(lake):
    code = "import sys; sys.modules['distributed'] = None; from tickstate.runners.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "--lake", str(lake), "--executor", "dask"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "features: executor 'dask' needs the package distributed; expected the extra dask; "
        "pip install 'tickstate[dask]'"
    ]


@pytest.mark.parametrize("executor", [3, "threads", object()])
def test_no_executor(lake, executor):
    with pytest.raises(TickstateError, match="expected"):
        tickstate.run(lake, tier="silver", executor=executor)


def test_an_executor_is_for_batch(lake):
    with pytest.raises(TickstateError, match="expected runner 'batch'"):
        tickstate.run(lake, runner="single", executor="dask")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("dask://a.b:8786", "tcp://a.b:8786"),
        ("dask://[::1]:8786", "tcp://[::1]:8786"),
        ("tcp://10.0.0.1:1", "tcp://10.0.0.1:1"),
        ("tls://10.0.0.1:1", "tls://10.0.0.1:1"),
        ("dask", ""),
    ],
)
def test_places(text, address):
    assert parse_place(text).address == address


def test_paths_are_absolute_for_workers(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    placed = DaskPool("dask").placed(Selection(Path("b"), Path("s")))
    assert (placed.bronze, placed.silver, placed.gold) == (tmp_path / "b", tmp_path / "s", None)


# ---- what travels, and how much of it


class Counts(Executor):
    """An executor that wants few tasks at a time, and ends them late."""

    def __init__(self):
        self.open, self.most = [], 0

    def window(self):
        return 3

    def submit(self, fn, *args):
        self.open.append(Future())
        self.most = max(self.most, len(self.open))
        if len(self.open) == 3:
            self.open.pop(0).set_result([])
        return self.open[-1] if self.open else Future()


def test_a_scheduler_is_not_given_all_tasks_at_once(lake):
    """Each is reported when it ends, and a new one is sent then."""
    spans = make_plan(Selection(lake / "bronze", lake / "silver", features=bronze.CHEAP)).spans(1)
    executor = Counts()
    plain = executor.submit

    def submit(fn, *args):
        future = plain(fn, *args)
        if len(spans) == executor.sent + 1:
            for left in executor.open:
                left.set_result([])
        executor.sent += 1
        return future

    executor.sent, executor.submit = 0, submit
    assert run_spans(spans, executor, lambda outcome: None) == []
    assert executor.most <= 3


def test_tasks_carry_names_and_paths(lake):
    """A day of a lane with 12 segments an hour stays small, and no table, graph or kernel is in it."""
    for lane in (ALPHA, BETA):
        bronze.write_lane(lake / "bronze", bronze.walk(lane), 300 * bronze.SECOND, prefix="more-")
    (span, *_) = make_plan(Selection(lake / "bronze", lake / "silver")).spans(24)
    plain = len(pickle.dumps(span))
    assert span.graph is not None
    data = pickle.dumps(span)
    assert len(data) == plain < 8_000 * len(span.hours)
    assert not any(name in data for name in (b"pyarrow", b"numba", b"kernels", b"numpy"))


def test_lost_tasks_are_returned_and_the_rest_reported(lake):
    """Whatever executor it is, its word for a lost worker is the standard library's."""

    class Loses(Executor):
        def __init__(self):
            self.count = 0

        def submit(self, fn, span):
            future, self.count = Future(), self.count + 1
            if self.count == 1:
                future.set_exception(WorkerLost("gone", suspect=True))
            elif self.count == 2:
                future.cancel()
                future.set_running_or_notify_cancel()
            else:
                future.set_result([Outcome(span.channel, span.lane, h) for h in span.hours])
            return future

    spans, said = make_plan(Selection(lake / "bronze", lake / "silver", features=bronze.CHEAP)).spans(1), []
    lost = run_spans(spans, Loses(), said.append)
    assert [(found.span, found.is_suspect) for found in lost] == [(spans[0], True), (spans[1], False)]
    assert [o.hour for o in said] == [s.hours[0] for s in spans[2:]]


def test_a_given_executor_says_how_wide_it_is():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as executor:
        assert GivenPool(executor).workers == 3
    assert GivenPool(Executor(), 7).workers == 7


class FakePool:
    """What an executor asks its pool, as a test says."""

    expected = {}

    def __init__(self, live, target):
        self.now, self.hosts = live, target

    def live(self):
        return self.now

    def target(self):
        return frozenset(self.hosts)

    def newcomers(self, live):
        return []


class FakeClient:
    """Takes tasks and never ends one."""

    def __init__(self):
        self.sent = []

    def submit(self, fn, *args, **options):
        self.sent.append(options["workers"])
        return SimpleNamespace(add_done_callback=lambda call: None, cancel=lambda: None, status="pending")


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(submission, "seconds", lambda name: 0.3)
    monkeypatch.setattr(submission, "LOOK", 0.02)


@pytest.mark.parametrize(
    ("live", "target", "worker"),
    [(None, ["a"], ""), ({}, ["a"], ""), ({}, [], ""), ({"tcp://b:1": 1}, ["a"], "tcp://a:1"), (None, [], "tcp://a:1")],
    ids=["no scheduler", "no worker", "none ever", "the one that was asked is gone", "nobody to ask"],
)
def test_every_task_ends(hurried, live, target, worker):
    """Dask would keep it for ever: here it is lost, and may be given again."""
    executor = submission.DaskExecutor(FakePool(live, target), FakeClient(), {})
    future = executor.submit_to(worker, len, "") if worker else executor.submit(len, "")
    assert isinstance(future.exception(timeout=10), WorkerLost)
    executor.shutdown()


def test_a_task_goes_where_workers_are_now(hurried):
    """Not for ever: what is never done is not given again and again."""
    pool, client = FakePool({"tcp://a:1": 1}, ["a"]), FakeClient()
    executor = submission.DaskExecutor(pool, client, {})
    future = executor.submit(len, "")
    for host in "bcdefg":
        pool.now, pool.hosts = {f"tcp://{host}:1": 1}, [host]
        limit = time.monotonic() + 10
        while client.sent[-1] != [host] and not future.done():
            assert time.monotonic() < limit
            time.sleep(0.01)
    assert isinstance(future.exception(timeout=10), WorkerLost)
    assert client.sent == [["a"], ["b"], ["c"], ["d"]]
    executor.shutdown()


def test_tasks_are_taken_back_at_the_end(hurried):
    executor = submission.DaskExecutor(FakePool({"tcp://a:1": 1}, ["a"]), FakeClient(), {})
    future = executor.submit(len, "")
    executor.shutdown()
    assert future.cancelled()


@pytest.mark.parametrize(
    ("refused", "expected"),
    [({}, {"10.0.0.1", "10.0.0.2"}), ({"tcp://10.0.0.2:9": "x"}, {"10.0.0.1", "tcp://10.0.0.2:1"})],
)
def test_tasks_are_for_hosts_unless_one_of_them_was_refused(refused, expected):
    pool = DaskPool("dask")
    pool._accepted, pool._refused = {"tcp://10.0.0.1:1", "tcp://10.0.0.2:1"}, refused
    assert pool.target() == expected


class Once(Executor):
    """Loses a task ``times`` times, then does it."""

    def __init__(self, times, error):
        self.times, self.error, self.tries = times, error, 0

    def submit(self, fn, span):
        future, self.tries = Future(), self.tries + 1
        if self.tries <= self.times:
            future.set_exception(self.error)
        else:
            future.set_result([Outcome(span.channel, span.lane, h) for h in span.hours])
        return future


@pytest.mark.parametrize(
    ("times", "error", "tries", "named"),
    [
        (2, WorkerLost("its worker was preempted"), 3, False),
        (9, WorkerLost("again and again"), 3, True),
        (9, WorkerLost("Dask says so", suspect=True), 1, True),
        (9, BrokenExecutor("a process of its own"), 1, True),
    ],
)
def test_only_what_kills_its_worker_is_named(lake, times, error, tries, named):
    selection = Selection(lake / "bronze", lake / "silver", features=bronze.CHEAP)
    span, executor, said = make_plan(selection).spans(1)[0], Once(times, error), []
    pool = Pool()
    pool.alone = lambda: nullcontext(executor)
    run_alone([span], pool, said.append, Silent())
    assert executor.tries == tries
    assert [bool(o.error) for o in said] == [named]


# ---- the fingerprint


def test_the_fingerprint_runs_every_kernel_that_takes_a_logarithm_or_a_power():
    """Whatever kernel calls ``log`` or ``exp2`` is among those that a worker is asked to run."""
    covered = {f.kernel.function for graph in environment.graphs() for f in graph.features}
    for path in Path(elementary.__file__).parent.glob("[!_]*.py"):
        importlib.import_module(f"tickstate.kernels.{path.stem}")
    calls = {elementary.log.function, elementary.exp2.function}
    typed = [k for k in _jit.ALL.values() if k.typed and k.__module__.startswith("tickstate.kernels.")]
    calling = {k.__name__ for k in typed if calls & {*_jit.called(k.function)}}
    assert len(calling) >= 4
    assert calling == {k.__name__ for k in typed if k.function in covered and k.__name__ in calling}


def test_the_fingerprint_changes_with_one_bit(monkeypatch):
    """Of a value, or of how it is encoded."""
    from tickstate.features import checking_data
    from tickstate.lake import write

    plain, options = checking_data.run_lane, write.writer_options
    found = {fresh()}
    assert found == {environment.numerics()}, "the same each time"

    def other(graph, lane):
        values = plain(graph, lane)
        last = values["log_return"].copy()
        last.view("i8")[-1] ^= 1
        return values | {"log_return": last}

    monkeypatch.setattr(checking_data, "run_lane", other)
    found.add(fresh())
    monkeypatch.setattr(checking_data, "run_lane", plain)
    monkeypatch.setattr(write, "writer_options", lambda schema: options(schema) | {"compression_level": 2})
    found.add(fresh())
    assert len(found) == 3


PLAIN_CPU = {
    "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
}  # fmt: skip


@pytest.mark.slow
def test_the_fingerprint_is_that_of_a_plainer_cpu(tmp_path):
    """Compiled without what this one can do beyond the least, and with the C library's functions for such a CPU."""
    code = "from tickstate.runners import environment; print(environment.numerics())"
    env = os.environ | PLAIN_CPU | {"TICKSTATE_CACHE_DIR": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert found.split() == [environment.numerics()]


def fresh():
    return environment.numerics.__wrapped__()


def test_differences_are_in_words():
    ours = environment.describe(["hypothesis"])
    assert environment.differences(ours, ours) == []
    theirs = {name: value for name, value in ours.items() if name != "numba"} | {"hypothesis": "0.1"}
    found = environment.differences(theirs, ours)
    assert found == [
        f"numba is not installed, expected {ours['numba']}",
        f"hypothesis is 0.1, expected {ours['hypothesis']}",
    ]


def test_describing_loads_nothing_heavy():
    code = "from tickstate.runners import environment; environment.describe()\nimport sys\n"
    code += "assert not {'distributed', 'dask'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
