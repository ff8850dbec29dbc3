"""Which DICOM files a volume was loaded from, as Slicer's DICOM module notes it."""

import slicer

#: Attribute of a volume that Slicer's DICOM module loaded: the UIDs of its files, with spaces between.
_ATTRIBUTE = "DICOM.instanceUIDs"


def instancesOf(volumeNode) -> list:
    """Return the UIDs of the files that a volume was loaded from; empty for a volume of another origin, for None, and
    without an open DICOM database.
    """
    database = getattr(slicer, "dicomDatabase", None)  # None where the DICOM module is switched off
    if volumeNode is None or database is None or not database.isOpen:
        return []
    return (volumeNode.GetAttribute(_ATTRIBUTE) or "").split()
