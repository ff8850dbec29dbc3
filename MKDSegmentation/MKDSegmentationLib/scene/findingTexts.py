"""Findings of the core in the language of the application."""

from slicer.i18n import translate

from mkd_core.measure.messages import TRANSLATION_CONTEXT, describe
from mkd_core.protocol import Finding, findings


def findingText(finding: Finding) -> str:
    """Return the sentences of a finding, translated."""
    return describe(finding, lambda text: translate(TRANSLATION_CONTEXT, text))


def warningTexts(entry) -> list:
    """Return the sentences of the warnings in a report, or in its entry for a structure."""
    return [findingText(finding) for finding in findings(entry.get("warnings"))]
