"""The page holds everything it needs, shows every method, and takes names for what they are: text."""

import base64
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import skimage.data
from PIL import Image

from retinashift.evaluation.benchmark import Method, baseline, evaluate
from retinashift.evaluation.page import AGREED, CROP, MISSED, Axis, Gallery, error_colours, render_html, strips_of
from retinashift.evaluation.report import Report, Row
from retinashift.evaluation.similarity import fidelity
from retinashift.imaging.degradation.bicubic import bicubic_pillow, enlarge

NAMES = ("eye <1>.png", "eye 2.png")


@pytest.fixture(scope="module")
def made():
    hr = skimage.data.retina()[500:740, 400:700].copy()
    smooth = Method("smooth & slow", lambda lr, seed: enlarge(lr, 4, "lanczos"), stochastic=True)
    gallery = Gallery(frozenset(NAMES[:1]), worst=0)
    report = evaluate(
        [(NAMES[0], hr), (NAMES[1], hr[::-1])], [baseline("bicubic", 4), smooth], scale=4, seeds=[0, 1],
        on_result=gallery.add,
    )  # fmt: skip
    return report, gallery


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing(made):
    page = render_html(*made, "Test set")
    assert not re.search(r"<script|<link|<iframe|@import|url\(|https?://|\son\w+=", page)
    assert set(re.findall(r'src="([^,"]+),', page)) == {"data:image/png;base64"}


def test_names_are_escaped(made):
    page = render_html(*made, "A <b> title")
    assert "eye &lt;1&gt;.png" in page
    assert "smooth &amp; slow" in page
    assert "<b>" not in page


def test_every_method_has_its_figures_and_its_crops(made):
    report, gallery = made
    page = render_html(report, gallery, "t")
    for mean in report.means().values():
        assert f"{mean['psnr_rgb_fov']:.2f}" in page
    # input, photograph, its vessels, and picture, error and vessels of two methods; and the bar of colours
    pictures = [Image.open(io.BytesIO(base64.b64decode(code))) for code in re.findall(r"base64,([^\"]+)", page)]
    assert sum(picture.size == (CROP, CROP) for picture in pictures) == 9
    assert len(pictures) == 10
    assert page.count("<svg") == page.count("</svg>") >= 5
    difference = report.differences()["bicubic"]["psnr_rgb_fov"]
    assert f"{difference.mean:+.2f}" in page


def test_the_crop_lies_where_bicubic_errs_and_shows_the_pixels_themselves(made):
    _, gallery = made
    exhibit = gallery.exhibits[NAMES[0]]
    hr = skimage.data.retina()[500:740, 400:700]
    assert exhibit.reference.picture.shape == (CROP, CROP, 3)
    assert np.array_equal(exhibit.reference.picture, hr[exhibit.window])
    seen = {tuple(colour) for colour in exhibit.panels["bicubic"].vessels.reshape(-1, 3)}
    assert {AGREED, MISSED} <= seen
    assert len(gallery.power["bicubic"]) == 2


def test_the_photographs_that_gain_least_are_shown_least_first(retina):
    def sharp(lr, seed):
        return shown[lr.tobytes()]

    photographs = [(name, np.roll(retina, 5 * number, 0)) for number, name in enumerate("abcd")]
    shown = {}
    for name, hr in photographs:  # b and d are given back worst
        lr = bicubic_pillow(hr, 4)
        shown[lr.tobytes()] = {"b": np.full_like(hr, 90), "d": enlarge(lr, 4, "nearest")}.get(name, hr // 2 * 2)
    gallery = Gallery(frozenset("a"), worst=2)
    report = evaluate(photographs, [baseline("bicubic", 4), Method("ours", sharp)], scale=4, seeds=[0], metrics=[],
                      on_result=gallery.add)  # fmt: skip
    worst = gallery.worst_exhibits()
    assert [exhibit.image for exhibit in worst] == ["b", "d"]
    means = {row.method: row.scores["psnr_rgb_fov"] for row in report.rows if row.image == "b"}
    assert worst[0].gain == pytest.approx(means["ours"] - means["bicubic"])
    assert set(gallery.exhibits) == set("abd")
    page = render_html(report, gallery, "t")
    assert page.index("Worst photographs") < page.index(f"gain {worst[0].gain:+.2f} dB")


def test_plots_are_well_formed_with_a_stroke_for_each_photograph_and_curves_inside_the_axes(made):
    _, gallery = made
    page = render_html(*made, "t")
    plots = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert len(plots[0].findall("circle")) == 2
    assert len([path for path in plots[0].findall("path") if path.get("stroke-opacity")]) == 4
    assert "smooth & slow" in [text.text for text in plots[0].findall("text")]
    (curves,) = [plot for plot in plots if plot.findall("polyline")]
    heights = [float(at.split(",")[1]) for line in curves.findall("polyline") for at in line.get("points").split()]
    assert len(heights) == 2 * len(gallery.power["bicubic"][0])
    assert 30 <= min(heights) <= max(heights) <= 300


def test_only_finite_values_are_drawn_and_equal_ones_have_an_axis():
    def strips(*values):
        rows = tuple(Row(str(n), "a", (), {"psnr_rgb_fov": value}) for n, value in enumerate(values))
        return strips_of(Report(4, (0,), rows, metrics=()), fidelity.scores[1])

    assert strips(math.inf, None) is None
    assert strips(0.0, math.inf, 0.0)[0] == {"a": [0.0, 0.0]}
    assert strips(0.0, 0.0)[1].ticks
    assert Axis(0, 1.6, 0, 100).at(99) == 100


def test_no_error_is_black_and_a_large_one_pale():
    black, pale = error_colours(np.array([[0.0, 24.0]]))[0]
    assert black.max() < 16
    assert pale.min() > 180
