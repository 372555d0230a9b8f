"""The field of view is found on black, grey and missing surrounds, and agrees with masks drawn by others."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from retinashift.imaging.files import find_images, read_image
from retinashift.imaging.fundus import field_of_view


def disc(height=120, width=140, radius=50):
    rows, columns = np.ogrid[:height, :width]
    return (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2


def eye(surround=0, retina=100, noise=0.0, seed=0):
    luma = np.where(disc(), retina, surround) + noise * np.random.default_rng(seed).standard_normal((120, 140))
    return luma.round().clip(0, 255).astype(np.uint8)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(("surround", "retina"), [(0, 25), (7, 90), (30, 100), (40, 120)])
def test_the_disc_is_found_on_black_and_on_grey_surrounds(surround, retina):
    assert dice(field_of_view(eye(surround, retina, noise=1), erode=0), disc()) > 0.995


@pytest.mark.parametrize(("surround", "below", "above"), [(0, 9, 12), (40, 48, 53)])
def test_the_field_begins_a_quarter_above_the_surround_and_never_below_10_levels(surround, below, above):
    photograph = eye(surround, 200)
    photograph[50:70, 8:23], photograph[50:70, 120:132] = below, above  # left and right, beside the disc
    field = field_of_view(photograph, erode=0)
    assert not field[50:70, 8:18].any()
    assert field[50:70, 120:132].all()


def test_erosion_takes_the_edge_of_the_field_and_of_the_frame():
    assert np.array_equal(field_of_view(eye()), ndimage.binary_erosion(disc(), iterations=4))
    frame = field_of_view(np.full((30, 40), 120, np.uint8))
    assert frame[4:-4, 4:-4].all()
    assert frame.sum() == 22 * 32


def test_dark_lesions_inside_are_field_and_bright_specks_outside_are_not():
    photograph = eye()
    photograph[50:70, 60:80] = 0
    photograph[2:6, 2:6] = 255
    assert np.array_equal(field_of_view(photograph, erode=0), disc())


def test_colour_sixteen_bit_and_grey_give_one_mask():
    grey = eye(5, 90)
    colour = np.repeat(grey[..., None], 3, axis=2)
    for same in (colour, grey.astype(np.uint16) * 257, colour.astype(np.uint16) * 257):
        assert np.array_equal(field_of_view(same), field_of_view(grey))


def test_a_dark_image_is_all_field_and_a_tiny_field_survives_erosion():
    assert field_of_view(np.zeros((9, 5, 3), np.uint8)).all()
    assert field_of_view(np.full((3, 3), 90, np.uint8)).all()


def test_a_crop_of_retina_without_surround_is_all_field(retina):
    assert field_of_view(retina, erode=0).mean() > 0.999


def test_what_is_no_photograph_is_refused():
    for bad in (np.zeros((5, 5, 4), np.uint8), np.zeros((0, 5), np.uint8), np.zeros((5, 5))):
        with pytest.raises(ValueError, match="needed"):
            field_of_view(bad)
    with pytest.raises(ValueError, match="needed"):
        field_of_view(np.zeros((5, 5), np.uint8), erode=-1)


@pytest.mark.shared
def test_masks_that_come_with_drive_are_met(shared):
    for path in sorted((shared / "data/drive/images").glob("*.tif")):
        mask = np.asarray(Image.open(shared / f"data/drive/masks/{path.stem}_mask.gif")) > 0
        assert dice(field_of_view(read_image(path).pixels, erode=0), mask) > 0.99, path.name


@pytest.mark.shared
@pytest.mark.parametrize(("folder", "least", "most"), [("stare", 0.70, 0.80), ("val", 0.80, 0.94)])
def test_fields_of_every_camera_fill_what_such_a_camera_shows(shared, folder, least, most):
    for path, relative in find_images([shared / "data" / folder]):
        if len(relative.parts) == 1:  # labels lie in folders of their own
            assert least < field_of_view(read_image(path).pixels).mean() < most, path.name
