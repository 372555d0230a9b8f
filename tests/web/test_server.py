"""A running server: what must be answered with which bytes, what must be refused, and that it stays reachable."""

from __future__ import annotations

import io
import json
import signal
import socket
import struct
import threading
import zipfile
import zlib
from urllib.parse import urlparse

import numpy as np
import pytest
import tifffile

from builders.dicom import photography, written
from builders.page import ask, ended, multipart, page_precision, png, start_page, stop_page, submit, upscale
from retinashift.batch.jobs import BatchOptions, Job
from retinashift.batch.upscale import upscale_files
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling
from retinashift.web import server

PATHS = [
    "/etc/passwd", "/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%252e%252e/etc/passwd", "/..\\..\\etc\\passwd",
    "//etc/passwd", "/file=/etc/passwd", "/api/sample/..%2f..%2fapi.py", "/api/sample/passwd", "/api.py", "/work.py",
    "/api/jobs/aaaaaaaaaaaaaaaaaaaaaaaa", "/api/jobs/aaaaaaaaaaaaaaaaaaaaaaaa/..%2f..%2fetc%2fpasswd",
    "/api/jobs/../../etc/passwd", "/redoc", "/static/../api.py",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_file_of_the_machine_is_served(page, path):
    status, body = ask(page, "GET", path)
    assert status in (404, 422)
    assert b"root:" not in body
    assert b"import" not in body


def test_the_page_its_modules_and_its_description_are_served_without_the_network(page):
    for path in ("/", "/app.js", "/viewer.js", "/style.css", "/docs/", "/docs/docs.js", "/openapi.json"):
        status, body = ask(page, "GET", path)
        assert (status, bool(body)) == (200, True), path
        assert b"https://" not in body.replace(b"https://json-schema.org", b"")


@pytest.mark.parametrize("kind", ["png", "dicom", "dicom16", "tiff16", "grey"])
def test_one_request_gives_the_bytes_of_the_command_line(page, retina, tmp_path, kind):
    small, deep = retina[:32, :40], retina[:32, :40].astype(np.uint16) * 257 + 3
    file = io.BytesIO()
    if kind == "png":
        file.write(png(24))
    elif "dicom" in kind:
        file.write(written(photography(small if kind == "dicom" else deep)))
    else:
        tifffile.imwrite(file, deep if kind == "tiff16" else small[..., 1])
    name = {"png": "eye.png", "dicom": "eye.dcm", "dicom16": "eye.dcm"}.get(kind, "eye.tif")
    status, result = upscale(page, file.getvalue(), name)
    assert status == 200, result
    source, target = tmp_path / name, tmp_path / "out" / name
    source.write_bytes(file.getvalue())
    sampling = Sampling(mode="faithful", precision=page_precision())
    (outcome,) = upscale_files(ResShiftPipeline.from_shipped(), [Job(source, target)], BatchOptions(sampling=sampling))
    assert outcome.error == ""
    assert result == target.read_bytes()


def test_the_raw_body_is_a_photograph_too(page):
    status, result = ask(page, "POST", "/api/upscale?name=eye.png&mode=realistic&seed=3", png(12))
    assert status == 200
    assert result == upscale(page, png(12), mode="realistic", seed=3)[1]
    assert result != upscale(page, png(12), mode="realistic", seed=4)[1]


def test_a_zip_holds_the_picture_its_record_and_the_uncertainty(page):
    status, packed = upscale(page, png(12), "глаз.png", accept="application/zip", uncertainty="true")
    assert status == 200
    archive = zipfile.ZipFile(io.BytesIO(packed))
    names = archive.namelist()
    assert names[0] == "глаз_x4.png"
    assert any(name.endswith(".json") for name in names)
    assert any(name.endswith(".tif") for name in names)
    record = json.loads(archive.read(next(name for name in names if name.endswith(".json"))))
    assert record["provenance"]["scale"] == 4


@pytest.mark.parametrize(("options", "reason"), [
    ({"mode": "pretty"}, "mode"), ({"seed": -1}, "seed"), ({"steps": 99}, "1 to 4"),
    ({"uncertainty": 7}, "uncertainty"), ({"strength": 2}, "strength"), ({"strength": 0.5}, "such as x4_restore"),
    ({"checkpoint": "/etc"}, "checkpoint"), ({"checkpoint": "../x4"}, "checkpoint"), ({"colour": "blue"}, "colour"),
])  # fmt: skip
def test_wrong_options_are_refused_by_name_and_without_a_traceback(page, options, reason):
    status, body = upscale(page, png(12), **options)
    assert status == 422
    assert reason in body.decode()
    assert b"Traceback" not in body


def test_large_requests_bombs_and_other_files_are_refused_in_one_line(page):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert upscale(page, bytes(3 * 2**20))[0] == 413
    status, body = upscale(page, b"\x89PNG\r\n\x1a\n" + chunk + png(8)[33:])
    assert status == 422
    assert b"above the limit of 1,000,000 pixels" in body
    assert upscale(page, b"<script>alert(1)</script>", "page.html")[0] == 422
    assert upscale(page, b"")[0] == 422


def test_jobs_are_followed_fetched_file_by_file_and_forgotten(page):
    (_, one), (_, bad), (status, two) = (
        submit(page, name, data, seed=1)
        for name, data in {"one.png": png(12), "bad.png": b"no picture", "two.png": png(16)}.items()
    )
    assert status == 202
    assert [ended(page, answer["id"])["state"] for answer in (one, bad, two)] == ["done", "failed", "done"]
    assert "bad.png" in ended(page, bad["id"])["text"]
    assert ask(page, "GET", f"/api/jobs/{one['id']}/result.png")[0] == 200
    assert ask(page, "GET", f"/api/jobs/{one['id']}/other.png")[0] == 404
    assert ask(page, "DELETE", f"/api/jobs/{one['id']}")[0] == 204
    assert ask(page, "GET", f"/api/jobs/{one['id']}")[0] == 404


def test_a_request_is_about_one_photograph(page):
    for fields in ([("file", "a.png", png(8)), ("file", "b.png", png(8))], [("reference", "a.png", png(8))], []):
        form, kind = multipart([*fields, ("seed", None, b"1")])
        status, answer = ask(page, "POST", "/api/jobs", form, Content_Type=kind)
        assert status in (400, 422)
        assert b"Traceback" not in answer


def test_a_reference_of_the_result_s_size_is_scored_and_another_is_not_resized(page):
    for side, found in ((48, "PSNR"), (47, "not resized")):
        form, kind = multipart([("file", "eye.png", png(12)), ("reference", "hr.png", png(side))])
        _, made = ask(page, "POST", "/api/jobs", form, Content_Type=kind)
        scores = ended(page, json.loads(made)["id"])["scores"]
        assert any(found in value for value in scores.values())


def test_twenty_requests_at_a_time_are_finished_or_refused_and_the_page_stays_up(page):
    answers: list[tuple[int, bytes]] = []
    threads = [threading.Thread(target=lambda: answers.append(upscale(page, png(16)))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert {status for status, _ in answers} <= {200, 503}
    assert any(status == 200 for status, _ in answers)
    assert ask(page, "GET", "/")[0] == 200


def test_half_open_connections_do_not_keep_others_out(page):
    parts = urlparse(page.address)
    held = []
    try:
        for _ in range(server.MAX_CONNECTIONS + 100):
            connection = socket.create_connection((parts.hostname, parts.port))
            connection.sendall(b"POST /api/upscale HTTP/1.1\r\nHost: ")
            held.append(connection)
        assert ask(page, "GET", "/")[0] == 200
        assert upscale(page, png(12))[0] == 200
    finally:
        for connection in held:
            connection.close()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_no_upload_is_on_disk_while_the_page_runs_or_after_it_ended(tmp_path, by):
    running = start_page(tmp_path, "--max-upload", "8")
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, noise)
    submit(running, "eye.tif", file.getvalue())
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    stop_page(running, by)
    assert kept == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_password_is_asked_for_where_one_is_set_and_proxies_in_the_environment_stop_nothing(tmp_path):
    proxies = dict.fromkeys(
        ("ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "https_proxy"), "socks5://127.0.0.1:9"
    )
    running = start_page(tmp_path, "--auth", "eye:secret", **proxies)
    try:
        assert ask(running, "GET", "/")[0] == 401
        assert ask(running, "GET", "/", Authorization="Basic ZXllOnNlY3JldA==")[0] == 200
    finally:
        stop_page(running)
