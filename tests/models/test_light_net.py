"""LightNet: it starts as bicubic, any size passes, every weight learns, and it survives saving."""

import pytest
import torch

from retinashift.models.codec import PixelCodec, upsample_bicubic
from retinashift.models.light_net import LightNet


def tiny(seed: int = 0, *, trained: bool = False) -> LightNet:
    """`trained` fills the layers that start at zero, so that every parameter matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = LightNet(factor=4, width=8, depth=2, time_width=16).eval()
        if trained:
            for parameter in net.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
    return net


def inputs(height: int, width: int, batch: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lq = torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
    y0 = PixelCodec(4).encode(upsample_bicubic(lq, 4))
    return y0 + 0.05 * torch.randn(y0.shape, generator=generator), torch.tensor([3, 1][:batch]), lq


def test_an_untrained_network_predicts_no_residual_which_is_bicubic():
    assert tiny()(*inputs(8, 8)).sample.abs().max() == 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (16, 3)])
def test_any_size_passes_and_the_output_has_the_states_shape(height, width):
    sample, timestep, lq = inputs(height, width)
    assert tiny(trained=True)(sample, timestep, lq).sample.shape == sample.shape


def test_a_number_as_timestep_means_the_whole_batch():
    net = tiny(trained=True)
    sample, _, lq = inputs(6, 6)
    assert torch.equal(net(sample, 2, lq).sample, net(sample, torch.tensor([2, 2]), lq).sample)


def test_output_depends_on_state_condition_and_timestep():
    net = tiny(trained=True)
    sample, timestep, lq = inputs(6, 6)
    base = net(sample, timestep, lq).sample
    for other in (
        net(sample + 0.01, timestep, lq).sample,
        net(sample, timestep, lq * 0.9).sample,
        net(sample, torch.tensor([0, 0]), lq).sample,
    ):
        assert not torch.allclose(base, other)


def test_gradients_reach_every_parameter():
    net = tiny(trained=True).train()
    net(*inputs(6, 6)).sample.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_batch_equals_its_elements():
    net = tiny(trained=True)
    sample, timestep, lq = inputs(9, 6)
    together = net(sample, timestep, lq).sample
    for i in range(2):
        alone = net(sample[i : i + 1], timestep[i : i + 1], lq[i : i + 1]).sample
        assert torch.allclose(together[i : i + 1], alone, atol=1e-6)


def test_saving_and_loading_is_exact(tmp_path):
    net = tiny(trained=True)
    net.save_pretrained(tmp_path)
    again = LightNet.from_pretrained(tmp_path)
    assert torch.equal(again(*inputs(6, 6)).sample, net(*inputs(6, 6)).sample)


def test_a_condition_of_another_size_is_refused_with_both_sizes():
    sample, timestep, lq = inputs(6, 6)
    with pytest.raises(ValueError, match="lq is 5x6 and sample 6x6"):
        tiny()(sample, timestep, lq[..., :5])


def test_added_blocks_change_nothing_until_they_learn():
    net, (x_t, t, lq) = tiny(trained=True), inputs(8, 8)
    before = net(x_t, t, lq).sample
    net.deepen(5)
    assert torch.equal(net(x_t, t, lq).sample, before)
    assert net.config.depth == len(net.blocks) == 5
    net(x_t, t, lq).sample.square().sum().backward()
    assert all(block.conv2.weight.grad.abs().max() > 0 for block in net.blocks)
    with pytest.raises(ValueError, match="depth is 4, less than the 5 blocks there are"):
        net.deepen(4)
