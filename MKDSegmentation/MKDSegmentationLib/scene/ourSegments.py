"""Which segments of a segmentation this module wrote, and which of them were changed since.

Ours are known by tags, never by their id: a segment that the user calls "LV" belongs to the user. Tags come and go with
a segment, so they also name the node and the id that they were written for: a copy of one of our segments is the
user's.
"""

import datetime
import uuid
import zlib
from dataclasses import dataclass

import numpy as np
import vtk

from mkd_core.structures import BY_KEY

from .provenance import reportOf

#: Tags of our segments: key of the structure; token of the node and id of the segment; voxels as written; when.
STRUCTURE_TAG, ORIGIN_TAG, FINGERPRINT_TAG, WRITTEN_TAG = (
    f"MKDSegmentation.{name}" for name in ("Structure", "Origin", "Fingerprint", "Written")
)

_TOKEN_ATTRIBUTE = "MKDSegmentation.Token"
_ALGORITHM_TYPE_TAG = "DICOM.SegmentAlgorithmType"
_ALGORITHM_TAG = "DICOM.SegmentAlgorithmName"  # all that earlier versions left on a segment of theirs
_CORNER_TOLERANCE = 0.01  # mm; files round positions
_VOLUME_TOLERANCE = 0.002  # ml; reports round volumes


@dataclass(frozen=True)
class Fingerprint:
    """What the voxels of a segment are, whatever the grid around them.

    count - number of voxels.
    checksum - of the smallest box that holds them.
    corner - position of the box's first voxel in mm, in the frame of the segmentation; zeros for an empty segment.
    """

    count: int
    checksum: int
    corner: tuple

    @classmethod
    def of(cls, mask: np.ndarray, start: tuple, imageToWorld: np.ndarray) -> "Fingerprint":
        """Return the fingerprint of a mask.

        :param mask: boolean array (k, j, i).
        :param start: index (k, j, i) of its first voxel.
        :param imageToWorld: 4 x 4 matrix from indices (i, j, k) to mm.
        """
        box = boundingBox(mask)
        if box is None:
            return cls(0, 0, (0.0, 0.0, 0.0))
        inside = np.ascontiguousarray(mask[box])
        first = [side.start + offset for side, offset in zip(box, start)]
        corner = imageToWorld @ np.array([*reversed(first), 1.0])
        checksum = zlib.crc32(np.packbits(inside).tobytes(), zlib.crc32(repr(inside.shape).encode()))
        return cls(int(np.count_nonzero(inside)), checksum, tuple(float(value) for value in corner[:3]))

    @classmethod
    def parse(cls, text: str) -> "Fingerprint | None":
        """Return the fingerprint that :meth:`__str__` wrote, or None where the text is none."""
        try:
            count, checksum, *corner = text.split()
            return cls(int(count), int(checksum, 16), tuple(map(float, corner))) if len(corner) == 3 else None
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.count} {self.checksum:08x} " + " ".join(f"{value:.4f}" for value in self.corner)

    def matches(self, other: "Fingerprint") -> bool:
        """Tell whether both are of the same voxels."""
        isThere = np.allclose(self.corner, other.corner, rtol=0.0, atol=_CORNER_TOLERANCE)
        return (self.count, self.checksum) == (other.count, other.checksum) and isThere


def boundingBox(mask: np.ndarray) -> tuple | None:
    """Return the slices (k, j, i) of the smallest box that holds all voxels of a mask, or None if there are none."""
    inRow = mask.any(axis=2)
    occupied = (inRow.any(axis=1), inRow.any(axis=0), mask.any(axis=(0, 1)))
    if not occupied[0].any():
        return None
    ends = [np.flatnonzero(inside)[[0, -1]] for inside in occupied]
    return tuple(slice(int(low), int(high) + 1) for low, high in ends)


def maskOfLabel(labels: np.ndarray, value: int) -> tuple:
    """Return the slices (k, j, i) of the smallest box that holds a label, and the boolean array of the label in it;
    (None, None) if there is no such label.

    It looks at plane after plane: what fits into the processor's cache takes a third of the time.

    :param labels: array (k, j, i).
    """
    rows = np.zeros(labels.shape[:2], bool)
    for index, plane in enumerate(labels):
        rows[index] = (plane == value).any(axis=1)
    if not rows.any():
        return None, None
    planes, lines = (np.flatnonzero(rows.any(axis=axis))[[0, -1]] + (0, 1) for axis in (1, 0))
    box = (slice(*planes.tolist()), slice(*lines.tolist()))
    slab = labels[box] == value
    low, high = np.flatnonzero(slab.any(axis=(0, 1)))[[0, -1]].tolist()
    return (*box, slice(low, high + 1)), slab[:, :, low : high + 1]


def ourSegments(segmentationNode) -> dict:
    """Return the id of each of our segments by the key of its structure, in the order of the segments."""
    if segmentationNode is None:
        return {}
    segmentation = segmentationNode.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]
    token = segmentationNode.GetAttribute(_TOKEN_ATTRIBUTE)
    if not token:
        return _segmentsOfEarlierVersions(segmentationNode, ids)
    found = {}
    for segmentId in ids:
        segment = segmentation.GetSegment(segmentId)
        key = tagOf(segment, STRUCTURE_TAG)
        if key in BY_KEY and tagOf(segment, ORIGIN_TAG) == _origin(token, segmentId):
            found.setdefault(key, segmentId)
    return found


def _segmentsOfEarlierVersions(segmentationNode, ids: list) -> dict:
    """Return the segments that a version without tags wrote: by their ids, which were the keys, beside its report."""
    report = reportOf(segmentationNode)
    structures = report["structures"] if report else {}
    segmentation = segmentationNode.GetSegmentation()
    return {
        key: key
        for key in ids
        if key in structures
        and (tagOf(segmentation.GetSegment(key), _ALGORITHM_TAG) or "").startswith("MKDSegmentation")
    }


def segmentsOfOthers(segmentationNode) -> list:
    """Return the ids of the segments that are not ours."""
    segmentation, ours = segmentationNode.GetSegmentation(), set(ourSegments(segmentationNode).values())
    ids = (segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments()))
    return [segmentId for segmentId in ids if segmentId not in ours]


def takeSegmentsOfOthers(segmentationNode, source, segmentIds: list) -> None:
    """Give a segmentation, in place of the segments in it that are not ours, those of another one; ours stay.

    :param source: the other vtkSegmentation.
    :param segmentIds: ids of its segments that are not ours.
    """
    segmentation = segmentationNode.GetSegmentation()
    order = [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]
    for segmentId in segmentsOfOthers(segmentationNode):
        segmentation.RemoveSegment(segmentId)
    for segmentId in segmentIds:
        segmentation.CopySegmentFromSegmentation(source, segmentId)
    for index, segmentId in enumerate(one for one in order if segmentation.GetSegment(one) is not None):
        segmentation.SetSegmentIndex(segmentId, index)


def markAsOurs(segmentationNode, segmentId: str, key: str, fingerprint: Fingerprint) -> None:
    """Put our tags on a segment that was just written."""
    token = segmentationNode.GetAttribute(_TOKEN_ATTRIBUTE)
    if not token:
        token = uuid.uuid4().hex
        segmentationNode.SetAttribute(_TOKEN_ATTRIBUTE, token)
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    segment.SetTag(STRUCTURE_TAG, key)
    segment.SetTag(ORIGIN_TAG, _origin(token, segmentId))
    segment.SetTag(FINGERPRINT_TAG, str(fingerprint))
    segment.SetTag(WRITTEN_TAG, datetime.datetime.now().astimezone().isoformat(timespec="seconds"))


def isEdited(segment, fingerprint: Fingerprint, volumeMl: float, reportedMl: float | None) -> bool:
    """Tell whether one of our segments is no longer as it was written.

    :param fingerprint: of the segment as it is now.
    :param volumeMl: its volume without parent transforms.
    :param reportedMl: the volume that the run reported; with it, segments are judged of versions that left no
        fingerprint.
    """
    written = Fingerprint.parse(tagOf(segment, FINGERPRINT_TAG) or "")
    if written is not None:
        return not written.matches(fingerprint)
    return reportedMl is None or abs(reportedMl - volumeMl) > _VOLUME_TOLERANCE


def tagOf(segment, name: str) -> str | None:
    """Return a tag of a segment, or None."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else None


def declareAlgorithm(segment, edited: bool) -> None:
    """Say in the words of DICOM what made a segment: the algorithm alone, or the algorithm and a person."""
    value = "SEMIAUTOMATIC" if edited else "AUTOMATIC"
    if tagOf(segment, _ALGORITHM_TYPE_TAG) != value:
        segment.SetTag(_ALGORITHM_TYPE_TAG, value)


def freeSegmentId(segmentationNode, key: str) -> str:
    """Return an id for a new segment of ours: the key, or one made from it where the user has a segment of that id."""
    segmentation = segmentationNode.GetSegmentation()
    return segmentation.GenerateUniqueSegmentID(key) if segmentation.GetSegment(key) is not None else key


def _origin(token: str, segmentId: str) -> str:
    return f"{token}/{segmentId}"
