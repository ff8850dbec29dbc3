"""The tissues of an anatomy map: the only table of what a synthetic body is made of.

An anatomy map is an integer label map that names a tissue in every voxel, so that an appearance model can give each tissue its own
intensity.  It knows more than the seven structures: walls, appendages, vessels, fat, and the body around the heart.
`TARGET_OF` turns tissues into structure labels (see `mkd_core.structures`).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Tissue(IntEnum):
    """Value of a voxel in an anatomy map.  0 to 21 are the heart and its vessels, 22 and up the body around it."""

    OUTSIDE = 0  #: not named yet; whatever surrounds the heart
    LEFT_VENTRICLE = 1  #: blood up to the mitral and aortic valve planes
    RIGHT_VENTRICLE = 2  #: blood up to the tricuspid and pulmonary valve planes
    LEFT_ATRIUM = 3  #: blood, without appendage and pulmonary veins
    RIGHT_ATRIUM = 4  #: blood with the right appendage, without the caval veins
    MYOCARDIUM = 5  #: wall of the left ventricle with the septum
    ASCENDING_AORTA = 6  #: blood, from the valve to the first branch of the arch
    PULMONARY_ARTERY = 7  #: blood, trunk and the first part of both branches
    RIGHT_VENTRICLE_WALL = 8
    LEFT_ATRIUM_WALL = 9
    RIGHT_ATRIUM_WALL = 10
    SUPERIOR_VENA_CAVA = 11
    INFERIOR_VENA_CAVA = 12
    PULMONARY_VEIN = 13
    LEFT_ATRIAL_APPENDAGE = 14
    DISTAL_AORTA = 15  #: blood of the arch, its branches and the descending aorta
    HEART_FAT = 16  #: epicardial and pericardial fat
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
    AIRWAY_AIR = 31
    AIRWAY_WALL = 32
    OESOPHAGUS = 33
    LIVER = 34
    STOMACH = 35  #: wall and content
    BOWEL_GAS = 36  #: gas in stomach and bowel
    SPLEEN = 37
    KIDNEY = 38
    MEDIASTINAL_FAT = 39
    PLEURAL_FLUID = 40  #: pleural or pericardial fluid
    SKIN = 41
    TABLE = 42  #: the scanner's table top


#: Number of values an anatomy map may take; values above the last `Tissue` are free.
TISSUE_COUNT = 64


def _target_table() -> np.ndarray:
    table = np.zeros(TISSUE_COUNT, dtype=np.uint8)
    for tissue, label in (
        (Tissue.LEFT_VENTRICLE, 1),
        (Tissue.PAPILLARY_MUSCLE, 1),
        (Tissue.RIGHT_VENTRICLE, 2),
        (Tissue.LEFT_ATRIUM, 3),
        (Tissue.LEFT_ATRIAL_APPENDAGE, 3),
        (Tissue.RIGHT_ATRIUM, 4),
        (Tissue.MYOCARDIUM, 5),
        (Tissue.ASCENDING_AORTA, 6),
        (Tissue.PULMONARY_ARTERY, 7),
        (Tissue.DISTAL_PULMONARY_ARTERY, 7),
    ):
        table[tissue] = label
    table.setflags(write=False)
    return table


#: Structure label (0 to 7) of every tissue, ``(64,)`` uint8, used as ``TARGET_OF[anatomy]``.  The convention of this project: papillary
#: muscles belong to the left ventricle, the appendage to the left atrium, the pulmonary artery runs to the hilum, walls of vessels,
#: atria and right ventricle are background, and the aortic label ends at the first branch of the arch.
TARGET_OF: np.ndarray = _target_table()
