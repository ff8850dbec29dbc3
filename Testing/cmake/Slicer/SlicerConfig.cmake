# A stand-in for the CMake package of a 3D Slicer build, so that the extension's lists can be configured, built and installed
# without Slicer.  It offers only what this extension uses and refuses what Slicer refuses: unknown keywords and files that are not there.
# No part of Slicer is in it; a green run says nothing about packaging by Slicer itself.

set(Slicer_VERSION "5.12")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-${Slicer_VERSION}/qt-scripted-modules")
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseStandInSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/DescribeExtension.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/PackageExtension.cmake")
