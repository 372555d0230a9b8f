"""A photograph in the page takes no longer than by the command line and a second."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from builders.page import WAIT
from retinashift.imaging.degradation.bicubic import bicubic_pillow, crop_to_multiple
from retinashift.imaging.files import read_image, write_image


@pytest.mark.shared
def test_a_photograph_of_drive_is_shown_within_the_time_of_the_command_line_and_a_second(
    page, browser, shared, tmp_path
):
    hr = read_image(min((shared / "data" / "drive" / "images").iterdir())).pixels
    file = tmp_path / "eye.png"
    write_image(file, bicubic_pillow(crop_to_multiple(hr, 4), 4))  # 141 x 146
    view = browser.new_page()
    view.goto(page.address)
    view.wait_for_function("document.querySelector('#model')?.textContent.startsWith('ready')", timeout=4 * WAIT)
    view.locator("#photographs input[type=file]").set_input_files(str(file))
    view.wait_for_selector("#photographs .file-preview", timeout=WAIT)
    began = time.perf_counter()
    view.locator("#go").click()
    view.wait_for_selector("retina-viewer[data-ready]", timeout=WAIT)
    in_the_page = time.perf_counter() - began
    view.close()
    began = time.perf_counter()
    command = [sys.executable, "-m", "retinashift", "upscale", str(file), "-o", str(tmp_path / "out"), "--steps", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    by_command = time.perf_counter() - began
    print(f"page {in_the_page:.2f} s, command line {by_command:.2f} s")
    assert in_the_page <= by_command + 1
