"""The terminology file of the module, made from the catalogue of structures.

python -m Testing.support.terminology        writes MKDSegmentation/Resources/MKDSegmentation.term.json
"""

from __future__ import annotations

import json
from pathlib import Path

from mkd_core.io.atomic import write_text
from mkd_core.structures import ANATOMICAL_STRUCTURE, CATALOGUE

FILE = Path(__file__).resolve().parents[2] / "MKDSegmentation" / "Resources" / "MKDSegmentation.term.json"

_SCHEMA = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/segment-context-schema.json#"


def terminology() -> dict:
    """What the file holds: every structure with its code and colour, as 3D Slicer's terminologies have them."""
    scheme, value, meaning = ANATOMICAL_STRUCTURE
    types = [
        {
            "CodeMeaning": structure.code[2],
            "CodingSchemeDesignator": structure.code[0],
            "CodeValue": structure.code[1],
            "3dSlicerLabel": structure.key,
            "3dSlicerIntegerLabel": number,
            "recommendedDisplayRGBValue": list(structure.color),
        }
        for number, structure in enumerate(CATALOGUE, start=1)
    ]
    category = {
        "CodeMeaning": meaning,
        "CodingSchemeDesignator": scheme,
        "CodeValue": value,
        "showAnatomy": False,
        "Type": types,
    }
    return {
        "SegmentationCategoryTypeContextName": "MKDSegmentation whole heart",
        "@schema": _SCHEMA,
        "SegmentationCodes": {"Category": [category]},
    }


def main() -> None:
    """Write the file."""
    write_text(FILE, json.dumps(terminology(), indent=2) + "\n")


if __name__ == "__main__":
    main()
