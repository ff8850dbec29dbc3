"""Findings, errors and notes of the core in the language of the application."""

from slicer.i18n import tr as _
from slicer.i18n import translate

from mkd_core.errors import MKDError
from mkd_core.measure.messages import RESEARCH_USE, TRANSLATION_CONTEXT, describe
from mkd_core.protocol import Finding, findings


def findingText(finding: Finding) -> str:
    """Return the sentences of a finding, translated."""
    return describe(finding, lambda text: translate(TRANSLATION_CONTEXT, text))


def researchUse() -> str:
    """Return what every place says that shows figures, translated."""
    return translate(TRANSLATION_CONTEXT, RESEARCH_USE)


def errorText(error: Exception) -> str:
    """Return what an error says, translated if it is one of the core with a finding."""
    found = error.finding if isinstance(error, MKDError) else None
    return findingText(found) if found is not None else str(error)


def notWrittenText(error: Exception) -> str:
    """Return the sentence on an error of the core or the system that kept a file from being written."""
    reason = errorText(error) if isinstance(error, MKDError) else error.strerror or error
    return _("The file could not be written ({reason}).").format(reason=reason)


def warningTexts(entry) -> list:
    """Return the sentences of the warnings in a report, or in its entry for a structure."""
    return [findingText(finding) for finding in findings(entry.get("warnings"))]
