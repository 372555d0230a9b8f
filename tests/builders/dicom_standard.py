"""The standard's tables, as highdicom carries them, in the form that dicom-validator reads.

dicom-validator's own are downloaded when it runs. Those of highdicom have types and sequences, but not the conditions
of type 1C and 2C, so such attributes are checked only where they are present; conditional modules count as optional
ones, and so do functional groups.
"""

import functools
import io
import json
import logging
from importlib.resources import files

import pydicom
from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.iod_validator import IODValidator

OBJECTS = {
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "ophthalmic-photography-8-bit-image",
    "1.2.840.10008.5.1.4.1.1.77.1.5.2": "ophthalmic-photography-16-bit-image",
    "1.2.840.10008.5.1.4.1.1.30": "parametric-map",
}


@functools.cache
def tables() -> DicomInfo:
    folder = files("highdicom") / "_standard"
    modules_of, attributes_of = (
        json.loads((folder / name).read_text()) for name in ("iod_module_map.json", "module_attribute_map.json")
    )
    iods, modules = {}, {}
    for uid, title in OBJECTS.items():
        used = modules_of[title]
        iods[uid] = {
            "title": title,
            "modules": {m["key"]: {"ref": m["key"], "use": m["usage"].replace("C", "U")} for m in used},
            "group_macros": {},
        }
        for module in used:
            modules[module["key"]] = {}
            for attribute in sorted(attributes_of[module["key"]], key=lambda a: len(a["path"])):
                place = modules[module["key"]]
                for name in attribute["path"]:
                    place = place[tag_id(name)].setdefault("items", {})
                group = attribute["path"] in (["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"])
                kind = "3" if group else attribute["type"]
                place[tag_id(attribute["keyword"])] = {"name": attribute["keyword"], "type": kind}
    return DicomInfo({}, iods, modules)


def tag_id(keyword: str) -> str:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def complaints(data: bytes) -> list[str]:
    """What dicom-validator finds wrong with a file."""
    result = IODValidator(pydicom.dcmread(io.BytesIO(data)), tables(), log_level=logging.ERROR).validate()
    return sorted(
        f"{module} {tag} {error.code.name}"
        for module, tags in result.module_errors.items()
        for tag, error in tags.items()
    )
