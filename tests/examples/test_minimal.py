"""The one-file example gives the package's numbers, learns, and works from the command line."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.diffusion.process import ancestral_step, posterior, q_sample, sqrt_eta_schedule
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.models.codec import upsample_bicubic

FILE = Path(__file__).resolve().parents[2] / "examples" / "minimal_resshift.py"


def load_example():
    spec = importlib.util.spec_from_file_location("minimal_resshift", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


minimal = load_example()


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_has_at_most_250_lines_and_imports_only_torch_numpy_and_pillow():
    text = FILE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    roots = {name.split(".")[0] for node in nodes for name in [getattr(node, "module", None) or node.names[0].name]}
    assert roots - set(sys.stdlib_module_names) == {"torch", "numpy", "PIL"}


@pytest.mark.parametrize(("steps", "kappa", "power"), [(4, 0.06, 0.3), (4, 2.0, 0.3), (15, 2.0, 0.3), (7, 0.5, 1.0)])
def test_the_schedule_is_the_package_s(steps, kappa, power):
    expected = sqrt_eta_schedule(steps, kappa=kappa, power=power) ** 2
    assert (minimal.schedule(steps, kappa, power) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("t", range(4))
def test_the_marginal_the_posterior_and_the_ancestral_step_are_the_package_s(t):
    x0, y0, x_t, noise = (normal(seed, 2, 48, 3, 5) for seed in range(4))
    eta = [0.0, *minimal.schedule().tolist()]
    eta_prev, eta_t = eta[t], eta[t + 1]
    expected = q_sample(x0, y0, eta_t, minimal.KAPPA, noise)
    torch.testing.assert_close(minimal.q_sample(x0, y0, eta_t, noise), expected, rtol=0, atol=1e-12)
    mean, variance = minimal.posterior(x_t, x0, eta_t, eta_prev)
    expected_mean, expected_variance = posterior(x_t, x0, eta_t, eta_prev, minimal.KAPPA)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-12)
    assert variance == pytest.approx(expected_variance, abs=1e-15)
    drawn = ancestral_step(x_t, x0, y0, eta_t, eta_prev, minimal.KAPPA, noise)
    torch.testing.assert_close(mean + variance**0.5 * noise, drawn, rtol=0, atol=1e-12)


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_a_sample_is_that_of_the_package_s_scheduler_from_the_same_noise(calls):
    lr = normal(0, 1, 3, 6, 5).float().clamp(-1, 1)
    net = lambda x_t, t, lr: 0.1 * torch.sin(3 * x_t) + 0.01 * t  # noqa: E731 - any function of state and step
    scheduler = ResShiftScheduler(4, kappa=minimal.KAPPA, prediction_type="residual", input_scaling="none")
    scheduler.set_timesteps(calls)
    generator = torch.Generator().manual_seed(5)
    y0 = torch.nn.functional.pixel_unshuffle(upsample_bicubic(lr, 4), 4)
    x_t = scheduler.init_noise(y0, generator)
    for t in scheduler.timesteps:
        x_t = scheduler.step(net(x_t, t, lr), t, x_t, y0, generator).prev_sample
    found = minimal.sample(net, lr, calls, torch.Generator().manual_seed(5))
    expected = torch.nn.functional.pixel_shuffle(x_t, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_reduction_is_that_of_the_protocol_and_an_untrained_network_interpolates(retina):
    np.testing.assert_array_equal(minimal.degrade(retina), bicubic_pillow(retina, 4))
    small = minimal.degrade(retina)
    bicubic = np.array(Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC))
    found = minimal.upscale(minimal.Net(), small, calls=1)
    assert np.abs(found.astype(int) - bicubic).max() <= 1


def test_twenty_steps_lower_the_loss(retina):
    torch.manual_seed(0)
    start = minimal.Net(width=16, depth=1)
    hr, lr = next(minimal.crops([retina], 32, 16, seed=9))

    def loss(net):
        with torch.no_grad():
            return minimal.loss(net, hr, lr, torch.Generator().manual_seed(1)).item()

    before = loss(start)
    tuned = minimal.train([retina], steps=20, batch=8, size=32, rate=3e-3, net=start)
    assert loss(tuned) < 0.97 * before


def test_the_command_line_trains_on_a_folder_and_upscales_a_file(tmp_path, retina):
    (tmp_path / "photographs").mkdir()
    Image.fromarray(retina).save(tmp_path / "photographs" / "eye.png")
    Image.fromarray(minimal.degrade(retina)).save(tmp_path / "small.png")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(FILE), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    trained = run("train", "photographs", "--steps", "2", "--size", "32", "-o", "net.pt")
    assert trained.returncode == 0, trained.stderr
    assert "step 2/2" in trained.stdout
    upscaled = run("upscale", "small.png", "-o", "large.png", "-w", "net.pt", "--calls", "4")
    assert upscaled.returncode == 0, upscaled.stderr
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (128, 128)
    refused = run("train", "photographs", "--size", "512")
    assert refused.returncode != 0
    assert "no photograph of at least 512x512 pixels" in refused.stderr
