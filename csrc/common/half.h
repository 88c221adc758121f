// Vectors of float from and to 16-bit numbers in memory, with the values of convert.h.
#pragma once

#include "convert.h"
#include "simd.h"

namespace fcn::FCN_ISA {

typedef uint16_t Halves __attribute__((vector_size(2 * kLanes<float>), aligned(2), may_alias));

inline Vec<float> load_halves(const bfloat16* from) {
    const auto bits = *reinterpret_cast<const Halves*>(from);
    return (Vec<float>)(__builtin_convertvector(bits, Vec<uint32_t>) << 16);
}

inline void store_halves(bfloat16* to, Vec<float> v) {
    const Vec<uint32_t> u = (Vec<uint32_t>)v, rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    *reinterpret_cast<Halves*>(to) = __builtin_convertvector(v == v ? rounded : splat(0x7fc0u), Halves);
}

inline Vec<float> load_halves(const float16* from) {
#if defined(__AVX512F__)
    return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
    return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    Vec<float> v = {};
    for (int i = 0; i < kLanes<float>; ++i) v[i] = to_number(from[i]);
    return v;
#endif
}

inline void store_halves(float16* to, Vec<float> v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int i = 0; i < kLanes<float>; ++i) from_number(v[i], to[i]);
#endif
}

}  // namespace fcn::FCN_ISA
