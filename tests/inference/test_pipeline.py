"""ResShiftPipeline: same seed, same image; forms and depths are kept; bad checkpoints are refused."""

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from PIL import Image

from retinashift.diffusion.sampling import noise_seeds
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.degradation.bicubic import enlarge
from retinashift.inference.chain import Chain, StepWatch
from retinashift.inference.gate import CheckpointError
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.inference.settings import Sampling
from retinashift.models.codec import PixelCodec
from retinashift.models.swin_unet import SwinUNet


def picture(seed: int = 0, shape: tuple[int, ...] = (10, 13, 3), dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(pipe: ResShiftPipeline, *given, **settings) -> list[dict]:
    """What the callback is called with, step by step."""
    seen = []
    pipe(
        *given, **settings, callback_on_step_end_tensor_inputs=("latents", "x0"),
        callback_on_step_end=lambda pipe, step, t, tensors: seen.append({"step": step, **tensors}),
    )  # fmt: skip
    return seen


def test_output_is_exactly_scale_times_the_input_for_odd_sizes(tiny_pipeline):
    pipe = tiny_pipeline()
    for height, width in ((1, 1), (3, 17), (11, 5), (1, 199), (197, 2), (101, 103)):
        assert pipe(picture(shape=(height, width, 3))).images[0].shape == (4 * height, 4 * width, 3)


def test_same_seed_same_image_and_another_seed_another_image(tiny_pipeline):
    pipe, lr = tiny_pipeline(), picture()
    first, again, other = (pipe(lr, 4, seeded(seed)).images[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_image_is_the_same_alone_and_in_any_batch(tiny_pipeline):
    pipe, a, b = tiny_pipeline(), picture(1), picture(2, (7, 9, 3))
    alone = pipe(a, 4, seeded(0)).images[0]
    assert np.array_equal(pipe([b, a], 4, seeded(0)).images[1], alone)
    assert np.array_equal(pipe([b, a], 4, [seeded(9), seeded(0)]).images[1], alone)


def test_the_global_generator_is_neither_read_nor_moved(tiny_pipeline):
    pipe, lr = tiny_pipeline(), picture()
    before = torch.random.get_rng_state()
    first = pipe(lr, 4).images[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    assert np.array_equal(pipe(lr, 4).images[0], first)


@pytest.mark.parametrize("steps", [1, 4])
def test_an_untrained_checkpoint_returns_bicubic_in_expectation(steps, tiny_pipeline):
    """The chain of a network without opinion ends at y0: mean over samples within the noise of bicubic."""
    pipe, lr = tiny_pipeline(trained=False), picture() // 4 + 90  # no overshoot, which Pillow clips between its passes
    ours = pipe(lr, steps, ensemble_size=8 if steps > 1 else 1).images[0].astype(int)
    assert np.abs(ours - enlarge(lr, 4, "bicubic")).max() <= 1


def test_an_ensemble_is_the_mean_of_its_members(tiny_pipeline):
    pipe = tiny_pipeline()
    lr = torch.rand(3, 6, 6, generator=seeded(0))
    members = states(pipe, lr, 2, ensemble_size=3)[1::2]
    mean = torch.stack([pipe.image_codec.decode(m["x0"]) for m in members]).mean(0)[0] / 2 + 0.5
    assert torch.allclose(pipe(lr, 2, ensemble_size=3, output_type="pt").images[0], mean.clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("kind", ["streaming", "whole"])
def test_the_faithful_mode_is_a_function_of_the_photograph_and_leaves_generators_alone(
    kind, tiny_pipeline, learned_pipeline
):
    pipe = tiny_pipeline() if kind == "streaming" else learned_pipeline
    generator = seeded(5)
    results = [pipe(picture(), mode="faithful", generator=g).images[0] for g in (None, seeded(1), generator)]
    assert all(np.array_equal(result, results[0]) for result in results)
    assert torch.equal(generator.get_state(), seeded(5).get_state())
    assert len(states(pipe, picture(), mode="faithful")) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_depth_and_channels_of_the_input_are_kept(dtype, shape, tiny_pipeline):
    out = tiny_pipeline()(picture(shape=shape, dtype=dtype)).images[0]
    assert out.dtype == dtype
    assert out.shape == (24, 20, *shape[2:])


def test_sixteen_bit_values_are_not_squeezed_through_eight(tiny_pipeline):
    ramp = np.linspace(20000, 21000, 32 * 32).astype(np.uint16).reshape(32, 32)
    out = tiny_pipeline(trained=False)(ramp, 4, ensemble_size=4).images[0]
    assert len(np.unique(out)) > 500


def test_pil_float_and_tensor_forms_agree_with_the_array(tiny_pipeline):
    pipe, lr = tiny_pipeline(), picture()
    reference = pipe(lr).images[0]
    assert np.array_equal(pipe(Image.fromarray(lr), output_type="pil").images[0], reference)
    as_float = pipe(lr.astype(np.float32) / 255).images[0]
    as_tensor = pipe(torch.from_numpy(lr).permute(2, 0, 1) / 255, output_type="pt").images[0]
    assert np.array_equal((as_float * 255).round().astype(np.uint8), reference)
    assert np.allclose(as_tensor.permute(1, 2, 0).numpy(), as_float, atol=1e-6)


@pytest.mark.parametrize("value", [0, 255])
def test_extremes_give_no_nan_in_half_precision(value, tiny_pipeline):
    pipe = tiny_pipeline().to(dtype=torch.bfloat16)
    out = pipe(np.full((8, 8, 3), value / 255, np.float32), 4).images[0]
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.full((4, 4, 3), 2.0, np.float32), r"must lie in \[0, 1\]"),
        (np.full((4, 4, 3), np.nan, np.float32), r"must lie in \[0, 1\]"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (torch.zeros(1, 4, 4), "tensor is"),
        ("photo.png", "image is 'photo.png'.*open a file by PIL.Image.open"),
        ([np.zeros((4, 4, 3), np.uint8), None], "image is None"),
    ],
)
def test_a_picture_that_cannot_be_used_is_refused_with_what_it_is(bad, message, tiny_pipeline):
    with pytest.raises(ValueError, match=message):
        tiny_pipeline()(bad)


def test_arguments_outside_their_range_are_named(tiny_pipeline):
    pipe, lr = tiny_pipeline(), picture()
    with pytest.raises(ValueError, match="num_inference_steps is 5"):
        pipe(lr, 5)
    with pytest.raises(ValueError, match="ensemble_size is 0"):
        pipe(lr, ensemble_size=0)
    with pytest.raises(ValueError, match="output_type is 'jpg'"):
        pipe(lr, output_type="jpg")
    with pytest.raises(ValueError, match="2 generators were given for 1 images"):
        pipe(lr, 4, generator=(seeded(0), seeded(1)))
    with pytest.raises(ValueError, match="back_projections is -1"):
        pipe(lr, back_projections=-1)
    with pytest.raises(ValueError, match="mode realistic with 1 step"):
        pipe(lr, 1, mode="realistic")


def test_the_callback_sees_every_step_of_every_sample_whole(tiny_pipeline):
    seen = states(tiny_pipeline(), [picture()], 4, ensemble_size=2)
    assert [each["step"] for each in seen] == [0, 1, 2, 3] * 2
    assert {each["latents"].shape for each in seen} == {each["x0"].shape for each in seen} == {(1, 48, 10, 13)}


def test_a_saved_checkpoint_loads_to_the_same_images(tmp_path, tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path)
    again = ResShiftPipeline.from_pretrained(tmp_path)
    assert np.array_equal(again(picture(), 4).images[0], pipe(picture(), 4).images[0])
    assert again.image_codec == PixelCodec(4)


@pytest.fixture
def learned_pipeline():
    """A Swin denoiser and a learned codec."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = SwinUNet(
            image_size=16, in_channels=3, out_channels=3, model_channels=32, channel_mult=[1, 1],
            num_res_blocks=[1, 1], attention_resolutions=[16, 8], num_head_channels=16, swin_embed_dim=32,
            window_size=8, mlp_ratio=2, lq_size=16,
        )  # fmt: skip
        codec = VQModel(
            block_out_channels=(16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=3, num_vq_embeddings=32, norm_num_groups=8,
        )  # fmt: skip
    return ResShiftPipeline(denoiser.eval(), ResShiftScheduler(4), codec.eval(), upsampling="torch", default_steps=4)


def test_a_swin_denoiser_with_a_learned_codec_runs_saves_and_loads(tmp_path, learned_pipeline):
    first = learned_pipeline(picture()).images[0]
    assert first.shape == (40, 52, 3)
    learned_pipeline.save_pretrained(tmp_path)
    assert np.array_equal(ResShiftPipeline.from_pretrained(tmp_path)(picture()).images[0], first)


def test_an_ensemble_encodes_a_picture_once_and_each_sample_is_that_of_an_encoding_of_its_own(learned_pipeline):
    pipe, calls = learned_pipeline, []
    pipe.codec.encoder.register_forward_hook(lambda *_: calls.append(1))
    once = pipe([picture(), picture() // 2], 2, ensemble_size=3, output_type="pt").images
    assert len(calls) == 2
    lr = torch.from_numpy(picture()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        parts, seed = (pipe.denoiser, pipe.scheduler, pipe.image_codec, lr, 4, "torch"), noise_seeds(None, 1)[0]
        each = [torch.cat(list(Chain(*parts, seed).bands(m, 2**30, StepWatch())), dim=-2) for m in range(3)]
    assert len(calls) == 2 + 3
    assert torch.allclose(once[0], (torch.cat(each).mean(0) / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_a_network_that_runs_on_pixels_takes_no_learned_codec(tiny_pipeline, learned_pipeline):
    with pytest.raises(ValueError, match="LightNet runs on pixels; leave out the codec VQModel"):
        ResShiftPipeline(tiny_pipeline().denoiser, ResShiftScheduler(4), learned_pipeline.codec)


def test_a_misspelt_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ResShiftPipeline, "download", None)
    for name in ("runs/nope", "./nope", "~/nope", "runs/x4/nope"):
        with pytest.raises(CheckpointError, match="no checkpoint folder"):
            ResShiftPipeline.from_pretrained(name)


def test_shipped_checkpoint_beats_bicubic_on_the_public_retina(retina):
    from retinashift.imaging.degradation.bicubic import bicubic_pillow

    lr = bicubic_pillow(retina, 4)
    sr = ResShiftPipeline.from_shipped()(lr).images[0]

    def error(image):
        return np.mean((image.astype(float) - retina) ** 2)

    assert error(sr) < 0.85 * error(enlarge(lr, 4, "bicubic"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("steps", [1, 4])
def test_half_precision_moves_the_shipped_result_by_one_level_at_most(precision, steps, retina):
    pipe, lr = ResShiftPipeline.from_shipped(), retina[:40, :44]
    exact = pipe(lr, steps).images[0].astype(int)
    half = pipe(lr, steps, precision=precision).images[0].astype(int)
    assert 0 < np.abs(half - exact).max() <= 1
    with pytest.raises(ValueError, match="allowed are auto, fp32, bf16, fp16"):
        pipe(lr, steps, precision="fp8")


def test_the_realistic_mode_is_the_mean_and_its_sample_drawn_further_apart(tiny_pipeline):
    pipeline = tiny_pipeline()
    lr = np.random.default_rng(0).uniform(0.3, 0.7, (40, 24, 3)).astype(np.float32)
    sample = pipeline(lr, num_inference_steps=4).images[0]
    mean = (pipeline.image_codec.decode(states(pipeline, lr, 4)[0]["x0"])[0] / 2 + 0.5).permute(1, 2, 0).numpy()
    pipeline.register_to_config(detail_gain=1.5)
    assert np.allclose(pipeline(lr, mode="realistic").images[0], mean + 1.5 * (sample - mean), atol=1e-5)
    assert np.array_equal(pipeline(lr, num_inference_steps=4).images[0], sample)
    assert np.array_equal(pipeline(lr, mode="faithful").images[0], pipeline(lr, num_inference_steps=1).images[0])


def test_the_realistic_mode_has_its_own_steps_and_transition(tiny_pipeline):
    pipeline, lr = tiny_pipeline(), np.random.default_rng(0).uniform(0.3, 0.7, (20, 24, 3)).astype(np.float32)
    pipeline.register_to_config(detail_steps=2, detail_transition="deterministic")
    sample = pipeline(lr, mode="realistic").images[0]
    ancestral = pipeline(lr, num_inference_steps=2).images[0]
    pipeline.register_modules(
        scheduler=ResShiftScheduler.from_config(pipeline.scheduler.config, transition="deterministic")
    )
    assert np.array_equal(pipeline(lr, num_inference_steps=2).images[0], sample)
    assert not np.array_equal(ancestral, sample)


def test_stronger_detail_is_brought_into_line_once_more(tiny_pipeline):
    pipeline, lr = tiny_pipeline(), np.random.default_rng(0).integers(15_000, 49_000, (20, 24, 3), dtype=np.uint16)
    pipeline.register_to_config(detail_gain=1.5, back_projections=1)
    plans = [pipeline.plan(Sampling(mode=mode)) for mode in (None, "faithful", "realistic")]
    assert [plan.back_projections for plan in plans] == [1, 1, 2]
    twice = pipeline(lr, mode="realistic", back_projections=2)
    assert np.array_equal(pipeline(lr, mode="realistic").images[0], twice.images[0])
    assert pipeline(lr, mode="realistic", back_projections=1).consistency[0] < twice.consistency[0]
    pipeline.register_to_config(back_projections=0)
    assert pipeline.plan(Sampling(mode="realistic")).back_projections == 0


def test_a_distilled_checkpoint_has_one_use(tiny_pipeline):
    pipeline, lr = tiny_pipeline(), np.zeros((8, 8, 3), np.uint8)
    pipeline.register_to_config(distilled=True)
    one = pipeline(lr).images[0]
    assert np.array_equal(pipeline(lr, mode="realistic").images[0], one)
    assert not np.array_equal(pipeline(lr, generator=seeded(1)).images[0], one)
    for wrong in ({"mode": "faithful"}, {"num_inference_steps": 2}, {"output_uncertainty": True}):
        with pytest.raises(ValueError, match="this checkpoint is distilled"):
            pipeline(lr, **wrong)


def test_the_realistic_mode_does_not_depend_on_the_bands(tiny_pipeline, monkeypatch):
    pipeline = tiny_pipeline()
    pipeline.register_to_config(detail_gain=2.0)
    lr = np.random.default_rng(0).uniform(0.3, 0.7, (40, 24, 3)).astype(np.float32)
    whole = pipeline(lr, mode="realistic").images[0]
    monkeypatch.setattr("retinashift.inference.chain.plan_bands", lambda *_: (3, 0))
    assert np.allclose(pipeline(lr, mode="realistic").images[0], whole, atol=1e-5)


def test_an_unknown_mode_is_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="faithful, realistic"):
        tiny_pipeline()(np.zeros((4, 4, 3), np.uint8), mode="pretty")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_result_that_is_not_finite_never_becomes_a_picture(tiny_pipeline, retina, value):
    pipeline = tiny_pipeline()
    with torch.no_grad():
        next(p for n, p in pipeline.denoiser.named_parameters() if n.endswith("bias")).fill_(value)
    for output_type in ("np", "pil", "pt"):
        with pytest.raises(ValueError, match="not finite; use precision fp32"):
            pipeline(retina[:16, :16], output_type=output_type)
