"""A batch of windows is cut and rescaled at once, and each is what it would be alone."""

import pytest
import torch

from retinashift.data.photographs import DataError
from retinashift.training.batches import Crop, check_size, cut, turned
from retinashift.training.settings import CropSettings


def test_windows_of_several_sizes_are_cut_at_their_places():
    photograph = torch.randint(256, (3, 80, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    deep = (photograph.to(torch.int32) * 257).to(torch.uint16)  # 16 bit of the same
    crops = [Crop(0, 3, 7, 48), Crop(1, 30, 40, 32), Crop(0, 0, 0, 64)]
    whole = cut([photograph, deep, photograph], crops, 32)
    assert torch.allclose(whole[1], photograph[:, 30:62, 40:72] / 255, atol=1e-5)
    for crop, image, pixels in zip(crops, whole, [photograph, deep, photograph], strict=True):
        assert torch.equal(cut([pixels], [crop], 32)[0], image)
    assert torch.equal(cut([photograph], [crops[1]], 32)[0], photograph[:, 30:62, 40:72] / 255)


def test_turns_are_the_eight_symmetries_of_the_square():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    results = turned(image.expand(8, 1, 3, 3), torch.arange(8))
    expected = [torch.rot90(side, quarter, (-2, -1))[0] for side in (image, image.flip(-1)) for quarter in range(4)]
    assert torch.equal(results[0], image[0])
    assert {tuple(r.flatten().tolist()) for r in results} == {tuple(e.flatten().tolist()) for e in expected}


def test_a_photograph_smaller_than_the_crop_is_refused_with_both_sizes():
    for settings in (CropSettings(size=192), CropSettings(size=192, rescale_min=0.5, rescale_max=1.5)):
        check_size("a.png", (200, 192), settings)
        with pytest.raises(DataError, match=r"^b.png is 100x300, smaller than crop.size 192; leave it out, or lower"):
            check_size("b.png", (300, 100), settings)
