"""Small DICOM series on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"
SLICES = 6
Change = Callable[[int, pydicom.Dataset], None]


def write_series(folder: Path, change: Change | None = None, slices: int = SLICES, prefix: str = "") -> Path:
    """A small oblique CT series with an identity, its files in no telling order."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = (generate_uid(entropy_srcs=[prefix + folder.name, kind]) for kind in ("study", "series", "frame"))
    angle = 0.2
    along_i, along_j = np.array([np.cos(angle), np.sin(angle), 0]), np.array([-np.sin(angle), np.cos(angle), 0])
    for k in range(slices):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[prefix + folder.name, str(k)])
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = PATIENT, "ID-4711", "19700101", "F"
        data.StudyDate, data.StudyTime, data.AccessionNumber, data.StudyID = "20200101", "120000", "ACC-0815", "1"
        data.ReferringPhysicianName = "Doc^Tor"
        data.Modality, data.Manufacturer, data.SeriesNumber, data.InstanceNumber = "CT", "Maker", 1, k + 1
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 8, 10, 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, -1000
        data.PixelSpacing, data.SliceThickness = [0.7, 0.9], 2.5
        data.ImageOrientationPatient = [float(f"{v:.8f}") for v in (*along_i, *along_j)]
        data.ImagePositionPatient = [-20.0, 5.0, 2.5 * k]
        data.PixelData = (np.arange(80, dtype=np.int16).reshape(8, 10) + 1000 * k).tobytes()
        if change:
            change(k, data)
        write_file(folder / f"{prefix}{(k * 7) % 11:02d}.dcm", data)
    return folder


def write_file(path: Path, data: pydicom.Dataset, *, bare: bool = False) -> None:
    """A file as the standard wants it, or the bare data, by pydicom 2 (which Slicer 5.10 ships) or 3."""
    if pydicom.__version_info__[0] == "2":
        data.is_little_endian, data.is_implicit_VR = True, bare
        pydicom.dcmwrite(path, data, write_like_original=bare)
    elif bare:
        pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
    else:
        pydicom.dcmwrite(path, data, enforce_file_format=True)
