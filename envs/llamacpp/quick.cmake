# Less time to compile llama.cpp. CMake reads this right after llama.cpp's project() (build.py passes it).
# ggml and libllama are left as they are, to the byte. No optimisation is lowered anywhere: functions of the standard library that are compiled
# without it replace the optimised ones in the whole process, and a hit on llama-server took 0.2 to 0.4 ms more.
function(quick)
  # Many sources in one go: headers are read, and templates compiled, once. llama.cpp does so itself, for libllama's models.
  set_target_properties(llama-common server-context llama-server-impl mtmd PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  # These cannot be compiled together with others: one specialises a template late, two refuse mtmd's inner headers.
  set_property(SOURCE common/json.cpp TARGET_DIRECTORY llama-common PROPERTY SKIP_UNITY_BUILD_INCLUSION ON)
  set_property(SOURCE tools/mtmd/mtmd-helper.cpp tools/mtmd/mtmd-helper-gen.cpp TARGET_DIRECTORY mtmd
    PROPERTY SKIP_UNITY_BUILD_INCLUSION ON)
  # Warnings are for llama.cpp's authors; looking for them takes time. The code stays the same.
  foreach(target llama llama-common server-context llama-server-impl llama-bench-impl mtmd)
    target_compile_options(${target} PRIVATE -w)
  endforeach()
endfunction()
cmake_language(DEFER CALL quick)
