"""What the documents name exists: files, tests, functions, commands, options, settings, checkpoints, links."""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from PIL import Image

from retinashift.cli import app
from retinashift.imaging.degradation.pipeline import DEGRADATIONS
from retinashift.training.settings import TrainConfig

PROJECT = Path(__file__).resolve().parent.parent
CARDS = sorted((PROJECT / "src" / "retinashift" / "weights").glob("*/README.md"))
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
DOCUMENTS = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md")), *CARDS]
SECURITY = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
CHECKPOINTS = {card.parent.name for card in CARDS}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
OUR_PATH = re.compile(r"\b(?:src/retinashift|configs|tests|benchmarks|docs|examples)/[\w./-]+\.(?:py|yaml|md|ipynb)")
OUR_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.relative_to(PROJECT).as_posix())
each_text = pytest.mark.parametrize("document", [*DOCUMENTS, *CONFIGS], ids=lambda p: p.relative_to(PROJECT).as_posix())


def shell_lines(document: Path) -> list[str]:
    """Commands of a document: lines of shell blocks, or of the comments of settings; continued lines are joined."""
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".yaml":
        blocks = ["\n".join(line[1:] for line in text.splitlines() if line.startswith("#"))]
    else:
        blocks = [body for language, body in FENCE.findall(text) if language in ("sh", "bash", "")]
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in joined.splitlines()]


def inline(document: Path) -> list[str]:
    """What a document sets in code type inside its sentences."""
    return INLINE.findall(FENCE.sub("", document.read_text(encoding="utf-8")))


@cache
def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands


def options(command: str) -> dict[str, Any]:
    return {name: p for p in commands()[command].params for name in (*p.opts, *p.secondary_opts)} | {"--help": None}


def choices(parameter: Any) -> set[str]:
    """The words that an option allows; empty if it takes others."""

    def words(annotation: Any) -> set[str]:
        inner = get_args(annotation)
        return {x for x in inner if isinstance(x, str)}.union(*map(words, inner))

    described = getattr(parameter, "type_descriptor", None)  # of typer 0.29; older ones have click's type
    return words(described.annotation) if described else set(getattr(getattr(parameter, "type", None), "choices", ()))


@each_document
def test_files_and_tests_that_a_document_names_exist(document: Path):
    text = document.read_text(encoding="utf-8")
    assert [path for path in OUR_PATH.findall(text) if not (PROJECT / path).is_file()] == []
    named = OUR_TEST.findall(text)
    assert [n for p, n in named if f"def {n}(" not in (PROJECT / p).read_text(encoding="utf-8")] == []


def test_every_promise_has_a_test():
    def rows(title: str) -> list[str]:
        table = document.partition(f"## {title}\n")[2].partition("\n## ")[0]
        return re.findall(r"^\| (.+?) \| .*tests/.+::test_.+ \|$", table, re.MULTILINE)

    document = (PROJECT / "docs" / "security-tests.md").read_text(encoding="utf-8")
    promises = SECURITY.split("## What it does not promise")[0]
    assert set(rows("SECURITY.md")) == set(re.findall(r"^- \*\*(.+?)\*\*", promises, re.MULTILINE))
    limits = (PROJECT / "docs" / "clinical-limits.md").read_text(encoding="utf-8")
    assert set(rows("Clinical limits")) >= set(re.findall(r"^\*\*(.+?)\*\*", limits, re.MULTILINE))
    assert rows("Reliability") == [str(number) for number in range(1, 52)]


@each_document
def test_links_lead_to_files_and_headings(document: Path):
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{target}: no such heading among {sorted(slugs)}"


@each_text
def test_commands_and_their_options_exist(document: Path):
    lines = shell_lines(document)
    if document.suffix == ".md":
        lines += [code for code in inline(document) if code.startswith("retinashift ")]
    for line in lines:
        found = re.search(r"(?:^|-m )retinashift ([a-z]+(?:-[a-z]+)*)\b(.*)", line)
        if found is None:
            continue
        command, rest = found[1], re.split(r"\s[|;&]", found[2].replace("...", ""))[0]
        assert command in commands(), line
        words, known = shlex.split(rest), options(command)
        for word, value in zip(words, [*words, ""][1:], strict=True):
            if not re.match(r"--?[a-zA-Z]", word):
                continue
            name, equals, given = word.partition("=")
            assert name in known, f"{line}: {command} has no {name}"
            value = given if equals else value
            if allowed := choices(known[name]):
                assert value in allowed, f"{line}: {name} {value}"


@each_document
def test_options_in_sentences_are_those_of_a_command_or_of_a_benchmark(document: Path):
    known = {name for command in commands() for name in options(command)} | {"--version", "--install-completion"}
    for script in (PROJECT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', script.read_text(encoding="utf-8")))
    known |= {"--num_processes", "--machine_rank", "--multi_gpu", "--nproc_per_node", "--logdir"}  # of other programs
    named = [match[0] for code in inline(document) for match in re.finditer(r"(?<!\S)--[a-z][\w-]*", code)]
    assert [name for name in named if name not in known] == []


@each_text
def test_benchmark_scripts_have_the_options_that_a_document_gives_them(document: Path):
    for line in shell_lines(document):
        found = re.search(r"python ((?:benchmarks|examples)/\w+\.py)(.*)", line)
        if found:
            text = (PROJECT / found[1]).read_text(encoding="utf-8")
            assert [name for name in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", found[2]) if f'"{name}"' not in text] == []


@each_text
def test_settings_exist(document: Path):
    """`section.key` in code type, and what --set changes."""
    config = TrainConfig.load(PROJECT / "configs" / "finetune_stare.yaml")
    named = [m for line in shell_lines(document) for m in re.findall(r"--set '?([a-z_.]+)=", line)]
    if document.suffix == ".md":
        sections = [name for name in vars(config) if not name.startswith("_")]
        key = re.compile(rf"(?<![\w/.])((?:{'|'.join(sections)})\.[a-z_.0-9]*[a-z_0-9])(?![\w/(*])")
        named += [m for code in inline(document) if not re.search(r"[/()]", code) for m in key.findall(code)]
    for path in named:
        if path.endswith((".py", ".yaml", ".csv", ".json")):
            continue
        assert is_setting(path.split("."), config), f"no setting {path}"


def is_setting(path: list[str], config: Any) -> bool:
    section, *names = path
    if section == "degradation":
        return not names or any(hasattr(kind, names[0]) for kind in DEGRADATIONS.values())
    if isinstance(config, dict):  # the arguments of a network
        return True
    return hasattr(config, section) and (not names or is_setting(names, getattr(config, section)))


@each_text
def test_bundled_checkpoints_that_a_document_names_come_with_the_package(document: Path):
    given = [m for line in shell_lines(document) for m in re.findall(r"(?:--checkpoint|-c|--init-from) (x4\w*)", line)]
    if document.suffix == ".md":
        given += [code for code in inline(document) if re.fullmatch(r"x4\w*", code)]
    assert [name for name in given if name not in CHECKPOINTS] == []


@pytest.mark.parametrize("name", ["how-it-works", "official-weights"])
def test_functions_beside_an_equation_or_a_test_exist(name: str):
    files = [path for folder in ("src", "tests") for path in (PROJECT / folder).rglob("*.py")]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    text = (PROJECT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("|") and "::test_" in row]
    assert rows
    for row in rows:
        for code in INLINE.findall(row.split("|")[-3]):
            part = code.split("(")[0].split(".")[-1]
            assert re.search(rf"(?:def|class) {part}\b", sources), f"{code} is defined nowhere"


def test_the_table_of_upscale_has_every_option():
    text = (PROJECT / "docs" / "upscaling.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`--[^|]+)\|", text, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"--[a-z-]+", row)}
    long = {p.secondary_opts[-1] if p.secondary_opts else p.opts[0] for p in commands()["upscale"].params}
    actual = {name for name in long if name.startswith("--")} - {"--out"}
    assert documented == actual


def test_the_change_log_is_short_and_sorted_under_the_usual_headings():
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = text[text.index("## [0.1.0]") :]
    assert len(section.splitlines()) <= 40
    assert sum(line.startswith("- ") for line in section.splitlines()) <= 40
    assert set(re.findall(r"^### (.+)$", section, re.MULTILINE)) <= {"Added", "Changed", "Fixed", "Removed", "Security"}


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_python_example_upscales_a_photograph(name: str, tmp_path: Path, monkeypatch, retina):
    (code,) = (body for language, body in FENCE.findall((PROJECT / name).read_text("utf-8")) if language == "python")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(retina[:24, :32]).save("photo.png")
    exec(compile(code, name, "exec"), {})
    with Image.open("photo_x4.png") as result:
        assert result.size == (128, 96)


def test_the_modules_of_the_reference_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (PROJECT / "docs" / "api").glob("*.md"))
    modules = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert modules
    for module in modules:
        members = re.search(rf"^::: {re.escape(module)}\n(?: .*\n)*?.*members: \[(.*)\]", text, re.MULTILINE)
        found = import_module(module)
        assert [name for name in (members[1].split(", ") if members else []) if not hasattr(found, name)] == []


def test_the_tables_that_contributing_names_exist():
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]{4,})`", text))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "src").rglob("*.py"))
    assert named >= {"DEGRADATIONS", "TRANSITIONS", "FORMATS", "METRICS"}
    assert [name for name in named if not re.search(rf"^{name}\b.*=", sources, re.MULTILINE)] == []
