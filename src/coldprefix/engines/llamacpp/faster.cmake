# Less work for the compiler, none of it in what computes: included after llama.cpp's project(), by build.py.
#
# - The headers that most files include, the C++ library's and nlohmann's JSON, are parsed once per target. ggml is compiled as ever, and
#   comes out the same byte for byte; the rest is optimised as ever.
# - mtmd (images and sound), which no request of ours runs, is not optimised. llama-common is: llama-server samples each token through it.
function(coldprefix_faster)
    set(standard <algorithm> <array> <atomic> <chrono> <condition_variable> <filesystem> <fstream> <functional> <list> <map> <memory> <mutex>
                 <optional> <queue> <regex> <set> <sstream> <stdexcept> <string> <string_view> <thread> <unordered_map> <unordered_set> <vector>)
    foreach(target llama mtmd)
        target_precompile_headers(${target} PRIVATE ${standard})
    endforeach()
    foreach(target llama-common server-context llama-server-impl)
        target_precompile_headers(${target} PRIVATE ${standard} <nlohmann/json.hpp>)
    endforeach()
    target_compile_options(mtmd PRIVATE -O0)
endfunction()
cmake_language(DEFER CALL coldprefix_faster)
