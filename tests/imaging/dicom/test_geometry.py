"""What a DICOM header says of lengths, places and frames is true of the one frame that was enlarged."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from builders.dicom import photography, written
from retinashift.imaging.dicom.derived import deidentify, keep_frame
from retinashift.imaging.dicom.parametric import encode_with_map
from retinashift.imaging.dicom.read import decode_dicom
from retinashift.imaging.files import encode_image, with_metadata
from retinashift.imaging.provenance import Provenance

LIMIT = 10**6


def item(**values) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def enlarged(source: Dataset, frame: int | None = None, times: int = 4) -> Dataset:
    photograph = decode_dicom(written(source), LIMIT, frame)
    pixels = np.repeat(np.repeat(photograph.pixels, times, 0), times, 1)
    return pydicom.dcmread(io.BytesIO(encode_image("a.dcm", pixels, like=photograph, scale=times)))


def measures(*spacing: float) -> Dataset:
    return item(PixelMeasuresSequence=[item(PixelSpacing=list(spacing))])


@pytest.fixture
def frames(retina):
    return np.stack([retina, 255 - retina, retina // 2])


def test_spacings_in_functional_groups_are_divided_by_the_scale(frames):
    ds = photography(frames, frames=3)
    del ds.PixelSpacing
    ds.SharedFunctionalGroupsSequence = [measures(0.012, 0.008)]
    ds.PerFrameFunctionalGroupsSequence = [measures(0.1 * n, 0.2 * n) for n in (1, 2, 3)]
    result = enlarged(ds, 2)
    assert list(result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == [0.003, 0.002]
    assert list(result.PerFrameFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing) == [0.05, 0.1]


def test_resolution_is_found_in_functional_groups(frames):
    ds = photography(frames, frames=3)
    del ds.PixelSpacing
    ds.PerFrameFunctionalGroupsSequence = [measures(0.1 * n, 0.2 * n) for n in (1, 2, 3)]
    assert decode_dicom(written(ds), LIMIT, 3).dpi == pytest.approx((25.4 / 0.6, 25.4 / 0.3))


def test_one_frame_keeps_what_is_said_of_it_and_of_no_other(frames):
    ds = photography(frames, frames=3, FrameTimeVector=[0, 40, 50], FrameIncrementPointer=[0x00181065, 0x00182001])
    ds.PageNumberVector, ds.FrameLabelVector, ds.RepresentativeFrameNumber = [7, 8, 9], ["A", "B", "C"], 3
    ds.FrameNumbersOfInterest, ds.FrameOfInterestDescription = [3], ["disc"]
    content = [item(FrameContentSequence=[item(FrameComments=f"frame {n}")]) for n in (1, 2, 3)]
    ds.PerFrameFunctionalGroupsSequence = content
    result = enlarged(ds, 2)
    (group,) = result.PerFrameFunctionalGroupsSequence
    assert group.FrameContentSequence[0].FrameComments == "frame 2"
    assert (result.NumberOfFrames, result.FrameTimeVector, result.PageNumberVector) == (1, 0, 8)
    assert (result.FrameLabelVector, result.RepresentativeFrameNumber) == ("B", 1)
    assert "FrameNumbersOfInterest" not in result
    assert all(tag in result for tag in result.FrameIncrementPointer)


def test_the_increment_of_frames_never_points_at_what_is_gone(frames):
    ds = photography(frames, frames=3, FrameIncrementPointer=0x00182001)
    ds.PageNumberVector = [7, 8, 9]
    header = deidentify(decode_dicom(written(ds), LIMIT, 1).dicom)
    assert header.FrameIncrementPointer not in header
    keep_frame(header, 1)
    assert header.FrameIncrementPointer in header


def test_the_source_keeps_its_header(frames):
    ds = photography(frames, frames=3)
    ds.PerFrameFunctionalGroupsSequence = [measures(0.1, 0.2) for _ in range(3)]
    photograph = decode_dicom(written(ds), LIMIT, 2)
    encode_image("a.dcm", photograph.pixels, like=photograph)
    assert len(photograph.dicom.PerFrameFunctionalGroupsSequence) == photograph.dicom.NumberOfFrames == 3


def test_shutters_move_with_the_pixels_that_they_leave_open(retina):
    ds = photography(retina, ShutterShape=["RECTANGULAR", "CIRCULAR", "POLYGONAL"])
    ds.ShutterLeftVerticalEdge, ds.ShutterRightVerticalEdge = 11, 120
    ds.ShutterUpperHorizontalEdge, ds.ShutterLowerHorizontalEdge = 1, 128
    ds.CenterOfCircularShutter, ds.RadiusOfCircularShutter = [64, 65], 50
    ds.VerticesOfThePolygonalShutter = [1, 1, 1, 128, 128, 128]
    inner = item(FrameDisplayShutterSequence=[item(ShutterShape="CIRCULAR", RadiusOfCircularShutter=30)])
    ds.SharedFunctionalGroupsSequence = [inner]
    result = enlarged(ds)
    assert (result.ShutterLeftVerticalEdge, result.ShutterRightVerticalEdge) == (41, 480)
    assert (result.ShutterUpperHorizontalEdge, result.ShutterLowerHorizontalEdge) == (1, 512)
    assert (list(result.CenterOfCircularShutter), result.RadiusOfCircularShutter) == ([254, 258], 200)
    assert list(result.VerticesOfThePolygonalShutter) == [2, 2, 2, 510, 510, 510]
    shared = result.SharedFunctionalGroupsSequence[0].FrameDisplayShutterSequence[0]
    assert shared.RadiusOfCircularShutter == 120


def test_a_map_of_uncertainty_has_the_spacing_of_functional_groups(frames):
    ds = photography(frames, frames=3)
    del ds.PixelSpacing
    ds.SharedFunctionalGroupsSequence = [measures(0.012, 0.008)]
    photograph = decode_dicom(written(ds), LIMIT, 2)
    provenance = Provenance(4, "c", 1, 0, "1")
    result = with_metadata("a.dcm", photograph, like=photograph, scale=1, provenance=provenance)
    _, made = encode_with_map(result, np.zeros((128, 128)), "what it means")
    shared = pydicom.dcmread(io.BytesIO(made)).SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.012, 0.008]


def test_rows_and_columns_have_a_spacing_of_their_own_where_a_size_is_rounded(retina):
    ds = photography(retina[:25, :31])
    ds.PixelSpacing = [0.012, 0.008]
    photograph = decode_dicom(written(ds), LIMIT)
    record = Provenance(1.5, "c" * 64, 1, None, "1" * 64)
    data = encode_image("a.dcm", retina[:38, :47], like=photograph, scale=1.5, provenance=record)
    result = pydicom.dcmread(io.BytesIO(data))
    assert [float(v) for v in result.PixelSpacing] == pytest.approx([0.012 * 25 / 38, 0.008 * 31 / 47])
    assert result.SeriesDescription.startswith("Super-resolved x1.5 by")
