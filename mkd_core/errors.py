"""Every failure that a user can cause or meet.

Each error carries one sentence that a clinician understands and, where there is one, what to do next.  The panel and
the command line show ``str(error)``; nothing else of an error reaches the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkd_core.protocol import Finding


class MKDError(Exception):
    """A failure with a sentence for the user.

    Args:
        message: what went wrong, one sentence.
        advice: what to do next, one sentence; may be empty.
        finding: the same as a code with figures, which the panel can translate; errors that have one are made by
            :func:`mkd_core.measure.messages.refusal`.
    """

    def __init__(self, message: str, advice: str = "", finding: Finding | None = None) -> None:
        super().__init__(f"{message} {advice}".strip())
        self.message = message
        self.advice = advice
        self.finding = finding


class InputError(MKDError):
    """The image cannot be segmented as it is: wrong dimension, no voxels, impossible geometry or intensities."""


class NoHeartError(MKDError):
    """No heart was found in the image.

    Attributes:
        evidence: what spoke for a heart, as reports have it.
    """

    evidence: Mapping[str, float] = MappingProxyType({})


class BundleError(MKDError):
    """The weights bundle cannot be used: unreadable, unknown version, shapes that do not fit."""


class DeviceError(MKDError):
    """The computing device asked for is missing, unsupported or out of memory."""


class DownloadError(MKDError):
    """A weights bundle could not be fetched, or is not the one expected."""


class ProtocolError(MKDError):
    """A request, a reply or a report is not what the contract between processes says it is."""


class Cancelled(MKDError):
    """The user asked to stop."""

    def __init__(self) -> None:
        super().__init__("Segmentation was cancelled.")
