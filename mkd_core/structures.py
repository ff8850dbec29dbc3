"""The seven structures of whole-heart segmentation: the only table of labels, names, codes and colours.

Everything that writes, names, colours or judges a structure reads it from here, in Slicer and outside it.

Label values of MM-WHS: Zhuang and Shen, "Multi-scale patch and multi-modality atlases for whole heart segmentation of
MRI", Medical Image Analysis 31 (2016).  Codes are SNOMED CT, as DICOM's CID 7140 and 3D Slicer's terminologies use
them.
"""

from __future__ import annotations

from dataclasses import dataclass

#: SNOMED CT category of every segment written by this project: (scheme, value, meaning).
ANATOMICAL_STRUCTURE = ("SCT", "123037004", "Anatomical Structure")


@dataclass(frozen=True)
class Structure:
    """One structure of the heart.

    Attributes:
        label: voxel value in label maps written by this project, 1 to 7; 0 is background.
        key: fixed identifier, used as segment id and in reports.
        name: English name shown to people.
        abbreviation: short form used in tables.
        mmwhs: voxel values of the MM-WHS 2017 data set that mean this structure.
        code: SNOMED CT triple (scheme, value, meaning).
        color: sRGB, each 0 to 255.
        plausible_ml: (smallest, largest) volume in ml that raises no warning in an adult.
        is_blood: True for blood pools, False for muscle.
    """

    label: int
    key: str
    name: str
    abbreviation: str
    mmwhs: tuple[int, ...]
    code: tuple[str, str, str]
    color: tuple[int, int, int]
    plausible_ml: tuple[float, float]
    is_blood: bool = True


STRUCTURES: tuple[Structure, ...] = (
    Structure(
        1, "LV", "Left ventricle", "LV", (500,), ("SCT", "87878005", "Left ventricle"), (216, 71, 60), (40.0, 350.0)
    ),
    Structure(
        2, "RV", "Right ventricle", "RV", (600,), ("SCT", "53085002", "Right ventricle"), (74, 120, 214), (50.0, 400.0)
    ),
    Structure(
        3, "LA", "Left atrium", "LA", (420, 421), ("SCT", "82471001", "Left atrium"), (240, 158, 56), (25.0, 300.0)
    ),
    Structure(
        4, "RA", "Right atrium", "RA", (550,), ("SCT", "73829009", "Right atrium"), (72, 190, 205), (30.0, 350.0)
    ),
    Structure(
        5,
        "Myo",
        "Left ventricular myocardium",
        "Myo",
        (205,),
        ("SCT", "74281007", "Myocardium"),
        (140, 62, 130),
        (50.0, 350.0),
        is_blood=False,
    ),
    Structure(
        6, "AA", "Ascending aorta", "AA", (820,), ("SCT", "54247002", "Ascending aorta"), (235, 214, 74), (20.0, 220.0)
    ),
    Structure(
        7,
        "PA",
        "Pulmonary artery",
        "PA",
        (850,),
        ("SCT", "81040000", "Pulmonary artery"),
        (92, 199, 118),
        (20.0, 200.0),
    ),
)

#: Number of classes a segmentor tells apart: background and the seven structures.
CLASS_COUNT = len(STRUCTURES) + 1

#: Value in training targets of voxels that count in no loss: cuts that are conventions the image does not show, and
#: padding.
IGNORE = 255

BY_LABEL: dict[int, Structure] = {s.label: s for s in STRUCTURES}
BY_KEY: dict[str, Structure] = {s.key: s for s in STRUCTURES}

#: Density of myocardium in g/ml, for LV mass (SCMR convention).
MYOCARDIUM_DENSITY = 1.05
