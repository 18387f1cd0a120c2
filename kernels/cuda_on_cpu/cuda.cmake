# The two CUDA libraries, from the same kernels/cuda/*.cu: libperigee_cuda_emulated.so wherever there is a
# C++17 compiler, libperigee_cuda.so where there is nvcc too (not in the sanitizers' builds nor when
# cross-compiling).

option(PERIGEE_CUDA_EMULATED "Build libperigee_cuda_emulated.so where there is a C++ compiler" ON)
option(PERIGEE_NVCC "Build libperigee_cuda.so where there is nvcc" ON)

file(GLOB cuda_sources CONFIGURE_DEPENDS kernels/cuda/*.cu)
set(cuda_folder "${PROJECT_SOURCE_DIR}/kernels/cuda")
set(emulator_folder "${PROJECT_SOURCE_DIR}/kernels/cuda_on_cpu")
set(cuda_exports "${emulator_folder}/exports.map")

# ---- emulated ----

if(PERIGEE_CUDA_EMULATED)
    if(NOT CMAKE_CROSSCOMPILING)      # there the toolchain's file names the compiler, or there is none
        include(CheckLanguage)
        check_language(CXX)
    endif()
    if(CMAKE_CXX_COMPILER)
        set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
        set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")
        enable_language(CXX)
    else()
        message(STATUS "No C++ compiler (Debian: g++): emulated CUDA is not built")
    endif()
endif()

if(PERIGEE_CUDA_EMULATED AND CMAKE_CXX_COMPILER)
    set(CMAKE_CXX_STANDARD 17)
    set(CMAKE_CXX_EXTENSIONS OFF)
    set(CMAKE_CXX_VISIBILITY_PRESET hidden)

    # As nvcc compiles them: no contraction into fma, and a pack of floats may be read as an int4.
    add_library(cuda_emulated_flags INTERFACE)
    target_include_directories(cuda_emulated_flags INTERFACE
        "${emulator_folder}/include" "${emulator_folder}")
    target_compile_definitions(cuda_emulated_flags INTERFACE _GNU_SOURCE)
    target_compile_options(cuda_emulated_flags INTERFACE
        -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-strict-aliasing
        -Wall -Wextra -Wno-unknown-pragmas -Wno-maybe-uninitialized $<$<BOOL:${PERIGEE_WERROR}>:-Werror>
        "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")

    # The kernels, the device library and the stand-ins' own arithmetic: with the sanitizers' checks where
    # they are asked for.
    set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)
    add_library(cuda_emulated_kernels OBJECT ${cuda_sources} "${emulator_folder}/cublaslt.cpp")
    target_link_libraries(cuda_emulated_kernels PRIVATE cuda_emulated_flags)
    target_compile_options(cuda_emulated_kernels PRIVATE "SHELL:-x c++")

    # What switches stacks: never. An archive, since specs link programs of their own with it.
    file(GLOB emulator_sources CONFIGURE_DEPENDS "${emulator_folder}/*.cpp")
    list(REMOVE_ITEM emulator_sources "${emulator_folder}/cublaslt.cpp")
    add_library(cuda_on_cpu STATIC ${emulator_sources})
    target_link_libraries(cuda_on_cpu PRIVATE cuda_emulated_flags)

    add_library(perigee_cuda_emulated SHARED $<TARGET_OBJECTS:cuda_emulated_kernels>)
    target_link_libraries(perigee_cuda_emulated PRIVATE cuda_on_cpu Threads::Threads m ${CMAKE_DL_LIBS})
    target_link_options(perigee_cuda_emulated PRIVATE -Wl,-z,nodelete "-Wl,--version-script,${cuda_exports}")
    set_target_properties(perigee_cuda_emulated PROPERTIES LINK_DEPENDS "${cuda_exports}")
    if(PERIGEE_SANITIZE)
        target_compile_options(cuda_emulated_kernels PRIVATE
            -fsanitize=${PERIGEE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
        target_link_options(perigee_cuda_emulated PRIVATE -fsanitize=${PERIGEE_SANITIZE})
    endif()
    if(NOT (PERIGEE_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES "Clang"))
        target_link_options(perigee_cuda_emulated PRIVATE -Wl,--no-undefined)
    endif()
    install(TARGETS perigee_cuda_emulated LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
endif()

# ---- nvcc: a command a file, so that ninja runs them beside everything else ----

if(PERIGEE_NVCC AND NOT PERIGEE_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
    find_program(NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
endif()
if(PERIGEE_NVCC AND NVCC AND NOT PERIGEE_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
    set(nvcc_flags -std=c++17 -O3 --fmad=false
        -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a
        -gencode=arch=compute_80,code=compute_80
        -Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra)
    if(PERIGEE_WERROR)
        list(APPEND nvcc_flags --Werror all-warnings)
    endif()
    # A third of the size; the driver unpacks a kernel when it is first launched.
    execute_process(COMMAND "${NVCC}" --help OUTPUT_VARIABLE nvcc_help ERROR_QUIET)
    if(nvcc_help MATCHES "compress-mode")
        list(APPEND nvcc_flags --compress-mode=size)
    endif()
    set(nvcc_objects "")
    foreach(source IN LISTS cuda_sources)
        get_filename_component(name "${source}" NAME_WE)
        set(object "${PROJECT_BINARY_DIR}/cuda/${name}.o")
        add_custom_command(OUTPUT "${object}"
            COMMAND ${CMAKE_C_COMPILER_LAUNCHER} "${NVCC}" ${nvcc_flags} -MD -MF "${object}.d"
                -c "${source}" -o "${object}"
            DEPENDS "${source}"
            DEPFILE "${object}.d"
            COMMENT "Building ${name}.cu with nvcc"
            VERBATIM)
        list(APPEND nvcc_objects "${object}")
    endforeach()
    file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/cuda")
    set(cuda_library "${PROJECT_BINARY_DIR}/libperigee_cuda.so")
    add_custom_command(OUTPUT "${cuda_library}"
        COMMAND "${NVCC}" -shared -cudart static
            -Xlinker --no-undefined,-z,nodelete,--version-script,${cuda_exports} ${nvcc_objects}
            -o "${cuda_library}" -ldl -lpthread
        DEPENDS ${nvcc_objects} "${cuda_exports}"
        COMMENT "Linking libperigee_cuda.so"
        VERBATIM)
    add_custom_target(perigee_cuda ALL DEPENDS "${cuda_library}")
    install(FILES "${cuda_library}" DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
elseif(PERIGEE_NVCC AND NOT PERIGEE_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
    message(STATUS "No nvcc: libperigee_cuda.so is not built")
endif()
