"""The tissues of an anatomy map: the only table of what a synthetic body is made of.

An anatomy map is an integer label map that names a tissue in every voxel, so that an appearance model can give each
tissue its own intensity.  It knows more than the seven structures: walls, appendages, vessels, fat, and the body around
the heart. `TARGET_OF` turns tissues into structure labels (see `mkd_core.structures`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from mkd_core.structures import CATALOGUE, STRUCTURES, Structure


class Tissue(IntEnum):
    """Value of a voxel in an anatomy map.  0 to 21 are the heart and its vessels, 22 and up the body around it."""

    OUTSIDE = 0  #: not named yet; whatever surrounds the heart
    LV = 1  #: blood up to the mitral and aortic valve planes
    RV = 2  #: blood up to the tricuspid and pulmonary valve planes
    LA = 3  #: blood, without appendage and pulmonary veins
    RA = 4  #: blood with the right appendage, without the caval veins
    MYOCARDIUM = 5  #: wall of the left ventricle with the septum
    ASCENDING_AORTA = 6  #: blood, from the valve to the first branch of the arch
    PULMONARY_ARTERY = 7  #: blood, trunk and the first part of both branches
    RV_WALL = 8
    LA_WALL = 9
    RA_WALL = 10
    SVC = 11
    IVC = 12
    PULMONARY_VEINS = 13
    LA_APPENDAGE = 14
    AORTA_ARCH_DESCENDING = 15  #: blood of the arch, its branches and the descending aorta
    FAT = 16  #: epicardial and pericardial fat
    CORONARY_SINUS = 17
    PAPILLARY_MUSCLE = 18
    DISTAL_PULMONARY_ARTERY = 19
    AORTIC_WALL = 20
    PULMONARY_ARTERY_WALL = 21
    AIR = 22  #: outside the body
    LUNG = 23
    LUNG_VESSEL = 24
    MUSCLE = 25
    SUBCUTANEOUS_FAT = 26
    CORTICAL_BONE = 27
    SPONGY_BONE = 28
    SPINAL_CANAL = 29
    DISC = 30
    AIRWAY = 31  #: air in trachea and bronchi
    AIRWAY_WALL = 32
    OESOPHAGUS = 33
    LIVER = 34
    STOMACH = 35  #: wall and content
    GAS = 36  #: in stomach and bowel
    SPLEEN = 37
    KIDNEY = 38
    MEDIASTINAL_FAT = 39
    FLUID = 40  #: pleural or pericardial
    SKIN = 41
    TABLE = 42  #: top of the scanner's table
    CORONARY = 43  #: coronary arteries
    HEPATIC_VEIN = 44
    ABDOMINAL_FAT = 45
    CALCIUM = 46  #: in the walls of arteries
    LEAD_IN_VEIN = 47  #: of a pacemaker
    LEAD_IN_RA = 48
    LEAD_IN_RV = 49
    PULMONARY_VEIN_STUB = (
        50  #: first 5 mm of the pulmonary veins; heart maps call it PULMONARY_VEINS, see render.mark_vein_stubs
    )


#: Number of values an anatomy map may take; values above the last `Tissue` are free.
TISSUE_COUNT = 64


def targets_of(structures: Sequence[Structure]) -> np.ndarray:
    """Label of every tissue, ``(64,)`` uint8, used as ``targets_of(structures)[anatomy]``.

    Args:
        structures: with their labels; which tissues belong to them says the catalogue.  Its convention: papillary
            muscles belong to the left ventricle, the appendage and the first 5 mm of the pulmonary veins to the left
            atrium unless the appendage is a structure of its own, the pulmonary artery runs to the hilum, walls of
            vessels, atria and right ventricle are background, and the aortic label ends at the first branch of the
            arch.
    """
    labels = {structure.key: structure.label for structure in structures}
    table = np.zeros(TISSUE_COUNT, dtype=np.uint8)
    for structure in CATALOGUE:
        if structure.key in labels:
            for tissue in structure.tissues:
                table[Tissue[tissue]] = labels[structure.key]
    table.setflags(write=False)
    return table


#: Label of every tissue for the seven structures of whole-heart segmentation.
TARGET_OF: np.ndarray = targets_of(STRUCTURES)
