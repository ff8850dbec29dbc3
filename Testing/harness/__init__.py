"""A stand-in for the 3D Slicer application: real MRML and logics of slicer-core under a GUI layer on PySide6.

It is not Slicer: PythonQt, the real widgets and the Qt plug-ins are imitated, see README.md. A green run is a run in
    the stand-in GUI.
"""

import sys

# makes Qt's enumerations whole numbers, as PythonQt's are; PySide reads it when it is first imported, by whichever file
# here
sys.pyside6_option_python_enum = 0x3
