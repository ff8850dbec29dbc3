"""A stand-in for the 3D Slicer application: real MRML and logics of slicer-core under a GUI layer on PySide6.

It is not Slicer: PythonQt, the real widgets and the Qt plug-ins are imitated, see README.md. A green run is a run in the stand-in GUI.
"""
