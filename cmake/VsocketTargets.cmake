# What every target of the project shares: language level, warnings, and the two ways to make a target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 17)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

set(VSOCKET_SANITIZE "" CACHE STRING "Sanitizers for everything: address,undefined or thread")

add_library(vsocket_options INTERFACE)
target_compile_options(vsocket_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Werror)
if(VSOCKET_SANITIZE)
  # UBSan's vptr check probes memory through a pipe, and reports a good object when no descriptor is left: a state that tests bring about.
  set(VSOCKET_SANITIZE_FLAGS -fsanitize=${VSOCKET_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -fno-sanitize=vptr)
  target_compile_options(vsocket_options INTERFACE ${VSOCKET_SANITIZE_FLAGS})
  target_link_options(vsocket_options INTERFACE -fsanitize=${VSOCKET_SANITIZE})
endif()

# A GoogleTest program `name` from the remaining arguments (sources; libraries after LIBS), registered with ctest under its name.
# Labels (after LABELS) choose when it runs: none is always; `root` needs root and network namespaces; `long` only with --all.
function(vsocket_add_test name)
  cmake_parse_arguments(ARG "" "" "LIBS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE vsocket_options ${ARG_LIBS} gtest gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 120)
  if(ARG_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}")
  endif()
endfunction()

# A test that runs the fuzz target in the remaining arguments (sources; libraries after LIBS) over test/corpus/`corpus`.
function(vsocket_add_corpus_test name corpus)
  vsocket_add_test(${name} ${PROJECT_SOURCE_DIR}/test/corpus/replay_test.cc ${ARGN})
  target_compile_definitions(${name} PRIVATE VSOCKET_CORPUS="${PROJECT_SOURCE_DIR}/test/corpus/${corpus}")
endfunction()
