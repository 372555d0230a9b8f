"""Addresses of a store: the same bytes as local files, one clear line for what goes wrong, and no credential."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.command import one_line_error, retinashift
from builders.dicom import photography, written
from builders.store import ENVIRONMENT, store
from retinashift.batch import places
from retinashift.batch.jobs import BatchOptions, Job, plan_jobs
from retinashift.batch.places import Remote, hide
from retinashift.batch.upscale import upscale_files
from retinashift.imaging.files import ImageError, write_image
from retinashift.inference.settings import Sampling

s3fs = pytest.importorskip("s3fs")
ODD = ("left eye.png", "Prüfung+1.png", "a%20b#1.png", "deep/er/[OD]*.png", "q?x=1&y.png", "IM0001")


@pytest.fixture(scope="module")
def server():
    with store() as running:
        places.open_system.cache_clear()  # of an environment without the store
        yield running
    places.open_system.cache_clear()


@pytest.fixture
def bucket(server, request, monkeypatch):
    """An empty bucket, its store, and clients that try twice."""
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    name = f"test-{abs(hash(request.node.name))}"
    server.backend.create_bucket(name, "us-east-1")
    server.fault = ""
    server.requests.clear()
    yield name
    server.fault = ""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "left/b.jpg", "left/c.tif", "d.bmp.png")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, rng.integers(0, 256, (6 + number, 9, 3), dtype=np.uint8))
    (tmp_path / "in" / "IM0001").write_bytes(written(photography(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))))
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_text("none")
    (tmp_path / "in" / ".hidden.png").write_text("none")
    return tmp_path / "in"


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_time(files: dict[str, bytes]) -> dict[str, object]:
    """Sidecars hold the time."""
    parsed = {name: json.loads(data) if name.endswith(".json") else data for name, data in files.items()}
    for values in parsed.values():
        if isinstance(values, dict):
            del values["written"]
    return parsed


def upload(server, bucket: str, folder: Path) -> None:
    for name, data in below(folder).items():
        server.put(bucket, f"in/{name}", data)


def test_results_at_addresses_are_those_of_local_files(
    server, bucket, folder, tmp_path, tiny_pipeline, caplog, monkeypatch
):
    upload(server, bucket, folder)
    options = BatchOptions(sampling=Sampling(output_uncertainty=True), sidecar=True, figure=True, workers=2)
    local = plan_jobs([folder], tmp_path / "out", options)
    remote = plan_jobs([f"s3://{bucket}/in/"], f"s3://{bucket}/out", options)
    assert "notes.txt: left out" in caplog.text
    pipeline = tiny_pipeline(head=True)
    outcomes = [list(upscale_files(pipeline, jobs, options)) for jobs in (local, remote)]
    assert [bool(o.error) for o in outcomes[0]] == [bool(o.error) for o in outcomes[1]]
    assert [o.record for o in outcomes[0]] == [o.record for o in outcomes[1]]
    results = {k.removeprefix("out/"): v for k, v in server.files(bucket).items() if k.startswith("out/")}
    assert len(results) == 26
    assert without_time(results) == without_time(below(tmp_path / "out"))
    resuming, read = replace(options, resume=True), Remote.read_bytes

    def read_inputs_alone(place):  # of a result its header is enough
        assert "/in/" in str(place)
        return read(place)

    monkeypatch.setattr(Remote, "read_bytes", read_inputs_alone)
    again = plan_jobs([f"s3://{bucket}/in"], f"s3://{bucket}/out", resuming)
    resumed = list(upscale_files(pipeline, again, resuming))
    assert [o.skipped for o in resumed] == [not o.error for o in resumed]
    with pytest.raises(ImageError, match="exists already; give --overwrite"):
        plan_jobs([f"s3://{bucket}/in"], f"s3://{bucket}/out")
    for credential in ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]:
        assert credential not in caplog.text + "".join(o.line() for o in outcomes[1])


def test_a_listing_has_every_key_of_all_its_pages(server, bucket):
    names = [f"{number:04d}.png" for number in range(2500)]
    for name in names:
        server.put(bucket, f"many/{name}", b"x")
    server.put(bucket, "many2/other.png", b"x")
    server.put(bucket, "many/", b"")  # what marks a folder
    jobs = plan_jobs([f"s3://{bucket}/many"], f"s3://{bucket}/out", BatchOptions(resume=True))
    assert [job.target.below for job in jobs] == names
    assert [path for _, path in server.requests].count(f"/{bucket}") == 3 + 1  # pages, and whether it is a folder


def test_odd_names_arrive_as_they_are(server, bucket, tmp_path, tiny_pipeline):
    eye = written(photography(np.zeros((6, 6, 3), np.uint8)))
    write_image(tmp_path / "eye.png", np.zeros((4, 4, 3), np.uint8))
    for name in ODD:
        server.put(bucket, f"in/{name}", eye if name == "IM0001" else (tmp_path / "eye.png").read_bytes())
    jobs = plan_jobs([f"s3://{bucket}/in"], f"s3://{bucket}/out")
    assert not [o.error for o in upscale_files(tiny_pipeline(), jobs) if o.error]
    expected = {f"out/{name}" if name != "IM0001" else "out/IM0001.dcm" for name in ODD}
    assert {key for key in server.files(bucket) if key.startswith("out/")} == expected
    assert len(plan_jobs([f"s3://{bucket}/in/*.png"], tmp_path / "out")) == 4
    assert len(plan_jobs([f"s3://{bucket}/in/**/*.png"], tmp_path / "out")) == 5
    (named,) = plan_jobs([f"s3://{bucket}/in/deep/er/[OD]*.png"], tmp_path / "out")
    assert named.target == tmp_path / "out" / "[OD]*.png"


@pytest.mark.parametrize("key", ["in/../../etc/x.png", "in//x.png", "in/./x.png"])
def test_a_key_that_would_leave_the_output_folder_is_refused(server, bucket, tmp_path, key):
    server.put(bucket, key, b"x")
    with pytest.raises(ImageError, match="cannot be the name of a file; rename it"):
        plan_jobs([f"s3://{bucket}/in"], tmp_path / "out")


def test_what_is_not_there_is_one_line(server, bucket, tmp_path):
    for address, words in (("s3://none-of-mine/x", "no such file, folder or bucket"), (f"s3://{bucket}/x", "no image")):
        done = retinashift("upscale", address, "-o", tmp_path / "out")
        assert words in one_line_error(done)
    assert not (tmp_path / "out").exists()


def test_wrong_credentials_are_one_line_that_does_not_name_them(server, bucket, tmp_path, monkeypatch):
    from moto.core import responses

    server.put(bucket, "in/a.png", b"x")
    monkeypatch.setattr(responses.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    line = one_line_error(retinashift("upscale", f"s3://{bucket}/in", "-o", tmp_path / "out"))
    assert "access denied" in line
    assert "check the credentials in the environment" in line
    assert "AKIA" not in line
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in line


FAULTS = {"read": "cannot be read", "write": "cannot be written", "full": "bucket is full"}


@pytest.mark.parametrize(("fault", "words"), FAULTS.items())
def test_a_store_that_fails_costs_the_photograph_and_leaves_nothing_half(
    server, bucket, folder, tiny_pipeline, fault, words
):
    upload(server, bucket, folder)
    roots = Remote(f"s3://{bucket}/in"), Remote(f"s3://{bucket}/out")
    jobs = [Job(*(root / name for root in roots)) for name in ("a.png", "left/c.tif")]
    server.fault = fault
    outcomes = list(upscale_files(tiny_pipeline(), jobs))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert words in outcome.error
        assert not outcome.internal
        assert "\n" not in outcome.error
    assert not [key for key in server.files(bucket) if key.startswith("out/")]
    server.fault = ""
    assert not [o.error for o in upscale_files(tiny_pipeline(), jobs) if o.error]


def test_an_http_address_is_read_and_its_signature_is_not_shown(server, bucket, folder, tmp_path, tiny_pipeline):
    server.put(bucket, "my eye.png", (folder / "a.png").read_bytes(), public=True)
    address = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}/my%20eye.png?signature=abcdef"
    (job,) = plan_jobs([address], tmp_path / "out")
    assert job.target == tmp_path / "out" / "my eye.png"
    (outcome,) = upscale_files(tiny_pipeline(), [job], BatchOptions(sidecar=True))
    assert outcome.error == ""
    assert "abcdef" not in outcome.line() + str(job.source) + repr(job)
    assert json.loads((tmp_path / "out" / "my eye.png.json").read_text())["source"] == "my eye.png"
    with pytest.raises((ImageError, OSError)) as error:
        plan_jobs([address.replace("eye", "ear")], tmp_path / "out")
    assert "abcdef" not in str(error.value)


def test_a_store_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x.png?secret=abcdef"
    line = one_line_error(retinashift("upscale", address, "-o", tmp_path / "out"))
    assert "cannot be looked up" in line or "no such file" in line
    assert "abcdef" not in line


def test_secrets_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=abcdef")
    text = "GET https://user:pw@host/x.png?X-Amz-Signature=12 failed for AKIAABCDEFGHIJKLMNOP with sv=1&sig=abcdef"
    assert hide(text) == "GET https://host/x.png failed for *** with ***"
