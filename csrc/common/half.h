// Vectors of float from and to 16-bit numbers in memory, with the values of convert.h.
#pragma once

#include "convert.h"
#include "simd.h"

namespace fcn::FCN_ISA {

// The bits of a vector's worth of 16-bit numbers.
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes<float>), aligned(2), may_alias));

inline Vec<float> widened(bfloat16, Halves bits) { return (Vec<float>)(__builtin_convertvector(bits, Vec<uint32_t>) << 16); }

inline Halves narrowed(bfloat16, Vec<float> v) {
    const Vec<uint32_t> u = (Vec<uint32_t>)v, rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return __builtin_convertvector(v == v ? rounded : splat(0x7fc0u), Halves);
}

inline Vec<float> widened(float16, Halves bits) {
#if defined(__AVX512F__)
    return (Vec<float>)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__F16C__)
    return (Vec<float>)_mm256_cvtph_ps((__m128i)bits);
#else
    Vec<float> v = {};
    for (int i = 0; i < kLanes<float>; ++i) v[i] = to_number(float16{bits[i]});
    return v;
#endif
}

inline Halves narrowed(float16, Vec<float> v) {
#if defined(__AVX512F__)
    return (Halves)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
    return (Halves)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
    Halves bits = {};
    for (int i = 0; i < kLanes<float>; ++i) {
        float16 number;
        from_number(v[i], number);
        bits[i] = number.bits;
    }
    return bits;
#endif
}

template <class S>
inline Vec<float> load_halves(const S* from) {
    return widened(S{}, *reinterpret_cast<const Halves*>(from));
}

template <class S>
inline void store_halves(S* to, Vec<float> v) {
    *reinterpret_cast<Halves*>(to) = narrowed(S{}, v);
}

// The first `count`; the others are 0, and nothing past `count` is touched.
template <class S>
inline Vec<float> load_some_halves(const S* from, int count) {
#if defined(__AVX512F__)
    return widened(S{}, (Halves)_mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), from));
#else
    float numbers[kLanes<float>] = {};
    for (int i = 0; i < count; ++i) numbers[i] = to_number(from[i]);
    return load(numbers);
#endif
}

template <class S>
inline void store_some_halves(S* to, Vec<float> v, int count) {
#if defined(__AVX512F__)
    _mm256_mask_storeu_epi16(to, __mmask16((1u << count) - 1), (__m256i)narrowed(S{}, v));
#else
    for (int i = 0; i < count; ++i) from_number(v[i], to[i]);
#endif
}

}  // namespace fcn::FCN_ISA
