"""Results are had by their token only, by name only, and go when the page, its owner or their time goes."""

import io
import threading
import zipfile

import pytest

from retinashift.web.shelf import MAX_JOBS, Shelf


@pytest.fixture
def shelf(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return Shelf(tmp_path / "root")


def finished(shelf, session="me", names=("eye.png",)):
    token, folder = shelf.new(session)
    photos = []
    for number, name in enumerate(names):
        (folder / str(number)).mkdir()
        maps = [f"{name}.uncertainty.tif"] if number == 0 else []
        for file in (name, f"{name}.json", *maps, "input.png", "unlisted.png"):
            (folder / str(number) / file).write_bytes(f"{number} {file}".encode())
        photos.append({"name": name, "number": number, "saved": name, "maps": maps, "layers": ["input"]})
    shelf.finish(token, [*photos, {"name": "bad.png", "error": "broken"}])
    return token


def test_a_known_file_of_a_known_job_is_found_and_nothing_else(shelf):
    token = finished(shelf)
    assert shelf.find(token, "0-eye.png") == b"0 eye.png"
    assert shelf.find(token, "0-eye.png.json") == b"0 eye.png.json"
    assert shelf.find(token, "0-eye.png.uncertainty.tif") == b"0 eye.png.uncertainty.tif"
    assert shelf.find(token, "0-input.png") == b"0 input.png"
    for name in (
        "0-unlisted.png",
        "1-eye.png",
        "0-../../../../secret.txt",
        "-eye.png",
        "0-",
        "",
        "0-.",
        "../0-eye.png",
    ):
        assert shelf.find(token, name) is None
    for other in ("", ".", "..", token[:-1], token.swapcase()):
        assert shelf.find(other, "0-eye.png") is None
        assert shelf.find(other, "all.zip") is None
        assert shelf.photo(other, "0") is None


def test_an_unfinished_job_is_not_found(shelf):
    token, folder = shelf.new("me")
    (folder / "0").mkdir()
    (folder / "0" / "eye.png").write_bytes(b"half")
    assert shelf.find(token, "0-eye.png") is None
    assert shelf.find(token, "all.zip") is None


@pytest.mark.parametrize(
    ("names", "packed"),
    [(("eye.png",), ["eye.png", "eye.png.json", "eye.png.uncertainty.tif"]),
     (("eye.png", "eye.png"),
      ["1_eye.png", "1_eye.png.json", "1_eye.png.uncertainty.tif", "2_eye.png", "2_eye.png.json"])],
)  # fmt: skip
def test_the_zip_has_results_sidecars_and_maps_and_keeps_equal_names_apart(shelf, names, packed):
    with zipfile.ZipFile(io.BytesIO(shelf.find(finished(shelf, names=names), "all.zip"))) as archive:
        assert archive.namelist() == packed
        for name in packed:
            number, _, file = name.rpartition("_")
            assert archive.read(name) == f"{int(number or 1) - 1} {file}".encode()


def test_what_a_closed_page_made_goes_and_that_of_others_stays(shelf):
    mine, yours = finished(shelf, "me"), finished(shelf, "you")
    shelf.drop_session("me")
    assert shelf.find(mine, "0-eye.png") is None
    assert shelf.find(yours, "0-eye.png") is not None
    assert [folder.name for folder in shelf.jobs.iterdir()] == [yours]


def test_the_oldest_give_way(shelf):
    tokens = [finished(shelf) for _ in range(MAX_JOBS + 2)]
    assert [shelf.find(token, "0-eye.png") is None for token in tokens] == [True] * 2 + [False] * MAX_JOBS


def test_bytes_on_disk_are_counted_and_nothing_is_left_at_the_end_though_somebody_writes(shelf):
    before = shelf.stored()
    (shelf.uploads / "x").write_bytes(bytes(1000))
    assert shelf.stored() == before + 1000
    stop = threading.Event()

    def write():
        while not stop.is_set():
            try:
                (shelf.jobs / "late").mkdir(exist_ok=True)
                (shelf.jobs / "late" / "file").write_bytes(b"x")
            except OSError:
                pass

    thread = threading.Thread(target=write)
    thread.start()
    shelf.close()
    stop.set()
    thread.join()
    assert not shelf.root.exists()


def test_what_gradio_may_serve_lies_among_the_uploads_under_a_name_that_cannot_be_guessed(shelf, tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    moved = [shelf.for_gradio(tmp_path / name) for name in ("a.png", "b.png")]
    assert [file.read_bytes() for file in moved] == [b"a", b"b"]
    assert len({file.parent for file in moved}) == 2
    assert all(len(file.parent.name) >= 32 and file.is_relative_to(shelf.uploads) for file in moved)
