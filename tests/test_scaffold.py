"""``features new``: what it writes installs, passes every check and its own tests, untouched."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import bronze
import pyarrow.parquet as pq
import pytest

import tickstate
from tickstate import FeatureError, default_registry
from tickstate.features import scaffold
from tickstate.features.templates import KINDS
from tickstate.testing import check_feature

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def imported(monkeypatch):
    """The module of a package that is not installed."""

    def load(folder, name):
        monkeypatch.syspath_prepend(str(folder / "src"))
        return importlib.import_module(f"{scaffold.module_name(name)}.{name}")

    before = set(sys.modules)
    yield load
    for name in set(sys.modules) - before:
        if name.startswith("tickstate_"):
            del sys.modules[name]


@every_kind
def test_a_new_feature_passes_every_check(kind, tmp_path, imported):
    name = f"new_{kind}"
    scaffold.write_package(name, kind, tmp_path / "package")
    module = imported(tmp_path / "package", name)
    [entry] = tomllib.loads((tmp_path / "package" / "pyproject.toml").read_text())["project"]["entry-points"].values()
    place, _, cls = entry[name].partition(":")
    assert place == module.__name__
    feature = getattr(module, cls)
    assert [r for r in check_feature(feature) if r.outcome == "failed"] == []
    waived = {r.check for r in check_feature(feature) if r.outcome == "waived"}
    assert waived == {"version_raised"} | ({"cold_start"} if kind == "bar" else set())
    alone = default_registry().extended([feature], "theirs")
    assert [e.package for e in alone.find(name)] == ["theirs"]


@every_kind
def test_its_own_test_by_hand(kind, tmp_path, imported, monkeypatch):
    """Without pip: the registry that compute asks is one with the feature in it."""
    name = f"own_{kind}"
    scaffold.write_package(name, kind, tmp_path)
    feature = getattr(imported(tmp_path, name), scaffold.class_name(name))
    registry = default_registry().extended([feature], "theirs")
    for module in ("graph", "barengine"):
        monkeypatch.setattr(f"tickstate.features.{module}.default_registry", lambda: registry)
    spec = importlib.util.spec_from_file_location(f"tests_of_{name}", tmp_path / "tests" / f"test_{name}.py")
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    tests.test_by_hand()
    tests.test_the_reference_by_hand()
    monkeypatch.setattr(tests, "EXPECTED", [*tests.EXPECTED[:-1], 12345.0])
    for test in (tests.test_by_hand, tests.test_the_reference_by_hand):
        with pytest.raises((AssertionError, TypeError)):
            test()


@every_kind
def test_it_is_read_in_five_minutes(kind, tmp_path):
    scaffold.write_package("short", kind, tmp_path)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        "README.md", "pyproject.toml", "src/tickstate_short/__init__.py", "src/tickstate_short/short.py",
        "tests/test_short.py",
    ]  # fmt: skip
    for path in files:
        text = (tmp_path / path).read_text()
        assert len(text.splitlines()) <= 75, path
        assert max(map(len, text.splitlines())) <= 120, path
        assert "$" not in text, path
        assert text.endswith("\n")
    assert "features check short" in (tmp_path / "README.md").read_text()


NAMES = {
    "My Feature": "'my_feature'", "MyFeature": "'my_feature'", "2fast": "'fast'", "a-b": "'a_b'", "a__b": "'a_b'",
    "lambda": "'lambda_feature'", "../x": "'x_feature'", "": "'feature'", "Fast2": "'fast2'", "x": "'x_feature'",
    "ofi": "taken by 'ofi' of package 'tickstate'", "mid_price": "taken by 'top_of_book'", "flow": "taken by",
    "row_id": "'row_id' is reserved",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_name_is_refused_with_a_better_one(name, tmp_path):
    with pytest.raises(FeatureError) as caught:
        scaffold.write_package(name, "row", tmp_path / "new")
    assert NAMES[name] in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_an_unknown_kind(tmp_path):
    with pytest.raises(FeatureError, match=r"--kind.*did you mean 'window'"):
        scaffold.write_package("fine", "windows", tmp_path / "new")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(FeatureError, match="there already"):
            scaffold.write_package("fine", "row", folder)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    scaffold.write_package("fine", "row", tmp_path / "empty")
    with pytest.raises(FeatureError, match="there already"):
        scaffold.write_package("fine", "row", tmp_path / "empty")


@pytest.mark.slow
def test_installed_it_is_listed_checked_and_tested(tmp_path):
    """As a user does: pip install, list, check, run, its own pytest, check --renew; then one of them is uninstalled."""
    site = tmp_path / "site"
    folders = {f"mine_{kind}": tmp_path / kind for kind in KINDS}
    for (name, folder), kind in zip(folders.items(), KINDS, strict=True):
        scaffold.write_package(name, kind, folder)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command, cwd=tmp_path):
        return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, cwd=cwd, timeout=300)

    features = ("-c", "from tickstate.runners.cli import main; main()")
    pip = run("-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(site),
              *map(str, folders.values()))  # fmt: skip
    assert pip.returncode == 0, pip.stderr
    listed = run(*features, "list").stdout
    for name in folders:
        assert any(line.split()[0] == name and scaffold.package_name(name) in line for line in listed.splitlines())
    tests = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(f / "tests") for f in folders.values()))
    assert tests.returncode == 0, tests.stdout
    assert tests.stdout.count(" passed") == 1
    checked = run(*features, "check", *folders)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("waived  version_raised") == len(folders)
    lake = bronze.tiny()
    chosen = [part for name in folders for part in ("--feature", name)]
    places = ("--bronze", str(lake / "bronze"), "--silver", str(tmp_path / "silver"), "--gold", str(tmp_path / "gold"))
    made = run(*features, "run", "--runner", "batch", "--workers", "1", *places, *chosen)
    assert made.stdout.startswith("8 partitions computed, 0 up to date, 0 failed"), made.stdout + made.stderr
    part = next((tmp_path / "silver/orderbook").rglob("part-0.parquet"))
    assert {"mine_row", "mine_step", "mine_window", "mine_joined"} <= set(pq.read_schema(part).names)
    renewed = run(*features, "check", *folders, "--renew")
    assert renewed.stdout.endswith(f"{len(folders)} records changed\n"), renewed.stderr
    assert "0 waived" in run(*features, "check", *folders, "--only", "version_raised").stdout
    source = Path(site, "tickstate_mine_row", "mine_row.py")
    source.write_text(source.read_text().replace("1e4 *", "2e4 *"))
    broken = run(*features, "check", "mine_row")
    assert broken.returncode == 1
    assert "failed  version_raised" in broken.stdout
    assert "features check mine_row --renew" in broken.stdout
    refused = run(*features, "check", "mine_row", "--renew")
    assert refused.returncode == 2
    assert "expected version 2; raise version in the class" in refused.stderr
    for place in (*site.glob("tickstate_mine_row*"), *site.glob("tickstate_mine_window*.dist-info")):
        shutil.rmtree(place)
    again = run(*features, "run", "--runner", "batch", *places, "--feature", "mine_step")
    assert again.returncode == 0, again.stderr
    assert "no feature makes mine_row, mine_window any more" in again.stderr
    assert again.stdout.startswith("nothing to do: all 8 partitions are up to date")


def test_every_type_that_a_new_feature_imports_is_public():
    for kind in KINDS.values():
        [line] = [x for x in kind.module.splitlines() if x.startswith("from tickstate import")]
        assert set(line.removeprefix("from tickstate import ").split(", ")) <= set(tickstate.__all__)
