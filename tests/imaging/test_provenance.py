"""The account of a result: in every format, the same bytes each time, found again, and nothing else taken for it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.files import ImageError, encode_image, find_provenance, write_image
from retinashift.imaging.provenance import LAYOUT, MAX_LINE, Provenance, parse_line

RECORD = Provenance(
    4, "c" * 64, 1, 7, "1" * 64, 3, 2, {"page": 2}, "cpu", {"retinashift": "0.1.0", "torch": "2.13.0+cpu"}, 71.25
)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "ppm"])
def test_every_format_holds_the_record_and_gives_it_back(retina, suffix):
    data = encode_image(f"a.{suffix}", retina, provenance=RECORD)
    assert find_provenance(data, "a") == RECORD
    assert data == encode_image(f"a.{suffix}", retina, provenance=RECORD)
    assert find_provenance(encode_image(f"a.{suffix}", retina), "a") is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "ppm"])
def test_other_readers_still_read_the_picture(tmp_path, retina, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encode_image(path, retina, provenance=RECORD))
    plain = tmp_path / f"b.{suffix}"
    write_image(plain, retina)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(plain)))


def test_the_line_names_no_file_and_fits_the_header_of_a_ppm():
    line = replace(RECORD, versions={str(n): "1.2.3+cu130" for n in range(20)}).line()
    assert len(line) < MAX_LINE
    assert line.isascii()
    assert set(json.loads(line)) & {"file", "source", "time", "date"} == set()


@pytest.mark.parametrize(
    "text",
    [
        *("", "a comment", "{", "[]", "{}", '{"retinashift": 99}', f'{{"retinashift": {LAYOUT}}}', "{" * 2000),
        *(f'{{"retinashift": {LAYOUT}, "other": 1}}', RECORD.line()[:-1], RECORD.line() + " " * MAX_LINE),
    ],
)
def test_other_text_is_no_record(text):
    assert parse_line(text) is None


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"versions": None},
            {"versions": {"torch": 2}},
            {"options": [1]},
            {"seed": "7"},
            {"seed": True},
            {"scale": "4"},
        ),
        *({"checkpoint": 1}, {"device": None}, {"consistency_db": "x"}, {"input_was_super_resolved": 1}),
    ],
    ids=str,
)
def test_values_of_another_type_are_no_record(change):
    assert parse_line(json.dumps({**json.loads(RECORD.line()), **change})) is None


def test_values_of_the_stated_types_are_a_record():
    changes = ({"consistency_db": 70}, {"consistency_db": None}, {"input_was_super_resolved": True})
    for change in (*changes, {"bicubic_share": 0.1}):
        assert parse_line(replace(RECORD, **change).line()) == replace(RECORD, **change)


def test_the_same_work_is_told_from_other_settings_and_other_inputs():
    assert RECORD.same_work(replace(RECORD, consistency_db=None, bicubic_share=0.1))
    for change in ({"seed": 8}, {"steps": 4}, {"input": "2"}, {"checkpoint": "d"}, {"options": {}}, {"device": "cuda"}):
        assert not RECORD.same_work(replace(RECORD, **change))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"text"])
def test_damaged_and_foreign_files_are_one_line(data):
    with pytest.raises(ImageError, match="^a: .*"):
        find_provenance(data, "a")
