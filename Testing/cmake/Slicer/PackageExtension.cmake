# Packaging itself is Slicer's business; here it is only required that licence and readme can be shipped.
foreach(file IN ITEMS "${EXTENSION_LICENSE_FILE}" "${EXTENSION_README_FILE}")
  if(NOT EXISTS "${file}")
    message(FATAL_ERROR "The extension names a file that does not exist: ${file}")
  endif()
endforeach()
