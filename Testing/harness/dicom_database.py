"""Stand-in for Slicer's DICOM database: where the file of an instance is, and files that are put in."""

import shutil
from pathlib import Path

from PySide6 import QtCore
from PySide6.QtCore import Property

from .api import standIn


@standIn
class ctkDICOMDatabase(QtCore.QObject):
    """Knows files by the UIDs of their instances; opened on a file in a folder that is its own."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._filename, self._files = "", {}

    def openDatabase(self, databaseFile, connectionName=""):
        self._filename, self._files = databaseFile, {}
        return True

    def closeDatabase(self):
        self._filename, self._files = "", {}

    def fileForInstance(self, sopInstanceUID):
        return self._files.get(sopInstanceUID, "")

    def instanceValue(self, sopInstanceUID, tag):
        import pydicom

        path = self._files.get(sopInstanceUID)
        group, element = (int(part, 16) for part in tag.split(","))
        value = pydicom.dcmread(path, stop_before_pixels=True).get((group, element)) if path else None
        if value is None or value.value is None:
            return ""
        return "\\".join(map(str, value.value)) if value.VM > 1 else str(value.value)

    def insert(self, filePath, storeFile=True, generateThumbnail=True, createHierarchy=True, directory=""):
        import pydicom

        instance = str(pydicom.dcmread(filePath, stop_before_pixels=True).SOPInstanceUID)
        if storeFile:
            target = Path(self._filename).parent / "dicom" / f"{instance}.dcm"
            target.parent.mkdir(parents=True, exist_ok=True)
            filePath = shutil.copyfile(filePath, target)
        self._files[instance] = str(filePath)

    isOpen = Property(bool, lambda self: bool(self._filename))
