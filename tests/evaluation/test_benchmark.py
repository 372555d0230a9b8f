"""The benchmark scores what the metrics score, averages over seeds and photographs, and states its protocol."""

import json
import math
from functools import partial

import numpy as np
import pytest

from retinashift.evaluation.benchmark import Method, PrecomputedMethod, baseline, evaluate
from retinashift.evaluation.similarity import consistency, psnr_rgb, psnr_y, ssim_y
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple, enlarge
from retinashift.imaging.degradation.pipeline import Camera
from retinashift.imaging.files import find_images, read_image
from retinashift.imaging.fundus import field_of_view


def noisy_method(seen=None):
    def run(lr, seed):
        if seen is not None:
            seen.append(seed)
        sr = enlarge(lr, 4, "bicubic")
        return (sr + np.random.default_rng(seed).normal(0, 1 + seed, sr.shape)).clip(0, 255).astype(np.uint8)

    return Method("noisy", run, stochastic=True)


@pytest.fixture
def photographs(retina):
    return [("a", retina), ("b", retina[:100, :99])]


def test_a_row_holds_the_metrics_of_the_cropped_photograph(retina):
    hr = retina[:124, :124]
    lr = bicubic_pillow(hr, 4)
    sr, field = enlarge(lr, 4, "bicubic"), field_of_view(hr)
    (row,) = evaluate([("a", retina[:126, :127])], [baseline("bicubic", 4)], scale=4, seeds=[0]).rows
    scores = row.scores
    assert (scores["psnr_rgb"], scores["psnr_rgb_fov"]) == (psnr_rgb(sr, hr), psnr_rgb(sr, hr, field))
    assert (scores["psnr_y"], scores["psnr_y_fov"]) == (psnr_y(sr, hr), psnr_y(sr, hr, field))
    assert (scores["ssim_y"], scores["ssim_y_fov"]) == (ssim_y(sr, hr), ssim_y(sr, hr, field))
    assert scores["consistency"] == consistency(sr, lr, 4)


def test_stochastic_methods_run_for_every_seed_and_score_the_mean(retina):
    seen = []
    plain = Method("plain", lambda lr, seed: seen.append("plain") or enlarge(lr, 4, "nearest"))
    report = evaluate([("a", retina)], [noisy_method(seen), plain], scale=4, seeds=[3, 5])
    assert seen == [3, 5, "plain"]
    single = [evaluate([("a", retina)], [noisy_method()], scale=4, seeds=[seed]).rows[0].scores for seed in (3, 5)]
    assert report.rows[0].seeds == (3, 5)
    assert report.rows[1].seeds == ()
    assert report.rows[0].scores["psnr_rgb"] == pytest.approx(np.mean([scores["psnr_rgb"] for scores in single]))


def test_means_are_over_photographs_and_every_photograph_weighs_the_same(photographs):
    report = evaluate(photographs, [baseline("nearest", 4), baseline("lanczos", 4)], scale=4, seeds=[0])
    assert [(row.image, row.method) for row in report.rows] == [(i, m) for i in "ab" for m in ("nearest", "lanczos")]
    means = report.means()
    for name in ("nearest", "lanczos"):
        expected = np.mean([row.scores["ssim_y"] for row in report.rows if row.method == name])
        assert means[name]["ssim_y"] == pytest.approx(expected)
    assert means["lanczos"]["psnr_rgb"] > means["nearest"]["psnr_rgb"]


def test_seconds_are_those_of_the_method_and_precomputed_results_have_none(retina, monkeypatch):
    clock = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["wall"])
    monkeypatch.setattr("time.process_time", lambda: clock["cpu"])

    def slow(lr, seed):
        clock["wall"] += 5
        clock["cpu"] += 2
        return enlarge(lr, 4, "nearest")

    read = PrecomputedMethod("read", lambda image: retina)
    first, second = evaluate([("a", retina)], [Method("slow", slow), read], scale=4, seeds=[0]).rows
    assert (first.scores["wall_seconds"], first.scores["cpu_seconds"]) == (5, 2)
    assert second.scores["wall_seconds"] is second.scores["cpu_seconds"] is None


def test_the_file_is_strict_json_with_protocol_means_and_rows(photographs, tmp_path):
    hr = photographs[0][1]
    perfect = Method("perfect", lambda lr, seed: hr)
    report = evaluate(photographs[:1], [perfect, noisy_method()], scale=4, seeds=[0, 1])
    report.save(tmp_path / "scores.json")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads((tmp_path / "scores.json").read_text("utf-8"), parse_constant=refuse)
    assert read == report.to_json()
    assert read["protocol"]["scale"] == 4
    assert read["protocol"]["degradation"] == "bicubic-pillow"
    assert read["protocol"]["seeds"] == [0, 1]
    assert {"retinashift", "pillow", "scikit-image"} <= set(read["protocol"]["versions"])
    assert read["means"]["perfect"]["psnr_rgb"] == "inf"
    assert float(read["rows"][0]["psnr_rgb"]) == math.inf
    assert read["rows"][1]["seeds"] == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def test_the_table_has_a_heading_and_a_line_for_each_method(photographs):
    table = evaluate(photographs, [baseline("nearest", 4), noisy_method()], scale=4, seeds=[0]).table()
    assert [line[0] for line in table] == ["method", "nearest", "noisy"]
    assert {len(line) for line in table} == {len(table[0])}
    assert all(float(value) >= 0 for line in table[1:] for value in line[1:])


def test_photographs_are_read_one_by_one_and_counted_when_done(photographs):
    events = []

    def reader(name, pixels):
        return name, lambda: events.append(name) or pixels

    def counted():
        for number, photograph in enumerate(photographs, 1):
            yield reader(*photograph)
            events.append(number)

    evaluate(counted(), [baseline("nearest", 4)], scale=4, seeds=[0])
    assert events == ["a", 1, "b", 2]


def test_a_photograph_that_fails_is_left_out_for_all_methods_and_named(retina):
    def picky(lr, seed):
        if lr.shape[0] == 20:
            raise ValueError("too small for me")
        return enlarge(lr, 4, "nearest")

    def broken():
        raise OSError("cut short")

    shown, failures = [], {}
    photographs = [("broken", broken), ("small", retina[:80]), ("good", retina)]
    report = evaluate(
        photographs, [baseline("bicubic", 4), Method("picky", picky)], scale=4, seeds=[0],
        on_result=lambda result: shown.append(result.subject.image),
        on_failure=lambda name, error: failures.update({name: str(error)}),
    )  # fmt: skip
    assert failures == {"broken": "cut short", "small": "small, picky: too small for me"}
    assert report.failed == tuple(report.protocol()["failed"]) == ("broken", "small")
    assert [(row.image, row.method) for row in report.rows] == [("good", "bicubic"), ("good", "picky")]
    assert shown == ["good", "good"]


def test_the_camera_degradation_is_drawn_for_each_photograph_and_stated(photographs):
    settings, seen = Camera(), []
    watching = Method("watching", lambda lr, seed: seen.append(lr) or enlarge(lr, 4, "bicubic"))
    report = evaluate(photographs, [watching], scale=4, seeds=[0], degradation=settings)
    for number, (lr, (_, pixels)) in enumerate(zip(seen, photographs, strict=True)):
        hr = crop_to_multiple(pixels, 4)
        assert np.array_equal(lr, settings(hr, 4, np.random.default_rng((0, number))))
        assert not np.array_equal(lr, bicubic_pillow(hr, 4))
    protocol = report.protocol()
    assert (protocol["degradation"], protocol["degradation_ranges"]["noise"]) == ("camera", settings.noise)
    with pytest.raises(ValueError, match="b: .*the camera degradation needs"):
        evaluate([("b", photographs[0][1][..., 0])], [watching], scale=4, seeds=[0], degradation=settings)


def test_grey_photographs_are_scored(retina):
    rows = evaluate([("a", retina[..., 1])], [baseline("bicubic", 2)], scale=2, seeds=[0]).rows
    assert rows[0].scores["psnr_rgb"] > 30


def test_what_cannot_be_scored_is_named(retina):
    nearest = baseline("nearest", 4)
    for photographs, methods, seeds, reason in (
        ([], [nearest], [0], "no photograph"),
        ([("a", retina)], [], [0], "0 methods"),
        ([("a", retina)], [nearest], [], "0 seeds"),
        ([("a", retina)], [nearest, nearest], [0], "method is given twice"),
        ([("a", retina)], [nearest], [0, 0], "seed is given twice"),
        ([("a", retina)], [Method("same size", lambda lr, seed: lr)], [0], "a, same size: pictures of shapes"),
        ([("a", retina[:8])], [nearest], [0], "a, nearest: .*at least 11x11"),
        ([("a", retina[:3])], [nearest], [0], "a: .*at least 4x4"),
        ([("a", retina / 255)], [nearest], [0], "a: .*float64"),
    ):
        with pytest.raises(ValueError, match=reason):
            evaluate(photographs, methods, scale=4, seeds=seeds)


def test_subgroups_are_thirds_by_number_and_sets_by_folder(retina):
    levels = [0.5, 1.0, 0.6, 0.9, 0.7, 0.8]
    photographs = [
        (f"{'left' if level < 0.75 else 'right'}/{level}", (retina * level).astype(np.uint8)) for level in levels
    ]
    report = evaluate(photographs, [baseline("nearest", 4), baseline("bicubic", 4)], scale=4, seeds=[0], metrics=[])
    groups = report.subgroups()
    assert groups["brightness, lowest third"].images == ("left/0.5", "left/0.6")
    assert groups["brightness, highest third"].images == ("right/1.0", "right/0.9")
    assert groups["set, left"].images == ("left/0.5", "left/0.6", "left/0.7")
    left = [row for row in report.rows if row.method == "bicubic" and "left" in row.image]
    expected = np.mean([row.scores["psnr_rgb"] for row in left])
    plain = report.to_json()["subgroups"]["set, left"]
    assert plain["photographs"] == 3
    assert plain["intervals"]["bicubic"]["psnr_rgb"][0] == pytest.approx(expected)
    assert evaluate(photographs[:2], [baseline("nearest", 4)], scale=4, seeds=[0], metrics=[]).subgroups().keys() == {
        "set, left", "set, right",
    }  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize(
    ("pattern", "whole", "field"), [("drive/images/*.tif", 35.00, 37.24), ("stare/*.ppm", 36.44, 38.71)]
)
def test_bicubic_has_the_published_score_on_public_sets(shared, pattern, whole, field):
    """The field's scores were taken in the masks of the sets; ours is found in the photograph."""
    paths = [path for path, _ in find_images([shared / "data" / pattern])]
    assert len(paths) == 20
    photographs = [(path.name, partial(lambda path: read_image(path).pixels, path)) for path in paths]
    report = evaluate(photographs, [baseline("bicubic", 4)], scale=4, seeds=[0], metrics=[])
    mean = report.means()["bicubic"]
    assert mean["psnr_rgb"] == pytest.approx(whole, abs=0.005)
    assert mean["psnr_rgb_fov"] == pytest.approx(field, abs=0.15)
