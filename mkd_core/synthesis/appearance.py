"""How tissues look: random but plausible CT numbers in HU and MR signals, one draw per image.

An :class:`Appearance` gives every tissue a mean and a texture; :mod:`mkd_core.synthesis.render` turns it and a tissue
map into an image. CT draws follow contrast phases (left heart, right heart, veins), MR draws follow bright-blood
sequences, late enhancement or nothing at all (random contrast), since no scanner promises absolute MR values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mkd_core.protocol import MODALITIES
from mkd_core.synthesis.tissues import TISSUE_COUNT
from mkd_core.synthesis.tissues import Tissue as T

TISSUE_SLOTS = TISSUE_COUNT

#: Tissues that are blood.
BLOOD = (
    T.LV,
    T.RV,
    T.LA,
    T.RA,
    T.ASCENDING_AORTA,
    T.PULMONARY_ARTERY,
    T.SVC,
    T.IVC,
    T.PULMONARY_VEINS,
    T.LA_APPENDAGE,
    T.AORTA_ARCH_DESCENDING,
    T.CORONARY_SINUS,
    T.DISTAL_PULMONARY_ARTERY,
    T.LUNG_VESSEL,
    T.HEPATIC_VEIN,
    T.CORONARY,
)

#: A pacemaker's wire, by where it lies.
LEADS = (T.LEAD_IN_VEIN, T.LEAD_IN_RA, T.LEAD_IN_RV)


@dataclass
class Appearance:
    """One draw of how an image looks.

    Attributes:
        mean: mean signal per tissue, ``(64,)``; HU for CT, relative units (blood about 1) for MR.
        fine: standard deviation of fine texture per tissue, ``(64,)``, correlation about 3 mm.
        coarse: standard deviation of coarse texture per tissue, ``(64,)``, correlation about 10 mm: contrast not yet
            mixed, mottled blood.
        blur_mm: in-plane blur, standard deviation.
        slice_mm: slice thickness along z.
        noise: standard deviation of the noise, units of ``mean``.
        noise_mm: correlation length of the noise.
        bias: strength of the multiplicative bias field (MR), 0 for none.
        streaks: amplitude of streaks from dense contrast in the SVC, HU.
        scar: signal of infarcted muscle; 0 for none.
        voids: share of the signal that blood loses where its flow is turbulent.
        bands: share of the signal that is lost where the field is off resonance by half a cycle per repetition.
        coil: how much surface coils brighten what lies before and behind the heart, exponent at 100 mm.
    """

    modality: str
    mean: np.ndarray = field(default_factory=lambda: np.zeros(TISSUE_SLOTS, np.float32))
    fine: np.ndarray = field(default_factory=lambda: np.zeros(TISSUE_SLOTS, np.float32))
    coarse: np.ndarray = field(default_factory=lambda: np.zeros(TISSUE_SLOTS, np.float32))
    blur_mm: float = 0.0
    slice_mm: float = 0.0
    noise: float = 0.0
    noise_mm: float = 0.0
    bias: float = 0.0
    streaks: float = 0.0
    scar: float = 0.0
    voids: float = 0.0
    bands: float = 0.0
    coil: float = 0.0


def _fill(look: Appearance, table: dict[int, tuple[float, float, float]]) -> None:
    for tissue, (mean, fine, coarse) in table.items():
        look.mean[tissue], look.fine[tissue], look.coarse[tissue] = mean, fine, coarse


def ct(rng: np.random.Generator) -> Appearance:
    """Draw a CT: contrast phase, tissue HU, noise, kernel and slice thickness."""
    u, look = rng.uniform, Appearance("CT")
    left = u(180, 620) if rng.random() < 0.92 else u(40, 180)
    phase = rng.random()
    if phase < 0.45:
        right = left + rng.normal(0, 60)  # late or triphasic: both sides alike
    elif phase < 0.75:
        right = left * u(0.25, 0.8)  # coronary phase, right side washed out
    elif phase < 0.90:
        right = left + u(50, 450)  # early: pulmonary phase
        if rng.random() < 0.4:
            left *= u(0.4, 0.9)
    else:
        right = u(35, 110)  # hardly any contrast on the right
    right = max(right, 35.0)
    atrial = right + rng.normal(0, 40)
    muscle = u(60, 150) if left > 200 else u(35, 90)
    caval = max(
        35.0, right + (u(100, 1500) if rng.random() < 0.65 else rng.normal(0, 80))
    )  # injected through an arm, mostly dense
    below = float(np.clip(right * u(0.2, 0.9), 35, 350))
    mixing = u(60, 400) if rng.random() < 0.35 else u(0, 40)
    soft, fat, lung = u(30, 70), u(-125, -75), u(-930, -700)
    liver = u(45, 140)

    def jitter(sigma: float) -> float:
        return float(rng.normal(0, sigma))

    blood = u(2, 18)
    _fill(
        look,
        {
            T.OUTSIDE: (lung, 20, 0),
            T.LV: (left + jitter(20), blood, u(0, 20)),
            T.LA: (left + jitter(25), blood, u(0, 15)),
            T.ASCENDING_AORTA: (left + jitter(25), blood, 5),
            T.AORTA_ARCH_DESCENDING: (left + jitter(35), blood, 5),
            T.PULMONARY_VEINS: (left + jitter(30), blood, 5),
            T.LA_APPENDAGE: (left * (u(0.3, 1) if rng.random() < 0.25 else 1) + jitter(15), blood, 10),
            T.RV: (right + jitter(40), blood, 0.5 * mixing),
            T.RA: (max(30.0, atrial), blood, mixing),
            T.PULMONARY_ARTERY: (right + jitter(30), blood, 0.15 * mixing),
            T.SVC: (caval, blood, 0.6 * mixing),
            T.IVC: (below, blood, 0.6 * mixing),
            T.CORONARY_SINUS: (u(60, max(70.0, right)), blood, 5),
            T.MYOCARDIUM: (muscle, u(4, 16), u(0, 12)),
            T.PAPILLARY_MUSCLE: (muscle + jitter(10), 8, 0),
            T.RV_WALL: (muscle + jitter(15), 8, 5),
            T.LA_WALL: (u(20, 110), 8, 0),
            T.RA_WALL: (u(20, 110), 8, 0),
            T.AORTIC_WALL: (u(30, 90), 15, 0),
            T.PULMONARY_ARTERY_WALL: (u(20, 90), 10, 0),
            T.FAT: (fat, 15, 15),
            T.MEDIASTINAL_FAT: (fat + u(0, 50), 15, 25),
            T.SUBCUTANEOUS_FAT: (fat, 10, 8),
            T.ABDOMINAL_FAT: (fat, 12, 10),
            T.MUSCLE: (soft, 10, 10),
            T.AIR: (-1000, 3, 0),
            T.LUNG: (lung, 35, 40),
            T.CORTICAL_BONE: (u(350, 1100), 60, 40),
            T.SPONGY_BONE: (u(90, 350), 50, 30),
            T.DISC: (u(60, 120), 10, 5),
            T.SPINAL_CANAL: (u(10, 50), 8, 0),
            T.AIRWAY: (-990, 8, 0),
            T.AIRWAY_WALL: (u(0, 60), 15, 0),
            T.OESOPHAGUS: (u(10, 60), 15, 40),
            T.LIVER: (liver, 6, 8),
            T.HEPATIC_VEIN: (liver + u(-15, 90), 6, 0),
            T.STOMACH: (u(0, 90), 15, 30),
            T.GAS: (-950, 10, 0),
            T.SPLEEN: (u(50, 180), 8, 15),
            T.KIDNEY: (u(40, 250), 10, 30),
            T.FLUID: (u(0, 35), 5, 3),
            T.TABLE: (u(-400, 300), 20, 0),
            T.CORONARY: (left + u(-80, 300), 20, 0),
            T.CALCIUM: (900, 150, 0),
            **dict.fromkeys(LEADS, (2900, 0, 0)),
        },
    )
    vessel = right if rng.random() < 0.5 else left
    look.mean[T.DISTAL_PULMONARY_ARTERY] = look.mean[T.PULMONARY_ARTERY] + jitter(25)
    look.fine[T.DISTAL_PULMONARY_ARTERY] = blood
    look.mean[T.LUNG_VESSEL], look.fine[T.LUNG_VESSEL] = max(30.0, vessel * u(0.6, 1.0)), 40
    look.blur_mm = u(0.3, 1.6)
    look.slice_mm = u(0.5, 2.0) if rng.random() < 0.75 else u(2.0, 5.0)
    look.noise, look.noise_mm = float(rng.gamma(2.0, 12.0)), u(0.8, 3.0)
    look.streaks = u(20, 200) if caval > 800 and rng.random() < 0.6 else 0.0
    return look


def mr(rng: np.random.Generator) -> Appearance:
    """Draw an MR: bright-blood or late-enhancement contrast, or any contrast at all; bias field, mottled blood,
    noise.
    """
    u, look = rng.uniform, Appearance("MR")
    kind = rng.random()
    if kind < 0.12:  # anything
        look.mean[:] = rng.uniform(0.05, 1.2, TISSUE_SLOTS)
        same = u(0.5, 1.2)
        for tissue in BLOOD:
            look.mean[tissue] = same + rng.normal(0, 0.08)
        muscle = float(np.clip(same + rng.choice([-1, 1]) * u(0.25, 0.6), 0.03, 1.6))
        fat = u(0.05, 1.3)
    else:
        muscle = u(0.12, 0.62)
        fat = u(0.05, 0.5) if rng.random() < 0.5 else u(0.5, 1.4)
        right = float(np.clip(rng.normal(1.0, 0.15), 0.65, 1.35))
        values = dict.fromkeys(BLOOD, 1.0)
        values.update(dict.fromkeys((T.RV, T.RA, T.PULMONARY_ARTERY, T.DISTAL_PULMONARY_ARTERY, T.SVC, T.IVC), right))
        for tissue, value in values.items():
            look.mean[tissue] = value + rng.normal(0, 0.07)
        look.mean[T.LUNG_VESSEL] = u(0.2, 0.9)
        look.mean[T.CORONARY_SINUS] = u(0.7, 1.05)
        look.mean[T.CORONARY] = u(0.4, 1.1)
    lung = u(0.01, 0.15)
    around = u(0.15, 0.7)
    _fill(
        look,
        {
            T.OUTSIDE: (lung, 0.01, 0),
            T.AIR: (0.01, 0, 0),
            T.LUNG: (lung, 0.02, 0.02),
            T.AIRWAY: (0.01, 0, 0),
            T.GAS: (0.01, 0, 0),
            T.MYOCARDIUM: (muscle, 0.03, u(0.01, 0.06)),
            T.PAPILLARY_MUSCLE: (muscle + rng.normal(0, 0.05), 0.03, 0.02),
            T.RV_WALL: (muscle + rng.normal(0, 0.06), 0.03, 0.02),
            T.LA_WALL: (muscle + u(-0.1, 0.45), 0.05, 0.05),
            T.RA_WALL: (muscle + u(-0.1, 0.3), 0.05, 0.03),
            T.AORTIC_WALL: (muscle + u(-0.15, 0.2), 0.05, 0),
            T.PULMONARY_ARTERY_WALL: (muscle + u(-0.15, 0.2), 0.05, 0),
            T.FAT: (fat, 0.05, 0.08),
            T.MEDIASTINAL_FAT: (fat * u(0.6, 1.1), 0.06, 0.12),
            T.SUBCUTANEOUS_FAT: (fat * u(0.9, 1.5), 0.05, 0.05),
            T.ABDOMINAL_FAT: (fat, 0.05, 0.05),
            T.MUSCLE: (around, 0.04, 0.05),
            T.CORTICAL_BONE: (u(0.02, 0.25), 0.03, 0.02),
            T.SPONGY_BONE: (u(0.15, 0.9), 0.06, 0.05),
            T.DISC: (u(0.1, 0.9), 0.04, 0.03),
            T.SPINAL_CANAL: (u(0.2, 1.4), 0.04, 0.02),
            T.AIRWAY_WALL: (u(0.2, 0.6), 0.05, 0),
            T.OESOPHAGUS: (u(0.2, 0.8), 0.08, 0.1),
            T.LIVER: (u(0.25, 0.9), 0.03, 0.04),
            T.STOMACH: (u(0.1, 0.9), 0.05, 0.15),
            T.SPLEEN: (u(0.3, 1.1), 0.03, 0.03),
            T.KIDNEY: (u(0.3, 1.2), 0.05, 0.08),
            T.FLUID: (u(0.1, 1.5), 0.03, 0.02),
            T.TABLE: (0.01, 0, 0),
            T.CALCIUM: (0.02, 0.01, 0),
            **dict.fromkeys(LEADS, (0.0, 0, 0)),
        },
    )
    look.mean[T.HEPATIC_VEIN] = look.mean[T.LIVER] + u(-0.1, 0.35)
    mottled = float(rng.gamma(1.5, 0.05))
    for tissue in BLOOD:
        look.fine[tissue], look.coarse[tissue] = u(0.01, 0.06), mottled
    np.clip(look.mean, 0.0, 2.0, out=look.mean)
    look.blur_mm = u(0.4, 1.8)
    look.slice_mm = u(0.8, 2.0) if rng.random() < 0.7 else u(2.0, 5.0)
    look.noise, look.noise_mm = float(rng.gamma(2.0, 0.025)), u(0.5, 2.0)
    look.bias = u(0.0, 0.45)
    return look


#: Tissues of fat, whose protons precess more slowly than water's.
FATS = (T.FAT, T.MEDIASTINAL_FAT, T.SUBCUTANEOUS_FAT, T.ABDOMINAL_FAT)

#: Walls that are thin and take up contrast agent after ablation or with age.
_THIN_WALLS = (T.LA_WALL, T.RA_WALL, T.AORTIC_WALL, T.PULMONARY_ARTERY_WALL)

#: Shares of the varied draws; the rest is drawn as usual.
SHARE_BALANCED, SHARE_LATE, SHARE_PLAIN = 0.32, 0.22, 0.22


def _relative(look: Appearance, muscle: float, fat: float, rng: np.random.Generator) -> None:
    """Muscle and fat in relation to blood, which stays about 1; walls go with muscle."""
    for tissue in (T.MYOCARDIUM, T.PAPILLARY_MUSCLE, T.RV_WALL, *_THIN_WALLS):
        look.mean[tissue] = max(0.02, muscle + rng.normal(0, 0.05))
    for tissue, share in zip(FATS, (1.0, rng.uniform(0.5, 1.0), rng.uniform(1.0, 1.8), 1.0)):
        look.mean[tissue] = fat * share
        look.fine[tissue], look.coarse[tissue] = 0.08 * fat, 0.12 * fat


def balanced_mr(rng: np.random.Generator) -> Appearance:
    """Draw a balanced steady-state MR, as whole-heart and cine protocols use it.

    Its signal goes with 1 / (1 + T1 / T2) at the best flip angle (Scheffler and Lehnhardt, "Principles and applications
    of balanced SSFP techniques", Eur Radiol 13:2409, 2003): with blood at 1, muscle is 0.3 and fat 1.7.  Small flip
    angles and blood that is not renewed, as in 3-D slabs, bring muscle up to 0.85; surface coils add to the fat of the
    chest wall.  In most draws fat and water are opposed, so that their border is a black line, and signal is lost where
    the field is off resonance by half a cycle per repetition.
    """
    u, look = rng.uniform, mr(rng)
    for tissue in BLOOD:
        look.mean[tissue] = 1.0 + rng.normal(0, 0.06)
    look.mean[T.LUNG_VESSEL], look.mean[T.CORONARY_SINUS] = u(0.2, 1.0), u(0.7, 1.05)
    look.mean[T.LUNG], look.mean[T.OUTSIDE] = (u(0.0, 0.12),) * 2
    _relative(look, u(0.25, 0.85), u(1.2, 3.2) if rng.random() < 0.75 else u(0.1, 0.6), rng)
    if rng.random() < 0.3:  # a septum between the atria that does not show
        for tissue in (T.LA_WALL, T.RA_WALL):
            look.mean[tissue] = u(0.7, 1.0)
    look.mean[T.MUSCLE], look.mean[T.LIVER] = u(0.15, 0.6), u(0.25, 0.9)
    look.mean[T.FLUID], look.mean[T.SPINAL_CANAL] = u(1.0, 2.6), u(1.0, 3.0)
    look.mean[T.SPONGY_BONE] = u(0.05, 1.2)
    if rng.random() < 0.7:
        for tissue in FATS:  # opposed to water: what is left of a mixture is the difference
            look.mean[tissue] *= -1
    look.voids = u(0.2, 0.9) if rng.random() < 0.5 else 0.0
    look.bands = u(0.3, 0.95) if rng.random() < 0.35 else 0.0
    look.coil = u(0.2, 1.2) if rng.random() < 0.7 else 0.0
    look.blur_mm = u(0.4, 1.4)
    return look


def late_enhancement(rng: np.random.Generator) -> Appearance:
    """Draw a late-enhancement MR: muscle nulled by inversion, blood and what holds the contrast agent bright.

    An infarct is as bright as blood or brighter (Kellman and Arai, "Cardiac imaging techniques for physicians: late
    enhancement", J Magn Reson Imaging 36:529, 2012); in atria and old aortas the wall is what shines.  Some time after
    the injection blood is hardly brighter than the rest, and 3-D scans of atria are noisy.
    """
    u, look = rng.uniform, balanced_mr(rng)
    _relative(
        look, u(0.02, 0.5) if rng.random() < 0.7 else u(0.5, 0.9), u(0.1, 0.8) if rng.random() < 0.5 else u(1, 2.5), rng
    )
    look.mean[T.MUSCLE], look.mean[T.LIVER] = u(0.1, 0.8), u(0.3, 1.1)
    look.mean[T.FLUID] = u(0.0, 0.6)
    if rng.random() < 0.6:
        shine = u(1.1, 2.2)
        for tissue in (*_THIN_WALLS, T.OESOPHAGUS):
            look.mean[tissue], look.fine[tissue], look.coarse[tissue] = shine * u(0.6, 1.1), 0.15, 0.25
    if rng.random() < 0.5:
        look.scar = u(0.8, 1.5)
    mottled = float(rng.gamma(2.0, 0.06))
    for tissue in BLOOD:
        look.coarse[tissue] = mottled
    look.voids, look.bands = 0.0, 0.0
    look.noise, look.noise_mm = float(rng.gamma(2.0, 0.05)), u(0.5, 2.0)
    return look


def plain_ct(rng: np.random.Generator) -> Appearance:
    """Draw a CT without contrast agent.

    The attenuation of blood rises with its haematocrit (New and Aronow, "Attenuation measurements of whole blood and
    blood fractions in computed tomography", Radiology 121:635, 1976): 28 to 55 HU from anaemia to health.  Muscle has
    about as much or a little more.  Slices are mostly thick.  Screening and localising scans are noisy.
    """
    u, look = rng.uniform, ct(rng)
    blood = u(28, 55)
    for tissue in (*BLOOD, T.LA_APPENDAGE):
        look.mean[tissue] = blood + rng.normal(0, 2)
        look.fine[tissue], look.coarse[tissue] = u(1, 4), u(0, 4)
    look.mean[T.LUNG_VESSEL] = blood
    muscle = blood + u(-3, 14)
    for tissue in (T.MYOCARDIUM, T.PAPILLARY_MUSCLE, T.RV_WALL, *_THIN_WALLS):
        look.mean[tissue] = muscle + rng.normal(0, 3)
        look.fine[tissue], look.coarse[tissue] = u(1, 5), u(0, 4)
    look.mean[T.LIVER], look.mean[T.SPLEEN], look.mean[T.KIDNEY] = u(20, 70), u(38, 58), u(25, 45)
    look.mean[T.HEPATIC_VEIN] = blood
    look.mean[T.FLUID] = u(-5, 30)
    look.noise = float(rng.gamma(2.0, 10.0)) if rng.random() < 0.85 else u(50, 160)
    look.slice_mm = u(3.0, 5.5) if rng.random() < 0.65 else u(0.8, 3.0)
    look.streaks = 0.0
    return look


def _one_vein(look: Appearance) -> Appearance:
    """The look with stubs of the pulmonary veins as the rest of them: nothing in an image shows where a stub ends."""
    for values in (look.mean, look.fine, look.coarse):
        values[T.PULMONARY_VEIN_STUB] = values[T.PULMONARY_VEINS]
    return look


def draw_varied(modality: str, rng: np.random.Generator) -> Appearance:
    """Draw the appearance of one training image: as :func:`draw`, or one of the kinds that it has not, balanced MR,
    late enhancement, CT without contrast agent, in the shares above.

    Raises:
        ValueError: ``modality`` is neither ``"CT"`` nor ``"MR"``.
    """
    kind = rng.random()
    if modality == "CT" and kind < SHARE_PLAIN:
        return _one_vein(plain_ct(rng))
    if modality == "MR" and kind < SHARE_BALANCED + SHARE_LATE:
        return _one_vein(balanced_mr(rng) if kind < SHARE_BALANCED else late_enhancement(rng))
    return draw(modality, rng)


def draw(modality: str, rng: np.random.Generator) -> Appearance:
    """Draw the appearance of one image.

    Raises:
        ValueError: ``modality`` is neither ``"CT"`` nor ``"MR"``.
    """
    if modality not in MODALITIES:
        raise ValueError(f"modality must be {' or '.join(MODALITIES)}, not {modality!r}")
    return _one_vein(ct(rng) if modality == "CT" else mr(rng))
