"""The ONNX graph gives the pipeline's values in onnxruntime and in OpenVINO."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.inference.onnx_graph import export_onnx, faithful_graph
from retinashift.inference.pipeline import ResShiftPipeline

onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")


def by_onnxruntime(model: bytes):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    return lambda batch: session.run(None, {"input": batch})[0]


def by_openvino(model: bytes):
    core = openvino.Core()
    exact = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", exact)
    return lambda batch: compiled(batch)[0]


RUNTIMES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


def levels(run, photographs: np.ndarray) -> np.ndarray:
    """(B, h, w, 3) uint8 -> (B, 4h, 4w, 3) in levels of 255."""
    result = run(photographs.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    return np.rint(result.transpose(0, 2, 3, 1) * 255).astype(int)


@pytest.fixture(scope="module")
def shipped():
    return ResShiftPipeline.from_shipped()


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "fp16"])
def model(shipped, request):
    return faithful_graph(shipped, half=request.param).SerializeToString()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_values_are_those_of_the_pipeline_within_one_level_at_any_size(shipped, model, runtime, retina):
    run = RUNTIMES[runtime](model)
    for height, width in ((17, 17), (31, 64), (101, 18), (1, 5)):
        small = np.ascontiguousarray(retina[:height, :width])
        expected = shipped(small, mode="faithful", precision="fp32").images[0].astype(int)
        assert np.abs(levels(run, small[None])[0] - expected).max() <= 1


def test_the_second_output_is_the_uncertainty_map_also_where_bicubic_was_returned(shipped, retina):
    session = onnxruntime.InferenceSession(faithful_graph(shipped).SerializeToString())
    drawn = retina[:48, :48].copy()
    drawn[20:22, 4:44], drawn[4:44, 20:22] = (0, 255, 0), (0, 255, 0)
    soft = ndimage.gaussian_filter(retina[:48, :48], (2, 2, 0))  # softer than the inputs of the calibration
    for small in (retina[:31, :24], drawn, soft):
        expected = shipped(np.ascontiguousarray(small), output_uncertainty=True, precision="fp32").sigma[0]
        given = small.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        (found,) = session.run(["uncertainty"], {"input": given})
        assert found.shape == (1, 1, *expected.shape)
        assert np.allclose(found[0, 0], expected, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_photographs_of_a_batch_do_not_know_each_other(model, runtime, retina):
    run = RUNTIMES[runtime](model)
    pair = np.stack([retina[:20, :24], retina[40:60, 30:54]])
    together = levels(run, pair)
    assert all(np.abs(together[i] - levels(run, pair[i : i + 1])[0]).max() <= 1 for i in range(2))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_line_that_makes_the_network_burst_is_caught_in_the_graph_too(shipped, model, runtime, retina):
    drawn = retina[:48, :48].copy()
    drawn[20:22, 4:44], drawn[4:44, 20:22] = (0, 255, 0), (0, 255, 0)
    expected = shipped(drawn, mode="faithful", precision="fp32")
    assert np.abs(levels(RUNTIMES[runtime](model), drawn[None])[0] - expected.images[0].astype(int)).max() <= 1


def test_the_sharp_edge_of_an_aperture_stays_in_the_graph_too():
    """Its excess is 5.7 levels: above the threshold, below twice the threshold."""
    pipeline = ResShiftPipeline.from_shipped()
    pipeline.register_to_config(check_threshold=4.0)
    rows, columns = np.mgrid[:192, :192] - 95.5
    disc = np.where((rows**2 + columns**2 < 72**2)[..., None], (160, 80, 30), 0).astype(np.uint8)
    small = bicubic_pillow(disc, 4)
    expected = pipeline(small, precision="fp32")
    assert expected.bicubic_share == [0.0]
    found = levels(by_onnxruntime(faithful_graph(pipeline).SerializeToString()), small[None])[0]
    assert np.abs(found - expected.images[0].astype(int)).max() <= 1


def test_the_file_says_what_it_is(shipped, tmp_path):
    export_onnx(shipped, tmp_path / "x4.onnx", half=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "x4.onnx"))
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["scale"] == "4"
    assert "research use" in facts["use"]
    assert len(facts["checkpoint"]) == 64
    (given,), (made, mapped) = session.get_inputs(), session.get_outputs()
    assert (given.name, made.name, given.type) == ("input", "output", "tensor(float)")
    assert mapped.name == "uncertainty"
    with pytest.raises(ValueError, match="exists already"):
        export_onnx(shipped, tmp_path / "x4.onnx")


def test_a_student_without_a_faithful_mode_is_refused():
    with pytest.raises(ValueError, match="faithful mode"):
        faithful_graph(ResShiftPipeline.from_shipped("x4_one_step"))


def test_the_manual_s_ten_lines_need_no_torch(shipped, tmp_path, retina):
    text = (Path(__file__).parents[2] / "docs" / "app.md").read_text(encoding="utf-8")
    program = text.rpartition("```python\n")[2].partition("```")[0]
    export_onnx(shipped, tmp_path / "x4.onnx")
    Image.fromarray(retina[:20, :24]).save(tmp_path / "eye.png")
    check = f"import sys\nsys.modules['torch'] = None\n{program}\nimport json; print(json.dumps(pixels.shape))"
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [80, 96, 3]
