"""The contract of the module in 3D Slicer, the worker process and the core: names, limits, requests, replies, reports.

Whoever needs one of these names or limits reads it from here.  What crosses the border between two processes, or comes
out of a file, is checked here and nowhere else: :func:`parse_request` in the worker, :func:`parse_reply` in the module,
:func:`parse_report` wherever a report is read.  Everything has a form in plain JSON values.

Imports neither numpy nor SimpleITK nor torch.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, NotRequired, TypedDict, TypeVar, cast

from mkd_core.errors import InputError, ProtocolError
from mkd_core.structures import BY_KEY, DETAILED, STRUCTURES

# ---- names ----

Modality = Literal["CT", "MR"]
MODALITIES: tuple[Modality, ...] = ("CT", "MR")

#: Where DICOM files say what they are, "CT", "MR", "PT" and so on, as ITK writes tags; kept with a volume read from
#: them.
MODALITY_TAG = "0008|0060"

#: Whose prediction is the output: both segmentors together, S_real alone or S_syn alone.
Segmentor = Literal["ensemble", "real", "synthetic"]
SEGMENTORS: tuple[Segmentor, ...] = ("ensemble", "real", "synthetic")

#: Kinds of computing devices; "cuda" may be followed by a number, as in "cuda:1".
DEVICE_KINDS = ("auto", "cpu", "cuda", "mps")

#: The same in words, for help texts.
DEVICES_IN_WORDS = "auto, cpu, cuda, cuda:N or mps"

#: Sets of structures that can be asked for by name: what the weights know by themselves, the seven of whole-heart
#: segmentation with those that come with the project; and these with the structures in detail.
WHOLE_HEART, IN_DETAIL = "whole-heart-7", "detailed"
STRUCTURE_SETS = (WHOLE_HEART, IN_DETAIL)

#: The same in words, for help texts.
STRUCTURE_SETS_IN_WORDS = (
    f"{WHOLE_HEART}: those that the weights know (default); {IN_DETAIL}: besides {', '.join(DETAILED)}"
)

#: Number formats of the networks; "auto" takes bfloat16 where the device computes in it.
Precision = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16")

#: What the segmentor of translated images sees of a target volume: its reconstruction (cycle), the volume itself,
#: or both, averaged.
TargetPolicy = Literal["cycle", "none", "mean"]
TARGET_POLICIES: tuple[str, ...] = ("cycle", "none", "mean")

#: What both segmentors see of an assistant volume: its translation, or the volume itself.
ASSISTANT_POLICIES = ("translate", "none")

#: Share of the whole that is done when a stage of the pipeline begins, as measured on CPU; for progress bars.
STAGES: Mapping[str, float] = {
    "check": 0.0,
    "localise": 0.03,
    "align": 0.2,
    "segment": 0.55,
    "restore": 0.8,
    "measure": 0.95,
}

#: Volumes that a run can give besides the labels.
DISAGREEMENT, ALIGNED = "disagreement", "aligned"

# ---- limits ----

#: Fewest voxels of a volume along each axis.
MIN_SIDE = 4

#: Voxel sizes outside of this range are mistakes of units, mm.
SPACING_RANGE = (0.02, 30.0)

#: A field of view longer than this shows more than a person, mm.
MAX_EXTENT = 2500.0

#: Directions of a volume's axes further than this from orthogonal (largest entry of ``D^T D - I``) are refused.
SHEAR_TOLERANCE = 1e-3

#: Voxel sizes that the segmentors' grid can have, mm.
GRID_SPACING_RANGE = (0.3, 10.0)

#: Sides that the largest box round a heart can have, mm.
BOX_SIDE_RANGE = (50.0, 1000.0)

#: Most CPU threads that can be asked for.
MAX_THREADS = 1024

#: Oldest PyTorch that works; the newest for macOS on Intel processors, hence in 3D Slicer there.
MINIMUM_TORCH = "2.2"

#: Longest text of a reply that is shown to the user, in characters.
_MAX_TEXT = 1000

#: Longest value that is quoted in a refusal, in characters.
_MAX_QUOTE = 100

#: Largest magnitude of a figure in a report.
_MAX_FIGURE = 1e15

# ---- pictures ----

#: Values that are shown black and white: of a CT in HU, from fat to dense contrast agent; percentiles of others.
SHOWN_HU = (-250.0, 650.0)
SHOWN_PERCENTILES = (1.0, 99.5)

# ---- files ----

#: What files are called while they are written, see :mod:`mkd_core.io.atomic`.
DRAFT_NAME = re.compile(r"\.mkd-[0-9a-f]{16}(\.\w+)*")

# ---- options ----


#: Options that JSON has as lists.
_LISTS = ("structures", "box_mm", "first_frame")


@dataclass(frozen=True)
class SegmentationOptions:
    """How to segment; the defaults suit everyone.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "float32" or "bfloat16".
        threads: CPU threads, None for all cores.
        alignment: what the segmentors see, None for what the bundle says: one of :data:`TARGET_POLICIES` for volumes
            of the target modality, of :data:`ASSISTANT_POLICIES` for the other.
        structures: one of :data:`STRUCTURE_SETS`, or keys of the structures wanted, those in detail among them; None is
            the first set.
        segmentor: whose prediction is the output, one of :data:`SEGMENTORS`.
        with_disagreement: also return the map of disagreement of the two segmentors.
        with_aligned: also return the volume as the generators rendered it.
        box_mm: box round the heart that a user drew: bounds (x0, x1, y0, y1, z0, z1) in the world, LPS mm.  The
            localiser is then not asked, and a heart that only the user sees is not refused.  None to look for it.
        first_frame: what the first frame of the sequence that the volume is of showed: "orientation" and "recognition"
            of the evidence in its report, 0 where a box was drawn.  The search for another orientation is then not
            repeated unless this frame is recognised otherwise; a stack that lost its directions gets the same ones.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    alignment: str | None = None
    structures: tuple[str, ...] | str | None = WHOLE_HEART
    segmentor: str = "ensemble"
    with_disagreement: bool = False
    with_aligned: bool = False
    box_mm: tuple[float, ...] | None = None
    first_frame: tuple[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        values = dataclasses.asdict(self)
        return values | {name: list(value) for name in _LISTS if isinstance(value := values[name], tuple)}

    def keys_wanted(self, known: Sequence[str], detailed: Sequence[str]) -> list[str]:
        """Keys of the structures wanted, in the order of the labels.

        Args:
            known: keys that the bundle knows.
            detailed: keys that the network for structures in detail knows.
        """
        if self.structures in (None, WHOLE_HEART):
            return list(known)
        both = [*known, *(key for key in detailed if key not in known)]
        return both if self.structures == IN_DETAIL else [key for key in both if key in (self.structures or ())]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegmentationOptions:
        """Options from plain values, such as come from JSON.

        Raises:
            InputError: an unknown option, or a value of the wrong kind.
        """
        kinds: dict[str, type | tuple[type, ...]] = {
            "device": str,
            "precision": str,
            "threads": int,
            "alignment": str,
            "structures": (list, tuple, str),
            "segmentor": str,
            "with_disagreement": bool,
            "with_aligned": bool,
            "box_mm": (list, tuple),
            "first_frame": (list, tuple),
        }
        optional = ("threads", "alignment", *_LISTS)
        for name, value in values.items():
            if name not in kinds:
                raise _refusal("option_unknown", option=_short(name))
            if not (isinstance(value, kinds[name]) or (value is None and name in optional)):
                raise _refusal("option_value", option=name, value=_short(value))
        structures = values.get("structures")
        if isinstance(structures, (list, tuple)) and not all(isinstance(key, str) for key in structures):
            raise _refusal("option_no_keys")
        if isinstance(structures, str) and structures not in STRUCTURE_SETS:
            raise _refusal("option_structure", value=_short(structures), choices=", ".join(STRUCTURE_SETS))
        box = values.get("box_mm")
        if box is not None and not _is_box(box):
            raise _refusal("option_box")
        frame = values.get("first_frame")
        if frame is not None and not _is_first_frame(frame):
            raise _refusal("option_value", option="first_frame", value=_short(frame))
        tuples = {name: tuple(values[name]) for name in _LISTS if isinstance(values.get(name), (list, tuple))}
        return cls(**{**values, **tuples})

    def check(self, modality: str, target: str, structures: Sequence[str]) -> None:
        """Refuse values that mean nothing.

        Args:
            modality: of the volume.
            target: modality that the bundle's segmentors work on.
            structures: keys of all structures that can be asked for.

        Raises:
            InputError: with the values that exist.
        """
        policies = TARGET_POLICIES if modality == target else ASSISTANT_POLICIES
        if self.alignment is not None and self.alignment not in policies:
            raise _refusal(
                "option_alignment", value=_short(self.alignment), modality=modality, choices=", ".join(policies)
            )
        is_set = isinstance(self.structures, str)
        named, choices = ([self.structures], STRUCTURE_SETS) if is_set else (self.structures or (), structures)
        unknown = [key for key in named if key not in choices]
        if unknown:
            raise _refusal("option_structure", value=_short(unknown[0]), choices=", ".join(choices))
        if self.segmentor not in SEGMENTORS:
            raise _refusal("option_segmentor", value=_short(self.segmentor), choices=", ".join(SEGMENTORS))
        if self.threads is not None and (isinstance(self.threads, bool) or not 1 <= self.threads <= MAX_THREADS):
            raise _refusal("option_threads", value=_short(self.threads), most=MAX_THREADS)
        if self.box_mm is not None and not _is_box(self.box_mm):
            raise _refusal("option_box")


def check_modality(modality: Any) -> Modality:
    """A modality as it came from outside.

    Raises:
        InputError: it is not one of :data:`MODALITIES`.
    """
    if modality not in MODALITIES:
        raise _refusal("option_modality", value=_short(modality), choices=", ".join(MODALITIES))
    return cast(Modality, modality)


# ---- findings ----

#: How much a finding matters: "info" is worth knowing; "amber" asks for a look at the contours; "red" says that the
#: figures are likely to be wrong; with "refusal" there is no result.
Severity = Literal["info", "amber", "red", "refusal"]
SEVERITIES: tuple[Severity, ...] = ("info", "amber", "red", "refusal")


class FindingDict(TypedDict):
    """A :class:`Finding` in plain values."""

    code: str
    severity: Severity
    figures: dict[str, float | str]
    structure: str | None


@dataclass(frozen=True)
class Finding:
    """One thing to know of a volume, a segmentation or a sequence: a code with figures.

    Sentences are made where they are shown, by :func:`mkd_core.measure.messages.describe`, which also lists all codes.
    Make findings by :func:`mkd_core.measure.messages.finding`, which knows the severity of each code.

    Attributes:
        code: what it is, a name in :data:`mkd_core.measure.messages.MESSAGES`.
        severity: one of :data:`SEVERITIES`.
        figures: numbers and words of the sentence.
        structure: key of the structure that it is about (:mod:`mkd_core.structures`), None for the whole.
    """

    code: str
    severity: Severity = "amber"
    figures: Mapping[str, float | str] = field(default_factory=dict)
    structure: str | None = None

    def to_dict(self) -> FindingDict:
        """The same as plain values, ready for JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "figures": dict(self.figures),
            "structure": self.structure,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Finding:
        """A finding from plain values.

        Args:
            values: what :meth:`to_dict` gives; or a sentence, as reports had them before findings had codes.

        Raises:
            ProtocolError: it is neither.
        """
        if isinstance(values, str):
            return cls("text", figures={"text": values})
        table = _table(values, "A warning")
        code, severity, figures = table.get("code"), table.get("severity", "amber"), table.get("figures") or {}
        if not isinstance(code, str) or not code or severity not in SEVERITIES:
            raise ProtocolError("A warning has no proper code or severity.")
        if not isinstance(figures, dict) or not all(
            isinstance(name, str) and (isinstance(value, str) or (_is_figure(value) and value is not None))
            for name, value in figures.items()
        ):
            raise ProtocolError(f"The figures of the warning “{code}” are not numbers and texts.")
        structure = table.get("structure")
        if structure is not None and not (isinstance(structure, str) and structure in BY_KEY):
            raise ProtocolError(f"The warning “{code}” is about an unknown structure.")
        return cls(code, severity, figures, structure)


def findings(values: Iterable[FindingDict | str] | None) -> list[Finding]:
    """The findings in an entry "warnings" of a report.

    Raises:
        ProtocolError: it does not hold findings.
    """
    return [Finding.from_dict(value) for value in values or ()]


# ---- the report ----


class StructureReport(TypedDict):
    """Figures of one structure; volumes in ml of the input's grid."""

    volume_ml: float
    mass_g: NotRequired[float]  # of muscle
    mean_intensity: float | None
    components: int
    touches_border: bool
    removed_ml: float
    agreement: float | None  # Dice overlap of the two segmentors' predictions; in detail, that with the truth expected
    warnings: list[FindingDict]


class BundleIdentity(TypedDict):
    """Which weights were used."""

    name: str
    version: str
    sha256: str


class DetailIdentity(BundleIdentity):
    """Which weights for structures in detail were used, and for which structures."""

    structures: NotRequired[list[str]]  # keys; all that there are where a report does not say


class Report(TypedDict):
    """What a segmentation measured, what to doubt, and how it was made; plain values, ready for JSON."""

    structures: dict[str, StructureReport]  # those that were wanted, by key, in the order of the labels
    labels: dict[str, int]  # of all structures that the weights know
    warnings: list[FindingDict]  # on the whole
    modality: str
    target: str
    alignment: str
    ensemble_weight: float  # of S_real
    timings_s: dict[str, float]  # by stage, and "total"
    device: str
    precision: str
    threads: int
    bundle: BundleIdentity
    options: dict[str, Any]  # see SegmentationOptions
    version: str  # of mkd_core
    input: dict[str, list[float]]  # "size" in voxels and "spacing_mm", both along x, y, z
    heart_box_mm: dict[str, list[float]]  # corners "low" and "high", LPS
    # for a heart: "verdict", "recognition", "joint_agreement", "orientation" in which it is recognised best
    evidence: NotRequired[dict[str, float | str]]
    detail_weights: NotRequired[DetailIdentity]  # where structures in detail were segmented
    date: NotRequired[str]  # when it came into the scene, ISO 8601
    reproduce: NotRequired[dict[str, Any]]  # written by the command line


#: Entries of reports, by the names that versions before 0.4 gave them.
_EARLIER_NAMES = {"remarks": "warnings", "real_share": "ensemble_weight", "stray_ml": "removed_ml"}

_STRUCTURE_FIGURES = ("volume_ml", "mass_g", "mean_intensity", "agreement", "removed_ml", "components")


class Weights(NamedTuple):
    """A file of weights, as reports tell of it; "?" for what one does not say."""

    name: str
    version: str
    sha256: str

    @property
    def title(self) -> str:
        """Name with version."""
        return f"{self.name} {self.version}"


def weights_of(report: Mapping[str, Any]) -> list[Weights]:
    """The files of weights that took part in a segmentation: the bundle, and that for structures in detail where there
    are such.
    """
    files = [report.get("bundle") or {}, *([report["detail_weights"]] if report.get("detail_weights") else [])]
    return [Weights(*(str(one.get(key) or "?") for key in Weights._fields)) for one in files]


def weights_of_structure(report: Mapping[str, Any], key: str) -> Weights:
    """The file of weights whose network found a structure.

    Args:
        report: of the segmentation.
        key: of the structure.
    """
    files = weights_of(report)
    of_details = (report.get("detail_weights") or {}).get("structures", DETAILED)
    return files[-1] if key in of_details else files[0]


def titles_of_weights(report: Mapping[str, Any]) -> str:
    """Names and versions of all files of weights that took part, for people."""
    return " + ".join(one.title for one in weights_of(report))


def parse_report(value: Any) -> Report:
    """A report as it came from a process or a file, checked so far that it can be shown.

    Reports of versions before 0.4 are brought to today's form: their warnings are sentences, which stay as they are
    under the code "text".  Entries of newer versions are kept.

    Raises:
        ProtocolError: it is no report.
    """
    report = _with_todays_names(_table(value, "The report"))
    structures = {}
    for key, entry in _table(report.get("structures", {}), "“structures” of the report").items():
        if key not in BY_KEY:
            raise ProtocolError(f"The report has an unknown structure “{key}”.")
        figures = _with_todays_names(_table(entry, f"The report on “{key}”"))
        if not all(_is_figure(figures.get(name)) for name in _STRUCTURE_FIGURES):
            raise ProtocolError(f"The report on “{key}” holds what is not a number.")
        structures[key] = figures | {"warnings": _warnings(figures)}
    for part in ("bundle", "detail_weights", "options", "timings_s", "input"):
        table = report.get(part)
        if table is not None and any(
            isinstance(item, dict) for item in _table(table, f"“{part}” of the report").values()
        ):
            raise ProtocolError(f"“{part}” of the report is not a flat table.")
    if not isinstance((report.get("detail_weights") or {}).get("structures", []), list):
        raise ProtocolError("The report does not say which structures are in detail.")
    size = (report.get("input") or {}).get("size")
    if size is not None and not (
        isinstance(size, list) and all(_is_figure(side) and side is not None for side in size)
    ):
        raise ProtocolError("The report does not say how large the volume is.")
    if not all(_is_figure(seconds) for seconds in (report.get("timings_s") or {}).values()):
        raise ProtocolError("The report's timings are not numbers.")
    labels = report.get("labels", {structure.key: structure.label for structure in STRUCTURES})
    if list(_table(labels, "“labels” of the report").values()) != list(range(1, len(labels) + 1)):
        raise ProtocolError("The report's labels do not run from 1 on.")
    if not set(structures) <= set(labels) <= set(BY_KEY):
        raise ProtocolError("The report's labels are not those of its structures.")
    return cast(Report, report | {"structures": structures, "labels": labels, "warnings": _warnings(report)})


def _with_todays_names(table: dict[str, Any]) -> dict[str, Any]:
    return {_EARLIER_NAMES.get(name, name): item for name, item in table.items()}


def _warnings(table: Mapping[str, Any]) -> list[FindingDict]:
    warnings = table.get("warnings")
    if warnings is not None and not isinstance(warnings, list):
        raise ProtocolError("The report's warnings are not a list.")
    return [finding.to_dict() for finding in findings(warnings)]


# ---- requests: from the module to the worker ----

RequestId = int | str


@dataclass(frozen=True, kw_only=True)
class _Numbered:
    """A request with a name of its own.

    Attributes:
        id: names the request in replies; whoever sends it gives it one.
    """

    id: RequestId = 0


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(_Numbered):
    """Segment the volume in a file.

    Attributes:
        input, output: paths of the volume and of the label map to write.
        modality: of the volume.
        bundle: path of the weights, None for those that come with the package.
        options: how to compute.
        disagreement, aligned: paths of the extra volumes, None where they are not wanted.
    """

    op: ClassVar = "segment"
    input: str
    output: str
    modality: Modality = "CT"
    bundle: str | None = None
    options: SegmentationOptions = SegmentationOptions()
    disagreement: str | None = None
    aligned: str | None = None


@dataclass(frozen=True, kw_only=True)
class WarmRequest(_Numbered):
    """Load torch and weights before they are needed."""

    op: ClassVar = "warm"
    bundle: str | None = None
    options: SegmentationOptions = SegmentationOptions()


@dataclass(frozen=True, kw_only=True)
class DescribeRequest(_Numbered):
    """Say what a bundle says about itself; works without torch."""

    op: ClassVar = "describe"
    bundle: str | None = None


@dataclass(frozen=True, kw_only=True)
class EnvironmentRequest(_Numbered):
    """Name versions and devices."""

    op: ClassVar = "environment"


@dataclass(frozen=True, kw_only=True)
class DownloadRequest(_Numbered):
    """Fetch a bundle.

    Attributes:
        url, sha256: where it is, and the digits that it must have.
        folder: where to keep it.
        part: path of the temporary file.
    """

    op: ClassVar = "download"
    url: str
    sha256: str
    folder: str
    part: str


@dataclass(frozen=True, kw_only=True)
class ReleasesRequest(_Numbered):
    """Fetch the list of weights that are offered; its report is ``{"releases": [...]}``, see mkd_core.io.releases.

    Attributes:
        url: where the list is.
    """

    op: ClassVar = "releases"
    url: str


@dataclass(frozen=True, kw_only=True)
class CancelRequest(_Numbered):
    """Give up a request that runs or waits; nothing replies to this one itself."""

    op: ClassVar = "cancel"


@dataclass(frozen=True)
class ShutdownRequest:
    """Leave at once, as when stdin ends."""

    op: ClassVar = "shutdown"


Work = SegmentRequest | WarmRequest | DescribeRequest | EnvironmentRequest | DownloadRequest | ReleasesRequest
Request = Work | CancelRequest | ShutdownRequest

_REQUESTS: dict[str, type] = {
    kind.op: kind
    for kind in (
        SegmentRequest,
        WarmRequest,
        DescribeRequest,
        EnvironmentRequest,
        DownloadRequest,
        ReleasesRequest,
        CancelRequest,
        ShutdownRequest,
    )
}


def request_id(value: Any) -> RequestId | None:
    """The id of a request that may be malformed, None if it has no proper one."""
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, (int, str)) and not isinstance(found, bool) else None


def parse_request(value: Any) -> Request:
    """A request from its plain values.

    Raises:
        ProtocolError: it is malformed.
        InputError: an option or the modality means nothing.
    """
    table = _table(value, "A request")
    op = table.get("op")
    kind = _REQUESTS.get(op) if isinstance(op, str) else None
    if kind is None:
        raise ProtocolError(f"There is no operation “{op}”.")
    if kind is not ShutdownRequest and request_id(table) is None:
        raise ProtocolError("A request has no proper id.")
    return _build(kind, table, _REQUEST_FIELDS)


def _path(value: Any, name: str) -> str:
    try:
        is_path = isinstance(value, str) and value and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half a character
        is_path = False
    if not is_path:
        raise ProtocolError(f"The request names no proper path for “{name}”.")
    return str(value)


def _text_of_request(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"“{name}” of the request is not a text.")
    return value


def _options(value: Any, name: str) -> SegmentationOptions:
    return SegmentationOptions.from_dict(_table(value, f"“{name}” of the request"))


_REQUEST_FIELDS: dict[str, Callable[[Any, str], Any]] = {
    "id": lambda value, name: value,
    "input": _path,
    "output": _path,
    "bundle": _path,
    "disagreement": _path,
    "aligned": _path,
    "folder": _path,
    "part": _path,
    "modality": lambda value, name: check_modality(value),
    "options": _options,
    "url": _text_of_request,
    "sha256": _text_of_request,
}

# ---- replies: from the worker to the module ----


@dataclass(frozen=True)
class ReadyReply:
    """The worker listens; said once."""

    event: ClassVar = "ready"
    pid: int
    version: str


@dataclass(frozen=True)
class ProgressReply:
    """How far a request is: a stage, the fraction of the whole from 0 to 1, and a text."""

    event: ClassVar = "progress"
    id: RequestId
    stage: str
    fraction: float
    message: str


@dataclass(frozen=True)
class ResultReply:
    """A request is done, and its files are complete; the report of a segmentation is read by :func:`parse_report`."""

    event: ClassVar = "result"
    id: RequestId
    report: dict[str, Any]


@dataclass(frozen=True)
class ErrorReply:
    """A request failed.

    Attributes:
        id: None where the request had no proper one.
        kind: name of the error's class.
        message, advice: what happened and what to do, in English.
        finding: the same as a code with figures, where there is one.
    """

    event: ClassVar = "error"
    id: RequestId | None
    kind: str
    message: str
    advice: str = ""
    finding: Finding | None = None


@dataclass(frozen=True)
class CancelledReply:
    """A request was given up as asked."""

    event: ClassVar = "cancelled"
    id: RequestId


Reply = ReadyReply | ProgressReply | ResultReply | ErrorReply | CancelledReply

_REPLIES: dict[str, type] = {
    kind.event: kind for kind in (ReadyReply, ProgressReply, ResultReply, ErrorReply, CancelledReply)
}


def parse_reply(value: Any) -> Reply:
    """A reply from its plain values.  What is only shown to the user is made fit for it instead of being refused.

    Raises:
        ProtocolError: it is malformed.
    """
    table = _table(value, "A reply")
    event = table.get("event")
    kind = _REPLIES.get(event) if isinstance(event, str) else None
    if kind is None:
        raise ProtocolError("There is no such reply.")
    if kind not in (ReadyReply, ErrorReply) and request_id(table) is None:
        raise ProtocolError("A reply has no proper id.")
    shown: dict[str, Any] = {name: "" for name in ("stage", "message", "kind", "version") if name not in table}
    return _build(kind, {"fraction": 0.0, "pid": 0, "report": {}, "id": None} | shown | table, _REPLY_FIELDS)


def _text(value: Any, name: str) -> str:
    return str(value or "")[:_MAX_TEXT]


def _fraction(value: Any, name: str) -> float:
    is_number = isinstance(value, (int, float)) and value == value  # NaN is unlike itself
    return float(min(max(value, 0.0), 1.0)) if is_number else 0.0


def _finding(value: Any, name: str) -> Finding | None:
    try:
        return Finding.from_dict(value)
    except ProtocolError:
        return None  # the sentence says the same


_REPLY_FIELDS: dict[str, Callable[[Any, str], Any]] = {
    "id": lambda value, name: request_id({"id": value}),
    "stage": _text,
    "fraction": _fraction,
    "message": _text,
    "advice": _text,
    "kind": _text,
    "version": _text,
    "pid": lambda value, name: value if type(value) is int and value > 1 else 0,
    "report": lambda value, name: _table({} if value is None else value, "A report"),
    "finding": _finding,
}


def to_message(message: Request | Reply) -> dict[str, Any]:
    """A request or reply as plain values, ready for JSON; what is None is left out, but for the id."""
    name, value = ("op", message.op) if hasattr(message, "op") else ("event", message.event)
    plain: dict[str, Any] = {name: value}
    for part in dataclasses.fields(message):
        item = getattr(message, part.name)
        if item is not None or part.name == "id":
            plain[part.name] = item.to_dict() if isinstance(item, (SegmentationOptions, Finding)) else item
    return plain


# ---- checks ----


def _refusal(code: str, **figures: Any) -> InputError:
    from mkd_core.measure.messages import finding, refusal  # whose findings are those of this module

    return refusal(finding(code, **figures))


def _short(value: Any) -> str:
    """What came from outside, in a length that can be shown."""
    text = str(value)
    return text if len(text) <= _MAX_QUOTE else text[:_MAX_QUOTE] + "…"


_Kind = TypeVar("_Kind")


def _build(kind: type[_Kind], table: Mapping[str, Any], readers: Mapping[str, Callable[[Any, str], Any]]) -> _Kind:
    """Fill a dataclass from a table; what is missing keeps its default, and so does None where that is the default."""
    values = {}
    for part in dataclasses.fields(kind):  # type: ignore[arg-type]
        is_missing = part.name not in table and part.default is not dataclasses.MISSING
        if is_missing or (part.default is None and table[part.name] is None):
            continue
        values[part.name] = readers[part.name](table.get(part.name), part.name)
    return kind(**values)


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is not a JSON object.")
    return value


def _is_box(bounds: Sequence[Any]) -> bool:
    """Whether these are six numbers."""
    return len(bounds) == 6 and all(
        isinstance(bound, (int, float)) and not isinstance(bound, bool) and math.isfinite(_as_float(bound))
        for bound in bounds
    )


def _is_first_frame(frame: Sequence[Any]) -> bool:
    """Whether these are an orientation and how surely a heart was recognised in it."""
    return len(frame) == 2 and isinstance(frame[0], str) and _is_figure(frame[1]) and frame[1] is not None


def _is_figure(value: Any) -> bool:
    """Whether a value is None or a number that can be shown."""
    return value is None or (
        isinstance(value, (int, float)) and math.isfinite(_as_float(value)) and abs(value) < _MAX_FIGURE
    )


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
