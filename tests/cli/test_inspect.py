"""`inspect` tells of each file what it can, and shows the terminal nothing but text."""

import json
from dataclasses import replace

from builders.command import retinashift
from retinashift.imaging.files import encode_image
from retinashift.imaging.provenance import Provenance

RECORD = Provenance(4, "c" * 64, 1, 7, "1" * 64)


def test_a_file_that_cannot_be_read_keeps_nothing_from_the_others(tmp_path, retina):
    good, broken, last = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    good.write_bytes(encode_image(good, retina, provenance=RECORD))
    broken.write_bytes(b"GIF89a rubbish")
    last.write_bytes(encode_image(last, retina, provenance=replace(RECORD, seed=8)))
    told = retinashift("inspect", good, broken, last)
    assert told.returncode == 1
    assert told.stdout.count("Super-resolved") == 2
    assert [line for line in told.stderr.splitlines() if "b.png" in line and "GIF is not read" in line]
    assert "b.png" not in told.stdout
    assert len(retinashift("inspect", "--json", good, broken, last).stdout.splitlines()) == 2


def test_a_record_does_not_steer_the_terminal(tmp_path, retina):
    path = tmp_path / "a.png"
    hostile = replace(
        RECORD, device="cpu\x1b[2J\x1b]0;owned\x07", versions={"torch\x1b[31m": "2\r\n"}, options={"a\x9b": 1}
    )
    path.write_bytes(encode_image(path, retina, provenance=hostile))
    told = retinashift("inspect", path)
    assert told.returncode == 0
    assert not [c for c in told.stdout if not c.isprintable() and c != "\n"]
    assert "cpu\\x1b[2J" in told.stdout
    assert json.loads(retinashift("inspect", "--json", path).stdout)["provenance"]["device"] == hostile.device


def test_a_record_of_wrong_types_is_no_record(tmp_path, retina):
    for change in ({"versions": None}, {"options": [1]}):
        path = tmp_path / "a.ppm"
        line = json.dumps({**json.loads(RECORD.line()), **change})
        path.write_bytes(f"P6\n# {line}\n128 128\n255\n".encode() + retina.tobytes())
        told = retinashift("inspect", path)
        assert told.returncode == 1
        assert "no provenance record" in told.stdout
        assert "Traceback" not in told.stderr
