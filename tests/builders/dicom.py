"""DICOM objects as cameras and archives write them."""

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

OP8, OP16 = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2"
JPEG_BASELINE, JPEG_LOSSLESS, JPEG_LS, J2K, RLE = (
    f"1.2.840.10008.1.2.{n}" for n in ("4.50", "4.70", "4.80", "4.90", "5")
)


def code(value, scheme, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def photography(pixels: np.ndarray, *, frames: int = 1, **changes) -> Dataset:
    """An Ophthalmic Photography object with all that its definition (PS3.3, A.41 and A.42) requires."""
    ds = Dataset()
    ds.SOPClassUID = OP8 if pixels.dtype == np.uint8 else OP16
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P1", "19500101", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "101010", "S1", "A1"
    ds.ReferringPhysicianName, ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "Roe^Jo", "OP", 1, 1
    ds.Manufacturer, ds.ManufacturerModelName = "Maker", "Camera"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "77", "1"
    ds.SynchronizationFrameOfReferenceUID, ds.SynchronizationTrigger = "1.2.3.4", "NO TRIGGER"
    ds.AcquisitionTimeSynchronized = "N"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "", "COLOR"]
    ds.ContentDate, ds.ContentTime, ds.AcquisitionDateTime = "20200101", "101010", "20200101101010"
    ds.PatientOrientation, ds.ImageLaterality, ds.BurnedInAnnotation = ["L", "F"], "R", "NO"
    ds.LossyImageCompression, ds.PixelSpacing = "00", [0.012, 0.01]
    ds.AnatomicRegionSequence = [code("81745001", "SCT", "Eye")]
    ds.PatientEyeMovementCommanded = ds.EmmetropicMagnification = ds.IntraOcularPressure = None
    ds.HorizontalFieldOfView, ds.PupilDilated, ds.RefractiveStateSequence = 45, "NO", []
    ds.AcquisitionDeviceTypeCodeSequence = [code("409898007", "SCT", "Fundus Camera")]
    ds.IlluminationTypeCodeSequence = ds.LightPathFilterTypeStackCodeSequence = []
    ds.ImagePathFilterTypeStackCodeSequence = ds.LensesCodeSequence = []
    ds.DetectorType, ds.FrameIncrementPointer, ds.FrameTime = "CCD", 0x00181063, 0
    ds.NumberOfFrames = frames
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if pixels.shape[-1] == 3 else pixels.shape[-2:]
    ds.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    ds.PhotometricInterpretation = "RGB" if ds.SamplesPerPixel == 3 else "MONOCHROME2"
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    else:
        ds.PresentationLUTShape = "IDENTITY"
    ds.BitsAllocated = ds.BitsStored = pixels.itemsize * 8
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    raw = pixels.tobytes()
    ds.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", raw + b"\0" * (len(raw) % 2))
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


def written(ds: Dataset, syntax: str = "1.2.840.10008.1.2.1", coded: bytes | None = None) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    if coded is not None:
        ds.add_new("PixelData", "OB", encapsulate([coded]))
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()
