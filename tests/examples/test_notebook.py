"""The notebook runs from top to bottom, on drawn photographs and for a moment."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

from builders.photographs import draw_fundus
from retinashift.data.photographs import STARE_LABELLED

NOTEBOOK = Path(__file__).parents[2] / "examples" / "finetune_stare.ipynb"


def test_the_notebook_fine_tunes_draws_and_saves(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "stare").mkdir()
    for number in STARE_LABELLED[7:13]:
        draw_fundus(int(number[2:]), 96).save(tmp_path / "stare" / f"{number}.ppm")
    run = tmp_path / "run"
    for name, value in (("STARE", tmp_path / "stare"), ("OUT", run), ("MINUTES", 0.002), ("START", checkpoint)):
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # what is committed holds no results
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("3 photographs to train on, 3 held out" in text for text in printed)
    assert any(text.startswith("bicubic ") for text in printed)
    assert (run / "result.png").is_file()
