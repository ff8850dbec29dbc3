"""Collaborators of the MKDSegmentation module, one subject per file.

Importing this package makes mkd_core importable; nothing else happens at import.
"""

from .corePackage import makeCoreImportable

makeCoreImportable()
