"""Settings of the whole suite: the hypothesis profile, and that no kernel was compiled for two signatures."""

import importlib.metadata
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")

settings.register_profile(
    "tickstate",
    max_examples=20 if INTERPRETED else 100,  # kernels are then a hundred times slower; the run is for coverage
    deadline=None,  # the first example compiles kernels
    derandomize="CI" in os.environ or INTERPRETED,  # coverage does not hang on luck
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tickstate")


def kernels_with_many_signatures():
    """Names of the kernels of this process that were compiled more than once."""
    jit = sys.modules.get("tickstate.kernels._jit")
    if jit is None or jit.interpreted():
        return []
    return sorted(name for name, k in jit.ALL.items() if k.typed and k.signatures > 1)


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server, started where a test asks for one."""
    from s3server import Server

    found = Server()
    yield found
    found.close()


@pytest.fixture(scope="module")
def s3(s3_server):
    """The server, with this process as its client for a module."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_MAX_ATTEMPTS"):
            patch.delenv(name, raising=False)
        for name, value in s3_server.settings.items():
            patch.setenv(name, value)
        yield s3_server


@pytest.fixture
def impatient(monkeypatch):
    """A client of the S3 server that tries twice, not six times."""
    from tickstate.lake import remote

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    remote.client.cache_clear()
    yield
    remote.client.cache_clear()


@pytest.fixture
def plugins(monkeypatch):
    """A function: the default registry with these entry points (``plugins.Point``) beside the built-ins."""
    from tickstate import default_registry

    plain = importlib.metadata.entry_points

    def use(*points):
        def entry_points(**chosen):
            return list(points) if chosen.get("group") == "tickstate.features" else plain(**chosen)

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        default_registry.cache_clear()
        return default_registry()

    yield use
    monkeypatch.undo()
    default_registry.cache_clear()
    default_registry()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores: tests wait a fifth of the time. Not many, since they start some of their own."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # pytest-xdist reads it
    return min(8, 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    found = kernels_with_many_signatures()
    if hasattr(session.config, "workeroutput"):  # one of pytest-xdist's processes, which tells the first
        session.config.workeroutput["many"] = found
        return
    found += session.config.stash.get(_FOUND, [])
    if found:
        session.config.stash[_FOUND] = found
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """One of pytest-xdist's processes has ended."""
    node.config.stash.setdefault(_FOUND, []).extend(getattr(node, "workeroutput", {}).get("many", ()))


def pytest_terminal_summary(terminalreporter, config):
    for name in config.stash.get(_FOUND, ()):
        terminalreporter.write_line(f"FAILED: kernel {name} was compiled for more than one signature", red=True)


_FOUND = pytest.StashKey()
