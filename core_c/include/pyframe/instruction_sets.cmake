# The instruction sets that this architecture has and the compiler knows, for the core and plugins:
#
#     include(${PYFRAME_INCLUDE}/pyframe/instruction_sets.cmake)
#
# PYFRAME_ISAS: the instruction sets, "baseline" first; FLAGS_<set>: the compiler's flags for each;
# AS_IS: the prefix for a flag of GCC and Clang.
#
# For tests, PYFRAME_LIKE_NEON=ON adds the kernels of NEON on x86-64: the same vectors of 16 bytes,
# fused multiply-adds, and blocks for 32 registers, at the speed of the machine. (What is compiled
# without CMake, as by pyframe.testing, knows nothing of it.)
include(CheckCCompilerFlag)
include(CheckCSourceCompiles)

# clang-cl reads flags in cl's style; this prefix passes those of GCC and Clang through.
set(AS_IS "")
if(CMAKE_C_COMPILER_FRONTEND_VARIANT STREQUAL "MSVC")
  set(AS_IS "/clang:")
endif()

set(FLAGS_baseline "")
set(FLAGS_avx2 -mavx2 -mfma)
set(FLAGS_avx512 -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma)
set(FLAGS_neon "")
list(TRANSFORM FLAGS_avx2 PREPEND "${AS_IS}")
list(TRANSFORM FLAGS_avx512 PREPEND "${AS_IS}")
set(PYFRAME_ISAS baseline)
# Xcode and Visual Studio can be told to compile for a processor other than the machine's.
set(PROCESSOR ${CMAKE_SYSTEM_PROCESSOR})
if(APPLE AND CMAKE_OSX_ARCHITECTURES)
  set(PROCESSOR ${CMAKE_OSX_ARCHITECTURES})
elseif(CMAKE_VS_PLATFORM_NAME)
  set(PROCESSOR ${CMAKE_VS_PLATFORM_NAME})
endif()
if(PROCESSOR MATCHES "^(x86_64|AMD64|amd64|x64)$")
  # Checking the flags is not enough: a compiler may accept them without the header or an assembler.
  set(USES_avx2 "_mm256_storeu_ps(x, _mm256_fmadd_ps(_mm256_loadu_ps(x), _mm256_set1_ps(2), _mm256_set1_ps(1)))")
  set(USES_avx512 "_mm512_mask_storeu_ps(x, 7, _mm512_maskz_loadu_ps(7, x))")
  foreach(isa avx2 avx512)
    string(REPLACE ";" " " flags "${FLAGS_${isa}}")
    set(CMAKE_REQUIRED_FLAGS "${flags}")
    check_c_source_compiles("#include <immintrin.h>
      int main(void) { float x[16] = {0}; ${USES_${isa}}; return x[0] > 1; }" COMPILER_HAS_${isa})
    unset(CMAKE_REQUIRED_FLAGS)
    if(COMPILER_HAS_${isa})
      list(APPEND PYFRAME_ISAS ${isa})
    else()
      message(WARNING "${CMAKE_C_COMPILER} cannot compile for ${isa} (${flags}): the library will "
                      "have no kernels for it")
    endif()
  endforeach()
  # By default compilers avoid 512-bit vectors in loops that they vectorize themselves.
  check_c_compiler_flag(${AS_IS}-mprefer-vector-width=512 COMPILER_KNOWS_VECTOR_WIDTH)
  if(COMPILER_KNOWS_VECTOR_WIDTH)
    list(APPEND FLAGS_avx512 ${AS_IS}-mprefer-vector-width=512)
  endif()
  if(PYFRAME_LIKE_NEON)
    list(APPEND FLAGS_neon -mfma -mprefer-vector-width=128 -DPF_LIKE_NEON=1)
    list(TRANSFORM FLAGS_neon PREPEND "${AS_IS}")
    list(INSERT PYFRAME_ISAS 1 neon)
  endif()
elseif(PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  list(APPEND PYFRAME_ISAS neon)
endif()
