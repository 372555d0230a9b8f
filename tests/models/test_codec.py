"""PixelCodec loses nothing; the two bicubic conventions are those they name."""

import numpy as np
import pytest
import torch
from PIL import Image

from retinashift.models.codec import PixelCodec, upsample_bicubic


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_decode_is_the_exact_inverse_of_encode(factor):
    image = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    codec = PixelCodec(factor)
    latent = codec.encode(image)
    assert latent.shape == (2, 3 * factor**2, 8 // factor, 12 // factor)
    assert torch.equal(codec.decode(latent), image)


def test_a_side_that_is_no_multiple_is_refused_with_the_size():
    with pytest.raises(ValueError, match="10x8; both sides must be multiples of 4"):
        PixelCodec(4).encode(torch.zeros(1, 3, 8, 10))
    with pytest.raises(ValueError, match="factor is 0"):
        PixelCodec(0)


def test_pillow_convention_equals_pillow_in_floating_point():
    lr = np.random.default_rng(0).random((9, 7), dtype=np.float32)
    reference = np.asarray(Image.fromarray(lr).resize((28, 36), Image.Resampling.BICUBIC))
    ours = upsample_bicubic(torch.from_numpy(lr)[None, None], 4, "pillow")[0, 0].numpy()
    assert np.abs(ours - reference).max() < 1e-5


def test_torch_convention_is_the_sharper_kernel_and_differs():
    lr = torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    reference = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bicubic")
    assert torch.equal(upsample_bicubic(lr, 4, "torch"), reference)
    assert not torch.allclose(upsample_bicubic(lr, 4, "pillow"), reference, atol=1e-3)
    assert upsample_bicubic(lr, 1) is lr
