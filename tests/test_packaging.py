"""Properties of the package as a whole: what an import costs, what it contains, and that CI cannot pass by skipping."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest

import retinashift

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).resolve().parent.parent
PROJECT_TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((PROJECT / "src").rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("test_*.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(retinashift.__path__, "retinashift."))
HEAVY = {"torch", "diffusers", "skimage", "gradio", "pydicom", "matplotlib", "rich", "typer"}


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def heavy_after(statement: str) -> set[str]:
    return HEAVY & set(run_python(f"import sys\n{statement}\nprint(*sys.modules)").split())


def test_importing_the_package_loads_no_heavy_module():
    assert heavy_after("import retinashift") == set()


def test_importing_the_command_line_loads_no_network_code():
    assert heavy_after("import retinashift.cli") <= {"typer", "rich"}


def test_every_room_leaves_optional_packages_alone():
    imports = "\n".join(f"import {name}" for name in MODULES)
    assert heavy_after(imports) & {"gradio", "pydicom", "matplotlib"} == set()


def test_importing_and_using_public_names_opens_no_socket():
    code = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise AssertionError(f"{event} {arguments}")

sys.addaudithook(watch)
import retinashift
for name in retinashift.__all__:
    getattr(retinashift, name)
"""
    run_python(code)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_alone(name: str):
    assert import_module(name).__doc__, f"{name} does not say what it is for"


def test_public_names_are_the_classes_of_their_homes():
    for name in retinashift.__all__:
        value = getattr(retinashift, name)
        assert name == "__version__" or value.__module__ == retinashift._HOME[name]
    assert set(retinashift.__all__) <= set(dir(retinashift))


def test_an_unknown_name_is_an_attribute_error_that_lists_the_public_ones():
    with pytest.raises(AttributeError, match="ResShiftPipeline"):
        retinashift.Upscaler  # noqa: B018 - the look-up is the test


def test_the_version_is_that_of_pyproject_and_of_the_changelog():
    version = PROJECT_TABLE["version"]
    assert retinashift.__version__ == version
    assert f"## [{version}]" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT / "src").as_posix())
def test_no_source_file_is_longer_than_500_lines(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_no_test_module_imports_another():
    found = {
        f"{path.relative_to(PROJECT)}: {line}"
        for path in TESTS
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"(from|import) [\w.]*\btest_", line)
    }
    assert found == set(), "what several test modules need belongs in tests/builders"


def test_every_pin_is_at_least_its_floor():
    packaging = pytest.importorskip("packaging.requirements")
    floors = _requirements(packaging)
    pins = [
        packaging.Requirement(line.split("#")[0].strip())
        for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line.split("#")[0].strip()
    ]
    assert {_normal(pin.name) for pin in pins} == set(floors), "constraints.txt pins exactly the direct dependencies"
    for pin in pins:
        version = next(iter(pin.specifier)).version
        assert floors[_normal(pin.name)].specifier.contains(version), f"{pin} against {floors[_normal(pin.name)]}"


def _requirements(packaging) -> dict:
    """Direct dependencies, extras too, keyed by normalised name."""
    texts = [*PROJECT_TABLE["dependencies"], *chain(*PROJECT_TABLE["optional-dependencies"].values())]
    return {_normal(requirement.name): requirement for requirement in map(packaging.Requirement, texts)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(("ci", "exit_code", "outcome"), [("true", 1, "1 error"), ("", 0, "1 skipped")])
def test_without_the_shared_folder_ci_fails_and_a_laptop_skips(
    tmp_path: Path, ci: str, exit_code: int, outcome: str
):
    shutil.copy(PROJECT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_needs_it.py").write_text("def test_it(shared):\n    assert shared.is_dir()\n", encoding="utf-8")
    environment = os.environ | {"CI": ci, "RETINASHIFT_SHARED": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, outcome in done.stdout) == (exit_code, True), done.stdout + done.stderr
    assert "RETINASHIFT_SHARED" in done.stdout or not ci
