"""A result saved from Python says what made it; the pipeline introduces itself and calls back as diffusers does."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import retinashift
from retinashift.imaging.files import ImageError, find_provenance, read_image
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import shipped_names
from retinashift.inference.record import make_record
from retinashift.inference.settings import Sampling

SMALL = (slice(24), slice(20))


@pytest.mark.parametrize("output_type", ["np", "pil"])
def test_a_saved_result_has_the_pixels_and_the_record_of_the_command(small_pipeline, retina, tmp_path, output_type):
    generator = torch.Generator().manual_seed(7)
    pictures = [retina[SMALL], retina[SMALL][::-1]]
    result = small_pipeline(
        pictures, num_inference_steps=2, generator=generator, mode=None, output_type=output_type, precision="fp32"
    )
    result.save(tmp_path / "b.png", 1)
    written = read_image(tmp_path / "b.png")
    assert np.array_equal(written.pixels, np.asarray(result.images[1]))
    record = find_provenance((tmp_path / "b.png").read_bytes(), "b.png")
    expected = make_record(small_pipeline, Sampling(num_inference_steps=2, precision="fp32"), 7)
    assert (record.seed, record.steps, record.checkpoint) == (7, 2, expected.checkpoint)
    assert record.options == {**expected.options, "input": "pixels, not a file"}
    assert record.consistency_db == pytest.approx(result.consistency[1], abs=0.01)
    with pytest.raises(ImageError, match="exists already"):
        result.save(tmp_path / "b.png")
    other = small_pipeline(pictures[0], num_inference_steps=1)
    other.save(tmp_path / "a.png")
    assert find_provenance((tmp_path / "a.png").read_bytes(), "a.png").input != record.input


def test_a_result_of_floats_is_not_rounded_into_a_file(small_pipeline, retina, tmp_path):
    result = small_pipeline(retina[SMALL].astype(np.float32) / 255)
    with pytest.raises(ValueError, match="image 0 is float32; upscale a picture of 8 or 16 bit"):
        result.save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_the_pipeline_is_five_lines(small_pipeline):
    lines = repr(small_pipeline).splitlines()
    assert len(lines) == 5
    assert "LightNet" in lines[1]
    assert "kappa" in lines[3]


def test_diffusers_itself_opens_a_checkpoint(checkpoint, retina):
    pipe = DiffusionPipeline.from_pretrained(str(checkpoint))
    assert type(pipe) is retinashift.ResShiftPipeline
    assert pipe(Image.fromarray(retina[SMALL])).images[0].shape == (96, 80, 3)


PLAIN = """
import sys
{imports}
assert {loaded} == {{"torch", "diffusers"}} & set(sys.modules), "import retinashift loads neither"
from diffusers import DiffusionPipeline
print(type(DiffusionPipeline.from_pretrained(sys.argv[1])).__name__)
"""


@pytest.mark.parametrize(
    ("imports", "loaded"),
    [("import retinashift", "set()"), ("import diffusers, retinashift", '{"torch", "diffusers"}')],
)
def test_importing_the_package_is_enough_for_diffusers_whichever_comes_first(checkpoint, imports, loaded):
    words = [sys.executable, "-c", PLAIN.format(imports=imports, loaded=loaded), str(checkpoint)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ResShiftPipeline", done.stderr


def test_a_step_ends_with_diffusers_callback(small_pipeline, retina):
    seen = []

    def note(pipe, step, timestep, tensors):
        seen.append((pipe is small_pipeline, step, timestep, sorted(tensors)))
        return {}

    small_pipeline(
        retina[SMALL], num_inference_steps=2, callback_on_step_end=note,
        callback_on_step_end_tensor_inputs=["latents", "x0"],
    )  # fmt: skip
    timesteps = small_pipeline.scheduler.timesteps.tolist()
    assert seen == [(True, step, timesteps[step], ["latents", "x0"]) for step in range(2)]
    with pytest.raises(ValueError, match="read only"):
        small_pipeline(retina[SMALL], callback_on_step_end=lambda p, s, t, k: {"latents": k["latents"] + 1})
    with pytest.raises(ValueError, match="allowed are latents, x0"):
        small_pipeline(
            retina[SMALL], callback_on_step_end=note, callback_on_step_end_tensor_inputs=["prompt_embeds"]
        )  # fmt: skip


def test_an_unknown_bundled_name_lists_the_names():
    with pytest.raises(CheckpointError, match=", ".join(shipped_names())):
        retinashift.ResShiftPipeline.from_shipped("x8")
