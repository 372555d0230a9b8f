"""Adapters: they start as nothing, learn, resume, and merge into the same network."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.adapters import WEIGHTS, add_lora, merge_adapter, merged, save_adapter
from retinashift.models.light_net import LightNet
from retinashift.models.swin_unet import SwinUNet
from retinashift.training.run import train
from retinashift.training.settings import ConfigError, TrainConfig

LORA = ["lora.rank=4", "optim.learning_rate=0.02", "run.steps=40", "run.save_every=20", "optim.last_step_share=1.0"]


def network() -> SwinUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SwinUNet(
            image_size=8, model_channels=32, channel_mult=[1], num_res_blocks=[1], attention_resolutions=[8],
            num_head_channels=16, swin_embed_dim=32, window_size=4, mlp_ratio=2, lq_size=8, attention_mask="official",
        ).eval()  # fmt: skip


def compact() -> LightNet:
    """The other kind, with an opinion."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = LightNet(factor=1, width=16, depth=2, time_width=16)
        torch.nn.init.normal_(net.write.weight, std=0.1)
        return net.eval()


def output(net: LightNet | SwinUNet) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x, lq = (torch.randn(2, 3, 8, 8, generator=generator) for _ in range(2))
    with torch.no_grad():
        return net(x, 2, lq=lq).sample


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="LoRA needs the extra lora")


@pytest.fixture(params=[network, compact])
def plain(request) -> LightNet | SwinUNet:
    """A network of each kind."""
    return request.param()


@pytest.fixture
def adapted(peft, plain) -> LightNet | SwinUNet:
    """The same network with adapters that have something to say."""
    net = copy.deepcopy(plain)
    add_lora(net, rank=4, alpha=8)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return net


def test_new_adapters_change_nothing_and_alone_are_trained(peft):
    net, plain = network(), network()
    add_lora(net, rank=2, alpha=2)
    assert torch.equal(output(net), output(plain))
    trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    for part in ("qkv", "proj", "fc1", "fc2", "patch_embed"):
        assert any(f"{part}." in name for name in trained), part


def test_merged_weights_give_the_adapters_output(adapted, plain):
    whole = merged(adapted)
    assert whole.state_dict().keys() == plain.state_dict().keys()
    assert (output(whole) - output(plain)).abs().max() > 1e-2
    torch.testing.assert_close(output(whole), output(adapted), atol=1e-5, rtol=1e-5)


def test_merging_leaves_the_adapted_network_as_it_is(adapted):
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    merged(adapted)
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())


def test_saved_adapters_merge_into_the_same_weights(adapted, plain, tmp_path):
    save_adapter(adapted, tmp_path)
    merge_adapter(plain, tmp_path)
    torch.testing.assert_close(output(plain), output(merged(adapted)), atol=0, rtol=0)
    assert type(plain) in (LightNet, SwinUNet)
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_a_folder_as_peft_alone_writes_it_merges_with_its_alpha(peft, adapted, plain, tmp_path):
    save_file(peft.get_peft_model_state_dict(adapted), tmp_path / "adapter_model.safetensors")
    adapted.peft_config["default"].save_pretrained(tmp_path)
    merge_adapter(plain, tmp_path)
    torch.testing.assert_close(output(plain), output(merged(adapted)), atol=0, rtol=0)


def test_adapters_that_are_not_there_or_of_another_network_are_refused(adapted, tmp_path):
    with pytest.raises(ValueError, match="holds no adapter"):
        merge_adapter(compact(), tmp_path)
    save_adapter(adapted, tmp_path)
    other = compact() if isinstance(adapted, SwinUNet) else network()
    with pytest.raises(ValueError, match=r"does not fit this network: it has no "):
        merge_adapter(other, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"damaged"):
        merge_adapter(other, tmp_path)


def test_a_pipeline_takes_an_adapter(peft, small_pipeline, tmp_path):
    before = {name: value.clone() for name, value in small_pipeline.denoiser.state_dict().items()}
    net = copy.deepcopy(small_pipeline.denoiser)
    add_lora(net, rank=2, alpha=2)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    save_adapter(net, tmp_path)
    small_pipeline.load_adapter(tmp_path)
    after = small_pipeline.denoiser.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"blocks.0.conv1.weight", "blocks.0.conv2.weight"}


def test_the_compact_denoiser_learns_by_adapters_alone_and_is_validated_with_them(
    peft, smoke_settings, write_settings, held_out, tmp_path
):
    settings = write_settings({**smoke_settings, "validation": {"path": str(held_out)}})
    first = train(TrainConfig.load(settings, ["run.steps=20"]))
    start = ResShiftPipeline.from_pretrained(first)
    start.register_to_config(check_measure="off")  # or a network of 20 steps is replaced by bicubic
    start.save_pretrained(first)
    scores = []
    tuned = train(
        TrainConfig.load(settings, [f"init_from={first}", f"run.out={tmp_path}/adapted", *LORA]),
        lambda event, said: scores.append(said["psnr"]) if event == "validation" else None,
    )
    before, after = (ResShiftPipeline.from_pretrained(folder).denoiser.state_dict() for folder in (first, tuned))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("blocks.") and name.endswith(("conv1.weight", "conv2.weight")) for name in changed)
    assert len(set(scores)) == len(scores) > 1


def test_a_run_lowers_the_loss_and_ships_merged_weights_and_adapters(
    peft, smoke_settings, write_settings, tmp_path, swin_checkpoint
):
    del smoke_settings["model"]
    config = TrainConfig.load(write_settings(smoke_settings), [f"init_from={swin_checkpoint}", *LORA])
    values = []
    tuned = train(config, lambda event, said: values.append(said["loss"]) if event == "train" else None)
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])
    plain = ResShiftPipeline.from_pretrained(tuned).denoiser
    beside = ResShiftPipeline.from_pretrained(swin_checkpoint).denoiser
    frozen = beside.state_dict()
    merge_adapter(beside, tuned / "adapter")
    torch.testing.assert_close(output(plain), output(beside), atol=1e-5, rtol=1e-5)
    same = {name for name, value in plain.state_dict().items() if torch.equal(value, frozen[name])}
    assert any("conv" in name or "in_layers" in name for name in same)
    assert sum(tensor.numel() for tensor in load_file(tuned / "adapter" / WEIGHTS).values()) < 0.1 * sum(
        p.numel() for p in plain.parameters()
    )


def test_an_interrupted_run_goes_on_to_the_same_adapters(
    peft, smoke_settings, write_settings, tmp_path, swin_checkpoint
):
    del smoke_settings["model"]
    given = write_settings(smoke_settings)
    short = ["lora.rank=2", "run.steps=6", "run.save_every=3", f"init_from={swin_checkpoint}"]

    class Stop(Exception):
        pass

    def stop(event, values):
        if event == "saved" and values["step"] == 3:
            raise Stop

    whole = train(TrainConfig.load(given, [f"run.out={tmp_path}/whole", *short]))
    config = TrainConfig.load(given, [f"run.out={tmp_path}/half", *short])
    with pytest.raises(Stop):
        train(config, stop)
    first, second = (load_file(folder / "adapter" / WEIGHTS) for folder in (whole, train(config)))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_adapters_beside_no_weights_or_without_peft_are_refused(smoke_settings, write_settings, monkeypatch):
    config = TrainConfig.load(write_settings(smoke_settings), ["lora.rank=2"])
    with pytest.raises(ConfigError, match="no weights to adapt; name a checkpoint in init_from"):
        train(config)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'retinashift\[lora\]'"):
        add_lora(network(), 2, 2)
