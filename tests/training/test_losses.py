"""The losses against the reference implementation: values, gradients, one optimiser step and its average."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from retinashift.diffusion.process import elbo_weight
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.models.codec import upsample_bicubic
from retinashift.models.perceptual import LPIPS
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.vq import VQCodec
from retinashift.official.networks import vq_from_official
from retinashift.training.losses import combined, perceptual_error, squared_error
from retinashift.training.run import average


@pytest.fixture(scope="module")
def recipe_lpips(parity) -> LPIPS:
    """LPIPS with the VGG16 of the vectors: their recipe with gain sqrt(2), and the published heads."""
    net = LPIPS()
    state = {}
    for name, shape in parity.facts()["lpips_entries"].items():
        _, number, part = name.split(".")
        gain = 2**0.5 if part == "weight" else 1.0
        source = SimpleNamespace(named_parameters=lambda: [(name, torch.empty(shape, device="meta"))])  # noqa: B023
        state[f"features.{number}.{part}"] = parity.recipe_weights(source)[name] * gain
    net.load(state, [parity.vectors("training")[f"lpips.lin{i}"] for i in range(5)])
    return net


KINDS = {"x0": "xstart", "residual": "residual", "noise": "epsilon", "scaled_noise": "epsilon_scale"}
CHAINS = {"s4": {"num_train_timesteps": 4}, "s15": {"num_train_timesteps": 15, "min_noise": 0.04}}


def networks(parity) -> tuple[SwinUNet, VQCodec]:
    options = {k: v for k, v in parity.options("unet_a").items() if k not in ("dims", "use_fp16", "cond_lq")}
    net = SwinUNet(**options, attention_mask="official").eval()
    net.load_state_dict(parity.weights("unet_a", net))
    return net, vq_from_official(parity.weights("vq_a", net)).requires_grad_(False)


def predict(net: SwinUNet, codec: VQCodec, scheduler: ResShiftScheduler, given: dict[str, Tensor], t: Tensor):
    """(prediction, x_t, x0, y0) of a training step."""
    with torch.no_grad():
        x0 = codec.encode(given["gt"]).latents
        y0 = codec.encode(upsample_bicubic(given["lq"], 4, "torch")).latents
    x_t = scheduler.add_noise(x0, given["noise"], t, y0)
    return net(scheduler.scale_model_input(x_t, t), t, lq=given["lq"]).sample, x_t, x0, y0


def official_order(names: list[str]) -> list[str]:
    """The order of the official parameters: of an attention layer both projections come first."""
    layers = {name: name.split(".patch_")[0].split(".blocks.")[0] for name in names}
    first = {layer: names.index(next(n for n in names if layers[n] == layer)) for layer in set(layers.values())}
    return sorted(names, key=lambda name: (first[layers[name]], ".blocks." in name))


def check_gradients(parity, prefix: str, net: SwinUNet, relative: float = 1e-4) -> None:
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    for name in parity.vectors("training", f"{prefix}.grad."):
        parity.check("training", f"{prefix}.grad.{name}", gradients[name], relative, relative=True)
    norms = torch.stack([gradients[name].norm() for name in official_order(list(gradients))])
    parity.check("training", f"{prefix}.grad_norms", norms, relative, relative=True)


@pytest.mark.shared
@pytest.mark.parametrize("chain", CHAINS)
def test_squared_errors_of_every_prediction_and_their_gradients_equal_the_reference(parity, chain):
    given = parity.vectors("training")
    net, codec = networks(parity)
    t = given[f"{chain}.t"]
    for kind, official in KINDS.items():
        scheduler = ResShiftScheduler(**CHAINS[chain], prediction_type=kind)
        prediction, x_t, x0, y0 = predict(net, codec, scheduler, given, t)
        errors = squared_error(scheduler, prediction, x0, y0, given["noise"], t)
        relative = "noise" in kind
        parity.check("training", f"{chain}.{official}_w0.mse", errors, 1e-4, relative=relative)
        weights = elbo(scheduler)[t]
        parity.check("training", f"{chain}.{official}_w1.mse", weights * errors, 1e-4, relative=True)
        estimate = scheduler.predict_x0(prediction, t, x_t, y0)
        parity.check("training", f"{chain}.{official}.pred_xstart", estimate, 1e-4, relative=relative)
        if kind == "x0":
            parity.check("training", f"{chain}.z_t", x_t, 1e-4)
            net.zero_grad()
            errors.mean().backward()
            check_gradients(parity, chain, net)


def elbo(scheduler: ResShiftScheduler) -> Tensor:
    """Weights of the evidence bound as the official loss has them, not scaled to mean 1."""
    kind = "noise" if scheduler.config.prediction_type == "scaled_noise" else scheduler.config.prediction_type
    return elbo_weight(kind, scheduler.eta, scheduler.config.kappa).float()


@pytest.mark.shared
def test_the_journal_loss_its_gradients_a_step_and_the_average_equal_the_reference(parity, recipe_lpips):
    given = parity.vectors("training")
    net, codec = networks(parity)
    scheduler, t = ResShiftScheduler(4), given["s4.t"]
    prediction, x_t, x0, y0 = predict(net, codec, scheduler, given, t)
    errors = squared_error(scheduler, prediction, x0, y0, given["noise"], t)
    estimate = scheduler.predict_x0(prediction, t, x_t, y0)
    perceptual = perceptual_error(recipe_lpips, codec.decode(estimate).sample, given["gt"])
    loss = combined(errors, perceptual, mse=1, lpips=2)
    parity.check("training", "journal.mse", errors, 1e-4)
    # the reference keeps the terms after their coefficients
    parity.check("training", "journal.lpips", 2 * perceptual, 1e-4)
    parity.check("training", "journal.loss", loss, 1e-4)
    parity.check("training", "journal.x0_pred_image", codec.decode(estimate).sample, 5e-4)
    loss.mean().backward()
    check_gradients(parity, "journal", net, 1e-3)  # the bends of VGG16 turn rounding into more than that
    shadow = {name: value.detach().clone() for name, value in net.state_dict().items()}
    torch.optim.AdamW(net.parameters(), lr=5e-5, betas=(0.9, 0.999), weight_decay=0).step()
    parity.check("training", "journal.step.out.2.weight", net.out[2].weight, 1e-6)
    average(shadow, net.state_dict(), 0.999)
    parity.check("training", "journal.ema.out.2.weight", shadow["out.2.weight"], 1e-6)


def test_one_lpips_that_is_no_number_leaves_the_squared_errors_alone():
    errors = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = combined(errors, torch.tensor([0.5, float("nan")]), mse=1, lpips=10)
    assert torch.equal(loss, errors)
    loss.mean().backward()
    assert torch.isfinite(errors.grad).all()
    assert torch.equal(combined(errors, torch.tensor([0.5, 0.1]), 2, 10), 2 * errors + torch.tensor([5.0, 1.0]))


def test_the_gradient_of_a_pixel_chain_reaches_the_estimate():
    x0 = torch.zeros(1, 3, 32, 32, requires_grad=True)
    hr = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    perceptual_error(LPIPS(), x0, hr).sum().backward()
    assert x0.grad.abs().max() > 0


def test_by_the_logarithm_a_sample_of_small_errors_weighs_as_much_as_one_of_large_ones():
    errors = torch.tensor([1e-2, 1e-3], requires_grad=True)
    combined(errors, None, 0.0, 0.0, log=0.5).sum().backward()
    assert torch.allclose(errors.grad * errors.detach(), torch.tensor([0.5, 0.5]), rtol=0.02)
    assert torch.equal(combined(errors, None, 2.0, 0.0), 2 * errors)
    assert torch.isfinite(combined(torch.zeros(1), None, 0.0, 0.0, log=1.0)).all()  # equal to rounding, no more
