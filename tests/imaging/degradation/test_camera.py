"""Each step does what its name says, by measure: width of blur, variance of noise, blocks of JPEG."""

import numpy as np
import pytest

from retinashift.imaging.degradation.pipeline import (
    blur,
    defocus_kernel,
    demosaic_bilinear,
    gaussian_kernel,
    jpeg,
    mosaic,
    motion_kernel,
    sensor_noise,
)


def moments(kernel):
    """Mean, and standard deviations along the rows and the columns."""
    y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
    return (kernel * x).sum(), (kernel * y).sum(), np.sqrt((kernel * x**2).sum()), np.sqrt((kernel * y**2).sum())


def test_every_kernel_keeps_brightness_and_place():
    for kernel in (gaussian_kernel(1.3), gaussian_kernel(2, 0.4, 0.7), defocus_kernel(2.6), motion_kernel(7, 1.1)):
        assert kernel.sum() == pytest.approx(1)
        assert kernel.min() >= 0
        assert moments(kernel)[:2] == pytest.approx((0, 0), abs=1e-9)


def test_blurs_have_the_width_they_are_given():
    assert moments(gaussian_kernel(1.5))[2:] == pytest.approx((1.5, 1.5), rel=0.02)
    assert moments(gaussian_kernel(2.0, 0.5))[2:] == pytest.approx((2.0, 1.0), rel=0.02)
    assert moments(gaussian_kernel(2.0, 0.5, np.pi / 2))[2:] == pytest.approx((1.0, 2.0), rel=0.02)
    assert moments(defocus_kernel(4.0))[2] == pytest.approx(4.0 / 2, rel=0.06)  # of a disk: r / 2
    along, across = moments(motion_kernel(9.0, 0.0))[2:]
    assert along == pytest.approx(9 / np.sqrt(12), rel=0.06)  # of a line: length / sqrt 12
    assert across < 0.5


def test_blur_convolves_and_leaves_flat_pictures_alone():
    flat = np.full((20, 31, 3), 0.4, np.float32)
    assert np.allclose(blur(flat, gaussian_kernel(2)), flat, atol=1e-5)
    point = np.zeros((21, 21, 3), np.float32)
    point[10, 10] = 1
    kernel = motion_kernel(5, 0.5)
    reach = kernel.shape[0] // 2
    assert np.allclose(blur(point, kernel)[10 - reach : 11 + reach, 10 - reach : 11 + reach, 1], kernel, atol=1e-6)


def test_noise_has_the_variance_of_photons_and_reading():
    for level in (0.1, 0.8):
        image = np.full((256, 256, 3), level, np.float32)
        noisy = sensor_noise(image, 1e-3, 0.01, np.random.default_rng(0))
        assert noisy.mean() == pytest.approx(level, abs=1e-3)
        assert noisy.var() == pytest.approx(1e-3 * level + 1e-4, rel=0.03)


def test_a_mosaic_keeps_one_colour_a_pixel_and_demosaicing_keeps_flat_colours(retina):
    image = retina.astype(np.float32) / 255
    seen = mosaic(image)
    assert np.array_equal(seen[::2, ::2], image[::2, ::2, 0])
    assert np.array_equal(seen[::2, 1::2], image[::2, 1::2, 1])
    assert np.array_equal(seen[1::2, 1::2], image[1::2, 1::2, 2])
    full = demosaic_bilinear(seen)
    assert np.array_equal(full[1::2, ::2, 1], image[1::2, ::2, 1])
    flat = np.broadcast_to(np.array([0.7, 0.4, 0.2], np.float32), (12, 12, 3))
    assert np.allclose(demosaic_bilinear(mosaic(flat)), flat)
    assert 0.001 < np.abs(full - image).mean() < 0.03


def test_jpeg_makes_blocks_and_420_blurs_colour_more_than_light(retina):
    image = retina[3:123, 3:123].astype(np.float32) / 255  # off the blocks that the photograph itself came in

    def blockiness(picture):
        steps = np.abs(np.diff(picture.mean(2), axis=1)).mean(0)
        return steps[7::8].mean() / steps.mean()

    blocks = [blockiness(jpeg(image, quality, "4:4:4")) for quality in (15, 40, 95)]
    assert blocks[0] > blocks[1] > blocks[2] > blockiness(image)
    assert blocks[0] > 2 * blockiness(image)
    colour = [np.abs(np.diff(jpeg(image, 90, s) - image, axis=-1)).mean() for s in ("4:4:4", "4:2:0")]
    assert colour[1] > 1.2 * colour[0]
