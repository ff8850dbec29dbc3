"""The catalogue of all structures that exist: the only table of names, codes, colours and plausible volumes.

Everything that names, colours or judges a structure reads it from here, in Slicer and outside it.  Which structures a
bundle of weights knows, and in which order their labels run, the bundle says itself; :func:`labelled` gives its list
labels.  :data:`STRUCTURES` are the seven of whole-heart segmentation, which bundles know unless they say otherwise.

Label values of MM-WHS: Zhuang and Shen, "Multi-scale patch and multi-modality atlases for whole heart segmentation of
MRI", Medical Image Analysis 31 (2016).  Codes are SNOMED CT, as DICOM's CID 7140 and 3D Slicer's terminologies use
them.

To add a structure, add an entry to the catalogue and name it in the settings of a training run, ``[data] structures``.

Plausible volumes span the whole beat, men and women, and disease: from the normal mean of women at its smallest less
two to three standard deviations to the normal mean of men at its largest plus four to five.

- LV and RV: 160 ± 29 and 135 ± 26 ml (men, women), 190 ± 33 and 148 ± 35 ml at end-diastole; 50 ± 16 and 42 ± 12 ml,
  78 ± 20 and 56 ± 18 ml at end-systole.  LA: 103 ± 30 and 89 ± 21 ml at its largest, of which 58 ± 23 and 48 ± 15 ml
  leave it.  Hudsmith et al., J Cardiovasc Magn Reson 7 (2005), 775.
- RA: 77 ± 11 ml per m² of body surface at its largest.  Järvinen et al., Radiology 191 (1994), 137.
- Myo: 134 ± 21 and 98 ± 21 g.  Kawel-Boehm et al., J Cardiovasc Magn Reson 17 (2015), 29.
- AA: 34.1 and 31.9 mm in diameter, with its root 60 to 100 mm long.  Rogers et al., Am J Cardiol 111 (2013), 1510.
- LAA: 0.8 to 19.3 ml in casts of 220 hearts.  Ernst et al., Anat Rec 242 (1995), 553.
- PV, SVC, IVC, arch and descending aorta, coronary sinus: as far as a box round the heart goes; no source.
- PA: trunk 25.1 ± 2.8 mm in diameter and about 50 mm long, with both branches.  Truong et al., Circ Cardiovasc Imaging
  5 (2012), 147.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: SNOMED CT category of every segment written by this project: (scheme, value, meaning).
ANATOMICAL_STRUCTURE = ("SCT", "123037004", "Anatomical Structure")


@dataclass(frozen=True)
class Structure:
    """One structure of the heart.

    Attributes:
        key: fixed identifier, used as segment id and in reports.
        name: English name shown to people.
        abbreviation: short form used in tables.
        mmwhs: voxel values of the MM-WHS 2017 data set that mean this structure; may be empty.
        code: SNOMED CT triple (scheme, value, meaning).
        color: sRGB, each 0 to 255.
        plausible_ml: (smallest, largest) volume in ml that raises no warning in an adult.
        is_blood: True for blood pools, False for muscle.
        tissues: tissues of drawn hearts that belong to it, by their names in
            :class:`mkd_core.synthesis.tissues.Tissue`; one that several structures name belongs to the last of them in
            the catalogue.  Empty for what is not drawn.
        loss_weight: weight of its cross-entropy in training, chosen by hand so that small and thin structures are
            found early; no measurement prefers these values to their neighbours.
        branches: it may come in several large parts, where slices between them are thin.
        usual_parts: in so many it raises no warning.
        open_ended: it goes on beyond what is segmented or seen, so reaching the edge of the volume is no reason to
            doubt it.
        part_of: key of the one of the seven structures of whole-heart segmentation that it otherwise belongs to; empty
            for those themselves and for what belongs to none of them.
        region: key of the structure that DICOM names as its place, where its code says only what tissue it is.
        label: voxel value in label maps; 0, which is background, as long as no list gives it one.
    """

    key: str
    name: str
    abbreviation: str
    mmwhs: tuple[int, ...]
    code: tuple[str, str, str]
    color: tuple[int, int, int]
    plausible_ml: tuple[float, float]
    tissues: tuple[str, ...] = ()
    loss_weight: float = 1.0
    is_blood: bool = True
    branches: bool = False
    usual_parts: int = 1
    open_ended: bool = False
    part_of: str = ""
    region: str = ""
    label: int = 0


#: Every structure that there is.
CATALOGUE: tuple[Structure, ...] = (
    Structure(
        key="LV",
        name="Left ventricle",
        abbreviation="LV",
        mmwhs=(500,),
        code=("SCT", "87878005", "Left ventricle"),
        color=(216, 71, 60),
        plausible_ml=(20.0, 300.0),
        tissues=("LV", "PAPILLARY_MUSCLE"),
    ),
    Structure(
        key="RV",
        name="Right ventricle",
        abbreviation="RV",
        mmwhs=(600,),
        code=("SCT", "53085002", "Right ventricle"),
        color=(74, 120, 214),
        plausible_ml=(25.0, 330.0),
        tissues=("RV", "LEAD_IN_RV"),
        loss_weight=1.2,
    ),
    Structure(
        key="LA",
        name="Left atrium",
        abbreviation="LA",
        mmwhs=(420, 421),
        code=("SCT", "82471001", "Left atrium"),
        color=(240, 158, 56),
        plausible_ml=(15.0, 220.0),
        tissues=("LA", "LA_APPENDAGE", "PULMONARY_VEIN_STUB"),
        loss_weight=1.5,
    ),
    Structure(
        key="RA",
        name="Right atrium",
        abbreviation="RA",
        mmwhs=(550,),
        code=("SCT", "73829009", "Right atrium"),
        color=(72, 190, 205),
        plausible_ml=(15.0, 250.0),
        tissues=("RA", "LEAD_IN_RA"),
        loss_weight=1.5,
    ),
    Structure(
        key="Myo",
        name="Left ventricular myocardium",
        abbreviation="Myo",
        mmwhs=(205,),
        code=("SCT", "74281007", "Myocardium"),
        color=(140, 62, 130),
        plausible_ml=(35.0, 240.0),
        tissues=("MYOCARDIUM",),
        loss_weight=1.2,
        is_blood=False,
        region="LV",
    ),
    Structure(
        key="AA",
        name="Ascending aorta",
        abbreviation="AA",
        mmwhs=(820,),
        code=("SCT", "54247002", "Ascending aorta"),
        color=(235, 214, 74),
        plausible_ml=(18.0, 220.0),
        tissues=("ASCENDING_AORTA",),
        loss_weight=2.2,
    ),
    Structure(
        key="PA",
        name="Pulmonary artery",
        abbreviation="PA",
        mmwhs=(850,),
        code=("SCT", "81040000", "Pulmonary artery"),
        color=(92, 199, 118),
        plausible_ml=(15.0, 220.0),
        tissues=("PULMONARY_ARTERY", "DISTAL_PULMONARY_ARTERY"),
        loss_weight=2.5,
        branches=True,
    ),
    Structure(
        key="LAA",
        name="Left atrial appendage",
        abbreviation="LAA",
        mmwhs=(),
        code=("SCT", "33626005", "Left auricular appendage"),
        color=(198, 104, 34),
        plausible_ml=(1.0, 30.0),
        tissues=("LA_APPENDAGE",),
        loss_weight=2.5,
        part_of="LA",
    ),
    Structure(
        key="PV",
        name="Pulmonary veins",
        abbreviation="PV",
        mmwhs=(),
        code=("SCT", "122972007", "Pulmonary vein"),
        color=(250, 128, 160),
        plausible_ml=(2.0, 60.0),
        tissues=("PULMONARY_VEINS",),
        loss_weight=2.5,
        branches=True,
        usual_parts=6,
        open_ended=True,
    ),
    Structure(
        key="SVC",
        name="Superior vena cava",
        abbreviation="SVC",
        mmwhs=(),
        code=("SCT", "48345005", "Superior vena cava"),
        color=(0, 112, 184),
        plausible_ml=(3.0, 60.0),
        tissues=("SVC",),
        loss_weight=2.0,
        open_ended=True,
    ),
    Structure(
        key="IVC",
        name="Inferior vena cava",
        abbreviation="IVC",
        mmwhs=(),
        code=("SCT", "64131007", "Inferior vena cava"),
        color=(0, 146, 134),
        plausible_ml=(2.0, 90.0),
        tissues=("IVC",),
        loss_weight=2.0,
        open_ended=True,
    ),
    Structure(
        key="DAo",
        name="Aortic arch and descending aorta",
        abbreviation="DAo",
        mmwhs=(),
        code=("SCT", "113262008", "Thoracic aorta"),
        color=(196, 58, 96),
        plausible_ml=(20.0, 300.0),
        tissues=("AORTA_ARCH_DESCENDING",),
        loss_weight=1.5,
        branches=True,
        usual_parts=2,
        open_ended=True,
    ),
    Structure(
        key="CS",
        name="Coronary sinus",
        abbreviation="CS",
        mmwhs=(),
        code=("SCT", "90219004", "Coronary sinus"),
        color=(150, 120, 220),
        plausible_ml=(0.5, 15.0),
        tissues=("CORONARY_SINUS",),
        loss_weight=2.5,
    ),
)

_ENTRIES = {structure.key: structure for structure in CATALOGUE}


def labelled(keys: Iterable[str]) -> tuple[Structure, ...]:
    """Structures with labels from 1 on, in the order of their keys.

    Raises:
        KeyError: a key is not in the catalogue.
    """
    return tuple(dataclasses.replace(_ENTRIES[key], label=label) for label, key in enumerate(keys, start=1))


#: The seven structures of whole-heart segmentation with their labels: what bundles of format 1, drawn hearts and
#: training know unless they say otherwise.
STRUCTURES: tuple[Structure, ...] = labelled(("LV", "RV", "LA", "RA", "Myo", "AA", "PA"))


#: What the network for structures in detail tells apart beside the seven.
DETAILED: tuple[str, ...] = ("LAA", "PV", "SVC", "IVC", "DAo", "CS")


def labels_of_the_seven(structures: Sequence[Structure]) -> list[int]:
    """For every label of these structures, from 0 on, the label that whole-heart segmentation gives to the same place.

    Rules of anatomy that hold for the seven structures can so be applied to any list: an appendage counts as its
    atrium, and what belongs to none of the seven as background.
    """
    seven = {structure.key: structure.label for structure in STRUCTURES}
    return [0] + [seven.get(one.key, seven.get(one.part_of, 0)) for one in structures]


def with_parts(volumes_ml: Mapping[str, float]) -> dict[str, float]:
    """Volumes by key, in which a part counts to the one of the seven that it is part of as well: the left atrium has
    its appendage in whichever way it is labelled.
    """
    whole = dict(volumes_ml)
    for key, volume in volumes_ml.items():
        home = _ENTRIES[key].part_of if key in _ENTRIES else ""
        if home and whole.get(home):
            whole[home] += volume
    return whole


#: Number of classes that tells the seven apart from each other and from background.
CLASS_COUNT = len(STRUCTURES) + 1

#: The seven by label.
BY_LABEL: dict[int, Structure] = {structure.label: structure for structure in STRUCTURES}

#: The catalogue by key; of its entries only the seven have labels here, those of :data:`STRUCTURES`.
BY_KEY: dict[str, Structure] = _ENTRIES | {structure.key: structure for structure in STRUCTURES}

#: Value in training targets of voxels that count in no loss: cuts that are conventions the image does not show, and
#: padding.
IGNORE = 255

#: Most structures that a bundle can know; their labels must lie below :data:`IGNORE`.
MAX_STRUCTURES = 64

#: Density of myocardium in g/ml, for LV mass (SCMR convention).
MYOCARDIUM_DENSITY = 1.05
