# Writes what the extension says of itself, one "name=value" a line, for the test to read.
get_property(modules GLOBAL PROPERTY STAND_IN_MODULES)
get_property(tests GLOBAL PROPERTY STAND_IN_TESTS)
set(description "name=${PROJECT_NAME}\nmodules=${modules}\ntests=${tests}\n")
foreach(item HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS KEYWORDS LICENSE_FILE README_FILE)
  string(APPEND description "${item}=${EXTENSION_${item}}\n")
endforeach()
file(WRITE "${CMAKE_BINARY_DIR}/extension.txt" "${description}")
