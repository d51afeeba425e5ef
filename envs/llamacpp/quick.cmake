# Half the time to compile llama.cpp. CMake reads this right after llama.cpp's project() (build.py passes it).
# ggml is left as it is, to the byte; libllama keeps its optimisation.
function(quick)
  # Many sources in one go: headers are read, and templates compiled, once. llama.cpp does so itself, for libllama's models alone.
  get_target_property(core llama SOURCES)
  list(FILTER core INCLUDE REGEX "^[a-z0-9-]+\\.cpp$")
  list(TRANSFORM core PREPEND src/)
  set_property(SOURCE ${core} TARGET_DIRECTORY llama PROPERTY SKIP_UNITY_BUILD_INCLUSION OFF)
  set_target_properties(llama-common server-context llama-server-impl mtmd PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  # These cannot be compiled together with others: one specialises a template late, two refuse mtmd's inner headers.
  set_property(SOURCE common/json.cpp TARGET_DIRECTORY llama-common PROPERTY SKIP_UNITY_BUILD_INCLUSION ON)
  set_property(SOURCE tools/mtmd/mtmd-helper.cpp tools/mtmd/mtmd-helper-gen.cpp TARGET_DIRECTORY mtmd
    PROPERTY SKIP_UNITY_BUILD_INCLUSION ON)
  # -O2 for what a request passes through outside libllama: as fast as -O3 there. (-O0 takes 6 ms more for a hit of 950 tokens.)
  foreach(target llama-common server-context llama-server-impl llama-bench-impl cpp-httplib)
    target_compile_options(${target} PRIVATE -O2)
  endforeach()
  # -O0 for what no request of ours runs: images and sound, options and downloads, the router, tools.
  target_compile_options(mtmd PRIVATE -O0)
  set(cold arg.cpp console.cpp debug.cpp download.cpp fit.cpp hf-cache.cpp imatrix-loader.cpp preset.cpp)
  list(TRANSFORM cold PREPEND common/)
  set_property(SOURCE ${cold} TARGET_DIRECTORY llama-common APPEND PROPERTY COMPILE_OPTIONS -O0)
  set_property(SOURCE tools/server/server-mcp.cpp tools/server/server-tools.cpp TARGET_DIRECTORY server-context
    APPEND PROPERTY COMPILE_OPTIONS -O0)
  set_property(SOURCE tools/server/server-models.cpp TARGET_DIRECTORY llama-server-impl APPEND PROPERTY COMPILE_OPTIONS -O0)
  # Warnings are for llama.cpp's authors; looking for them takes time. The code stays the same.
  foreach(target llama llama-common server-context llama-server-impl llama-bench-impl mtmd)
    target_compile_options(${target} PRIVATE -w)
  endforeach()
endfunction()
cmake_language(DEFER CALL quick)
