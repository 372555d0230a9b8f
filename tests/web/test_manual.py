"""The manual's switch of versions works from the folder, without a server and without a message in the console."""

import importlib.util
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>{0}</title>
<div class="md-header__topic">RetinaShift</div>
<script id="__config" type="application/json">{{"base": "{1}"}}</script>
<script src="{1}/javascripts/versions.js"></script><script src="{1}/javascripts/version-switch.js"></script>"""


@pytest.fixture
def hook():
    spec = importlib.util.spec_from_file_location("versions", DOCS / "extensions" / "versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def manual(hook, tmp_path):
    """Three versions, of which the oldest has no page on training."""
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        site = tmp_path / version
        (site / "javascripts").mkdir(parents=True)
        (site / "api").mkdir()
        script = (DOCS / "javascripts" / "version-switch.js").read_text(encoding="utf-8")
        (site / "javascripts" / "version-switch.js").write_text(script, encoding="utf-8")
        (site / "index.html").write_text(PAGE.format(version, "."), encoding="utf-8")
        if version != "0.2.0":
            (site / "api" / "training.html").write_text(PAGE.format(f"{version} training", ".."), encoding="utf-8")
        hook.on_post_build(SimpleNamespace(site_dir=str(site)))
    return tmp_path


def test_a_version_is_built_into_a_folder_of_its_name(hook):
    config = SimpleNamespace(site_dir="build/docs", config_file_path=str(DOCS.parent / "mkdocs.yml"))
    assert Path(hook.on_config(config).site_dir).parent == Path("build/docs")


def test_the_first_page_opens_the_newest_version(manual):
    assert "url=0.10.0/index.html" in (manual / "index.html").read_text(encoding="utf-8")


@pytest.fixture(params=["folder", "server"])
def address(manual, request):
    """Of the manual as files, and behind a server."""
    if request.param == "folder":
        yield manual.as_uri()
        return
    handler = partial(SimpleHTTPRequestHandler, directory=str(manual))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_same_page_of_another_version_opens(browser, manual, address):
    tab, said = browser.new_page(), []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(f"{address}/0.9.0/api/training.html#place")
    select = tab.get_by_label("Version of the manual")
    assert select.locator("option").all_text_contents() == ["0.10.0", "0.9.0", "0.2.0"]
    assert select.input_value() == "0.9.0"
    select.select_option("0.10.0")
    tab.wait_for_url("**/0.10.0/api/training.html")
    tab.get_by_label("Version of the manual").select_option("0.2.0")  # which has no such page
    tab.wait_for_url("**/0.2.0/index.html")
    (manual / "0.2.0").rename(manual / "elsewhere")
    tab.goto(f"{address}/elsewhere/index.html")  # where the others lie is not known: no switch
    assert tab.get_by_label("Version of the manual").count() == 0
    assert said == []
    tab.close()
