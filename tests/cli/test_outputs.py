"""Files to write are refused before the work, not after it."""

import pytest

from builders.command import retinashift
from retinashift.cli.shared import check_outputs
from retinashift.cli.upscaling import check_log


def test_files_that_could_not_be_written_are_refused(tmp_path):
    (tmp_path / "there.json").write_text("mine")
    with pytest.raises(FileExistsError, match="give --overwrite"):
        check_outputs(tmp_path / "there.json", overwrite=False)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_outputs(tmp_path / "no" / "x.json", overwrite=True)
    with pytest.raises(ValueError, match="is a folder"):
        check_outputs(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="given for two files"):
        check_outputs(tmp_path / "x", None, tmp_path / "x", overwrite=True)
    with pytest.raises(ValueError, match="must end in .png"):
        check_outputs(tmp_path / "x.txt", overwrite=True, suffix=".png")
    check_outputs(None, tmp_path / "there.json", tmp_path / "x.PNG", overwrite=True)


def test_a_log_is_a_new_file_or_one_of_json_lines(tmp_path):
    (tmp_path / "log").write_text('{"status": "written"}\n')
    (tmp_path / "empty").touch()
    (tmp_path / "eye.png").write_bytes(b"\x89PNG")
    for path in (None, tmp_path / "log", tmp_path / "empty", tmp_path / "new"):
        check_log(path)
    with pytest.raises(ValueError, match="not a log of JSON lines"):
        check_log(tmp_path / "eye.png")
    with pytest.raises(ValueError, match="is a folder"):
        check_log(tmp_path)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("evaluate nothing --json {0}/r --csv {0}/r", "given for two files"),
        ("evaluate nothing --seeds 0,-1", "--seeds is '0,-1'"),
        ("coverage nothing --json {0}/no/x.json", "does not exist"),
        ("coverage nothing --plot {0}/curve.txt", "must end in .png"),
        ("calibrate nothing -c x4 --overwrite", "x4 is no checkpoint folder"),
        ("degradations -o {0}/sheet.txt", "must end in .png"),
    ],
)
def test_commands_look_at_their_outputs_first(tmp_path, command, words):
    done = retinashift(*command.format(tmp_path).split())
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["upscale {0}/a.png -o {1}", "demo -o {1}", "coverage nothing --json {1}"])
@pytest.mark.parametrize("out", ["sftp://bucket/x", "-", "https://example.org/x"])
def test_an_output_that_is_no_local_path_is_refused_and_makes_no_folder(tmp_path, monkeypatch, command, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    done = retinashift(*command.format(tmp_path, out).split())
    assert done.returncode == 1
    assert "local" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
