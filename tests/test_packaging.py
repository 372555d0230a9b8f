"""Properties of the package as a whole: what an import costs, what it contains, and that CI cannot pass by skipping."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest

import retinashift
from builders.shared import shared_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).resolve().parent.parent
PROJECT_TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((PROJECT / "src").rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("test_*.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(retinashift.__path__, "retinashift."))
OF_FASTAPI = ("web.api", "web.server")
HEAVY = {"torch", "diffusers", "skimage", "fastapi", "pydicom", "matplotlib", "rich", "typer"}


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


def test_importing_every_module_loads_no_optional_package_and_opens_no_socket():
    code = f"""
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise AssertionError(f"{{event}} {{arguments}}")

sys.addaudithook(watch)
import retinashift
for name in retinashift.__all__:
    getattr(retinashift, name)
for name in {[name for name in MODULES if not name.endswith(OF_FASTAPI)]}:
    __import__(name)
"""
    assert heavy_after(code) & {"fastapi", "pydicom", "matplotlib"} == set()


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


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_the_shared_folder_ci_fails_and_a_laptop_skips(tmp_path: Path, monkeypatch, ci: str, outcome: type):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("RETINASHIFT_SHARED", str(tmp_path / "nowhere"))
    with pytest.raises(outcome, match="nowhere .set RETINASHIFT_SHARED"):
        shared_folder()


def test_tests_that_use_the_shared_folder_carry_its_marker(request):
    for item in request.session.items:
        assert ("shared" in getattr(item, "fixturenames", ())) == (item.get_closest_marker("shared") is not None), item
