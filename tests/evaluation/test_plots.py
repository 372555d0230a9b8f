"""Plots are well-formed SVG with a mark for each photograph, and escape names."""

import re
from xml.etree import ElementTree

from retinashift.evaluation.intervals import bootstrap_mean
from retinashift.evaluation.plots import curve_plot, strip_plot

VALUES = {"a <b>": [30.0, 31.0, float("inf")], "c": [32.0, 33.5]}
COLOURS = {"a <b>": "#111111", "c": "#222222"}


def test_a_strip_has_a_mark_for_each_finite_value_and_a_disk_for_each_mean():
    means = {name: bootstrap_mean([v for v in given if v < 100]) for name, given in VALUES.items()}
    svg = ElementTree.fromstring(strip_plot("PSNR", VALUES, means, COLOURS))
    assert len(svg.findall("circle")) == 2
    assert len([line for line in svg.findall("line") if line.get("stroke-opacity")]) == 4
    assert "a <b>" in [text.text for text in svg.findall("text")]


def test_equal_values_and_none_can_be_drawn():
    assert strip_plot("x", {"a": [float("inf")]}, {}, {"a": "#000"}) == ""
    ElementTree.fromstring(strip_plot("x", {"a": [0.0, 0.0]}, {"a": bootstrap_mean([0.0, 0.0])}, {"a": "#000"}))


def test_curves_stay_inside_the_axes():
    svg = curve_plot(
        "t", [0.0, 0.25, 0.5], {"c": [0.0, 1.0, 99.0]}, COLOURS, x_label="x", y_range=(0.0, 1.5), marks={0.125: "m"}
    )
    (points,) = re.findall(r'points="([^"]+)"', svg)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert min(heights) >= 30
    assert max(heights) <= 300
    assert ElementTree.fromstring(svg).findall("polyline")
