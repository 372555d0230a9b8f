"""Vessels are found where they are drawn, whatever the light; agreement scores have the values of their definitions."""

import numpy as np
import pytest
from scipy import ndimage

from retinashift.evaluation.vessels import area_under_curve, dice, thin_sensitivity, vessel_map, vesselness
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge

SIDE = 200
WHOLE = np.ones((SIDE, SIDE), bool)


def line(angle, width):
    """A dark line through the middle, (SIDE, SIDE) of 0 to 1, 1 on the line."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    distance = np.abs(np.cos(angle) * y - np.sin(angle) * x)
    return np.clip(width / 2 + 0.5 - distance, 0, 1)


def retina_with(lines, light=140.0):
    return (light * (1 - 0.25 * lines)).round().astype(np.uint8)


@pytest.mark.parametrize("angle", [0.0, 0.6, 1.571, 2.4])
def test_a_line_is_found_in_every_direction_and_nothing_else(angle):
    truth = line(angle, 4) > 0.5
    soft = vesselness(retina_with(line(angle, 4)), WHOLE)
    inner = np.zeros_like(WHOLE)
    inner[8:-8, 8:-8] = True  # where the line does not end
    assert area_under_curve(soft, truth, inner) > 0.99
    near = ndimage.binary_dilation(truth, iterations=12)
    assert soft[~near].max() < 0.1 * soft[truth].mean()


def filtered(width, sigmas=(1.2, 1.8, 2.7), background=10.0, dot=False):
    """Response at the middle of a line, or a dot, of Gaussian profile and small contrast, from the integrals.

    sigma^1.5 times the second derivative across, of an ellipse 2.5 times as long, less that of the background.
    """
    found = []
    for sigma in sigmas:

        def second(variance, sigma=sigma):
            along = 1 / np.sqrt(variance + (2.5 * sigma) ** 2) if dot else 1
            return along / (variance + sigma**2) ** 1.5

        found.append(sigma**1.5 * width ** (1 + dot) * (second(width**2) - second(width**2 + background**2)))
    return max(found)


@pytest.mark.parametrize("width", [0.8, 1.2, 1.8, 2.7, 5.0])
@pytest.mark.parametrize("angle", [0, 1, 4, 7])
def test_the_response_to_a_line_is_that_of_the_integrals_at_every_orientation(width, angle):
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    distance = np.cos(angle * np.pi / 16) * y - np.sin(angle * np.pi / 16) * x
    photograph = 140 * (1 - 0.02 * np.exp(-0.5 * (distance / width) ** 2))
    assert vesselness(photograph, WHOLE)[100, 100] == pytest.approx(0.02 * filtered(width), rel=0.04)


def test_a_dot_is_answered_less_the_longer_the_filter():
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    photograph = 140 * (1 - 0.02 * np.exp(-0.5 * (x**2 + y**2) / 1.8**2))
    assert vesselness(photograph, WHOLE)[100, 100] == pytest.approx(0.02 * filtered(1.8, dot=True), rel=0.04)


def test_filters_grow_with_fields_wider_than_540_pixels():
    y, _ = np.mgrid[:240, :1080] - 120.0
    photograph = 140 * (1 - 0.02 * np.exp(-0.5 * (y / 5.4) ** 2))
    expected = filtered(5.4, (2.4, 3.6, 5.4), background=20)
    assert vesselness(photograph, np.ones(y.shape, bool))[120, 540] == pytest.approx(0.02 * expected, rel=0.04)


def test_an_eighth_of_the_field_or_so_is_vessel_and_no_piece_is_below_30_pixels(retina):
    field = np.ones(retina.shape[:2], bool)
    found = vessel_map(retina, field)
    assert (found.soft > found.level).mean() == pytest.approx(0.12, abs=0.001)
    sizes = [np.bincount(ndimage.label(mask, np.ones((3, 3)))[0].ravel())[1:] for mask in
             (found.vessels, found.soft > found.level)]  # fmt: skip
    assert sizes[0].sum() == sizes[1][sizes[1] >= 30].sum() < sizes[1].sum()


def test_uneven_illumination_does_not_move_the_map():
    lines = np.maximum(line(0.6, 4), line(2.0, 3))
    fade = np.linspace(80, 200, SIDE)[:, None]
    level = 0.3 * vesselness(retina_with(lines), WHOLE).max()
    even, uneven = (vessel_map(retina_with(lines, light), WHOLE, level) for light in (140.0, fade))
    assert dice(even.vessels, uneven.vessels, WHOLE) > 0.9


def test_bright_lines_and_the_edge_of_the_field_are_no_vessels():
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    field = np.hypot(x, y) < 80
    bright = (110 * (1 + 0.25 * line(0.6, 4))).round().astype(np.uint8)
    dark = retina_with(line(0.6, 4)) * field
    centre = line(0.6, 2) > 0.5
    assert vesselness(bright, WHOLE)[centre].max() < 0.2 * vesselness(retina_with(line(0.6, 4)), WHOLE)[centre].mean()
    soft = vesselness(dark, field)
    rim = field & ~ndimage.binary_erosion(field, iterations=6) & ~(line(0.6, 30) > 0)
    assert soft[rim].max() < 0.1 * soft[centre & field].mean()
    assert not soft[~field].any()


def test_a_picture_agrees_with_itself_and_blur_costs_thin_vessels_first(retina):
    field = np.ones(retina.shape[:2], bool)
    own = vessel_map(retina, field)
    assert dice(own.vessels, own.vessels, field) == thin_sensitivity(own.vessels, own.vessels, field) == 1
    blurred = vessel_map(enlarge(bicubic_pillow(retina, 4), 4, "bicubic"), field, own.level)
    agreement = dice(blurred.vessels, own.vessels, field)
    thin = thin_sensitivity(blurred.vessels, own.vessels, field)
    assert 0.3 < agreement < 0.95
    assert thin < agreement


def test_dice_is_that_of_its_definition_and_only_the_field_counts():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(a, b, np.ones((4, 4), bool)) == 1
    a[:2], b[1:3] = True, True
    assert dice(a, b, np.ones((4, 4), bool)) == 0.5
    field = np.zeros((4, 4), bool)
    field[1] = True
    assert dice(a, b, field) == 1


def test_the_area_under_the_curve_counts_pairs_in_order_and_ties_by_half():
    rng = np.random.default_rng(0)
    soft, truth = rng.integers(0, 5, (10, 10)).astype(float), rng.random((10, 10)) < 0.3
    positive, negative = soft[truth][:, None], soft[~truth][None]
    expected = ((positive > negative) + 0.5 * (positive == negative)).mean()
    assert area_under_curve(soft, truth, np.ones((10, 10), bool)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="nothing but vessel, or none"):
        area_under_curve(soft, np.zeros((10, 10), bool), np.ones((10, 10), bool))


def test_thin_is_three_pixels_and_less():
    truth = np.zeros((60, 60), bool)
    truth[10:13, 5:55] = True  # 3 wide
    truth[30:37, 5:55] = True  # 7 wide
    field = np.ones((60, 60), bool)
    wide_only = truth.copy()
    wide_only[:20] = False
    half = truth.copy()
    half[:, 30:] = False
    assert thin_sensitivity(wide_only, truth, field) < 0.1  # the tips of a wide vessel's skeleton may be narrow
    assert thin_sensitivity(half, truth, field) == pytest.approx(0.5, abs=0.06)
    assert thin_sensitivity(truth, np.zeros((60, 60), bool), field) is None
    truth[30:37] = False
    truth[30:35, 5:55] = True  # 5 wide: found or not, it does not count
    assert thin_sensitivity(wide_only & truth, truth, field) < 0.1


@pytest.mark.shared
def test_maps_of_real_photographs_agree_with_observers(shared):
    """AUC 0.95 is what good filters without training reach on DRIVE."""
    from retinashift.data.labels import find_label, read_label
    from retinashift.imaging.files import read_image
    from retinashift.imaging.fundus import field_of_view

    for name, least in (("drive/images/02_test.tif", 0.94), ("stare/im0077.ppm", 0.95)):
        path = shared / "data" / name
        pixels, label = read_image(path).pixels, read_label(find_label(path))
        field = field_of_view(pixels)
        found = vessel_map(pixels, field)
        assert area_under_curve(found.soft, label, field) > least
        assert dice(found.vessels, label, field) > 0.7
