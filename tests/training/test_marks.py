"""Marks are drawn on the share of crops asked for, decided by a crop's own number, and leave the rest untouched."""

import pytest
import torch

from retinashift.imaging.degradation.bicubic import bicubic_pillow
from retinashift.training import batches
from retinashift.training.batches import NUMBERS_OF_CHANGES, as_another_camera
from retinashift.training.settings import CropSettings


def draw_marks(images, numbers):
    return torch.stack([batches.draw_marks(*pair) for pair in zip(images, numbers.tolist(), strict=True)])


def flat(count, side=64, value=0.5):
    return torch.full((count, 3, side, side), value)


@pytest.fixture
def numbers():
    return torch.rand(64, generator=torch.Generator().manual_seed(0))


def test_marks_cover_part_of_a_crop_and_leave_the_rest_alone(numbers):
    drawn = draw_marks(flat(64), numbers)
    touched = (drawn != 0.5).any(1).flatten(1).float().mean(1)  # (B,)
    assert (touched > 0).float().mean() > 0.8  # a mark may lie outside the crop
    assert touched.median() < 0.3
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_the_number_of_a_crop_decides_its_marks_whatever_else_is_in_the_batch(numbers):
    photograph = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(1))
    together = draw_marks(photograph.expand(64, 3, 48, 48), numbers)
    alone = draw_marks(photograph[None], numbers[7:8])
    assert torch.equal(together[7:8], alone)
    assert len({image.numpy().tobytes() for image in together}) > 50


def test_marks_have_many_colours_and_half_of_them_are_saturated(numbers):
    drawn = draw_marks(flat(64), numbers)
    farthest = (drawn - 0.5).abs().amax((1, 2, 3))
    assert 0.3 < (farthest > 0.49).float().mean()
    assert len({tuple(image.flatten(1)[:, int((image - 0.5).abs().sum(0).argmax())].tolist()) for image in drawn}) > 20


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_as_many_crops_are_marked_as_the_setting_asks_for(share):
    numbers = torch.rand(200, NUMBERS_OF_CHANGES, generator=torch.Generator().manual_seed(0))
    changed = as_another_camera(flat(200, 32), CropSettings(size=32, marks_share=share), numbers)
    marked = float((changed != 0.5).flatten(1).any(1).float().mean())
    assert share * 0.7 <= marked <= share * 1.3


def test_thin_marks_survive_the_reduction(numbers):
    drawn = (draw_marks(flat(64), numbers) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    visible = [abs(bicubic_pillow(image, 4).astype(int) - 128).max() > 10 for image in drawn]
    assert sum(visible) > 45
