"""Probes of a running page: what must be refused, what must be answered, and that it stays up."""

from __future__ import annotations

import io
import json
import struct
import threading
import zlib

import numpy as np
import pytest
import tifffile

from builders.dicom import photography, written
from builders.page import ask, call, enlarged, png, upload
from retinashift.batch.jobs import Job
from retinashift.batch.upscale import BatchOptions, upscale_files
from retinashift.imaging.files import decode_image
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling


@pytest.mark.parametrize(
    "path",
    ["/file=/etc/passwd", "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../../etc/passwd",
     "/gradio_api/file=..%2f..%2fetc%2fpasswd", "/gradio_api/file=%252fetc%252fpasswd",
     "/gradio_api/file=..\\..\\etc\\passwd",
     "/gradio_api/file=//etc/passwd", "/gradio_api/file=file:///etc/passwd", "/gradio_api/file=http://127.0.0.1:1/",
     "/gradio_api/file/etc/passwd", "/gradio_api/proxy=http://127.0.0.1:1/", "/static/../../../etc/passwd",
     "/assets/..%2f..%2fetc%2fpasswd", "/result/aaaaaaaaaaaaaaaaaaaaaaaa/..%2f..%2fetc%2fpasswd",
     "/monitoring", "/docs"],
)  # fmt: skip
def test_no_file_of_the_machine_is_served(page, path):
    status, body = ask(page, "GET", path)
    assert status in (403, 404)
    assert b"root:" not in body


def test_a_request_that_names_another_file_is_refused(page):
    for path in ("/etc/passwd", "http://127.0.0.1:1/eye.png", "../../etc/passwd"):
        assert call(page, path)[0] == 403


def test_uploads_above_the_limit_bombs_and_other_files_are_refused_and_not_kept(page):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert upload(page, bytes(3 * 2**20))[0] == 413
    status, message = upload(page, b"\x89PNG\r\n\x1a\n" + chunk + png(8)[33:])
    assert status == 415
    assert b"above the limit of 1,000,000 pixels" in message
    assert str(page.temporary).encode() not in message
    assert upload(page, b"<script>alert(1)</script>", "page.html")[0] == 415
    assert not [p for p in page.temporary.rglob("page.html") if p.is_file()]


def test_requests_of_other_sites_and_other_host_names_are_refused(page):
    assert ask(page, "GET", "/", Host="evil.example")[0] == 421
    assert ask(page, "POST", "/gradio_api/cancel", b"{}", Origin="http://evil.example")[0] == 403


def test_the_endpoint_answers_and_errors_carry_no_traceback(page):
    path = json.loads(upload(page, png(12))[1])[0]
    status, body = call(page, path)
    assert status == 200
    assert b"event: complete" in body
    assert b"result_sha256" in body
    _, body = call(page, path, steps=99)
    assert b"event: error" in body
    assert b"steps is 99; this checkpoint was trained with 4, so 1 to 4" in body
    assert b"Traceback" not in body
    assert b"event: error" in call(page, path, mode="pretty")[1]


def test_the_endpoint_takes_the_mode_and_its_steps_follow(page):
    for mode, steps, realistic in (("faithful", 1, False), ("realistic", 3, True)):
        made = enlarged(page, png(12), "eye.png", mode)[1]["provenance"]
        assert (made["steps"], "detail_gain" in made["options"]) == (steps, realistic)


@pytest.mark.parametrize("kind", ["dicom", "dicom16", "tiff16", "grey"])
def test_format_and_depth_come_back_with_the_bytes_of_the_command_line(page, retina, tmp_path, kind):
    small, deep = retina[:32, :40], retina[:32, :40].astype(np.uint16) * 257 + 3
    tiff = io.BytesIO()
    if kind == "tiff16":
        tifffile.imwrite(tiff, deep)
    elif kind == "grey":
        tifffile.imwrite(tiff, small[..., 1])
    data = written(photography(small if kind == "dicom" else deep)) if "dicom" in kind else tiff.getvalue()
    name = "eye.dcm" if "dicom" in kind else "eye.tif"
    result, sidecar = enlarged(page, data, name)
    source, target = tmp_path / name, tmp_path / "out" / name
    source.write_bytes(data)
    (outcome,) = upscale_files(
        ResShiftPipeline.from_shipped(), [Job(source, target)], BatchOptions(sampling=Sampling(num_inference_steps=1))
    )
    assert outcome.error == ""
    assert result == target.read_bytes()
    given, back = decode_image(data, name), decode_image(result, name)
    assert (back.format, back.pixels.dtype, back.channels) == (given.format, given.pixels.dtype, given.channels)
    assert back.pixels.shape[:2] == (128, 160)
    assert sidecar["provenance"]["checkpoint"] == outcome.record.checkpoint


def test_twenty_parallel_requests_are_finished_or_refused_and_the_page_stays_up(page):
    path = json.loads(upload(page, png(16))[1])[0]
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(call(page, path)[1])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    finished = sum(b"event: complete" in a for a in answers)
    assert len(answers) == 20
    assert finished >= 1
    assert all(b"event: complete" in a or b"event: error" in a for a in answers)
    assert ask(page, "GET", "/")[0] == 200
