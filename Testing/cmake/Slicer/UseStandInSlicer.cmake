option(BUILD_TESTING "Register the tests of modules" ON)

# Copies scripts and resources to the build tree when built, and to the install tree when installed, keeping sub-folders.
# WITH_SUBDIR puts them below a folder named like the current source folder.
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(PARSE_ARGV 0 module "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES")
  if(module_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords: ${module_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT module_NAME)
    message(FATAL_ERROR "NAME is missing")
  endif()

  set(destination "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  if(module_WITH_SUBDIR)
    get_filename_component(folder "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    string(APPEND destination "/${folder}")
  endif()

  set(copies)
  foreach(file IN LISTS module_SCRIPTS module_RESOURCES)
    set(source "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
    if(NOT EXISTS "${source}")
      message(FATAL_ERROR "${module_NAME} lists a file that does not exist: ${file}")
    endif()
    set(copy "${CMAKE_BINARY_DIR}/${destination}/${file}")
    add_custom_command(
      OUTPUT "${copy}"
      COMMAND "${CMAKE_COMMAND}" -E copy "${source}" "${copy}"
      DEPENDS "${source}"
      )
    list(APPEND copies "${copy}")
    get_filename_component(parent "${file}" DIRECTORY)
    install(FILES "${copy}" DESTINATION "${destination}/${parent}")
  endforeach()
  add_custom_target(${module_NAME} ALL DEPENDS ${copies})

  if(module_WITH_GENERIC_TESTS)
    set_property(GLOBAL APPEND PROPERTY STAND_IN_MODULES "${module_NAME}")
  endif()
endfunction()

# Notes the unit test under the name that Slicer would give it.
function(slicer_add_python_unittest)
  cmake_parse_arguments(PARSE_ARGV 0 test "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS")
  if(test_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords: ${test_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${test_SCRIPT}")
    message(FATAL_ERROR "A unit test names a script that does not exist: ${test_SCRIPT}")
  endif()
  get_filename_component(name "${test_SCRIPT}" NAME_WE)
  set_property(GLOBAL APPEND PROPERTY STAND_IN_TESTS "py_${test_TESTNAME_PREFIX}${name}")
endfunction()
