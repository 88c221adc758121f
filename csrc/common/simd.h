// Vectors of the instruction set being compiled for, through the compiler's vector extensions, and the few functions
// on them that the kernels need. One source serves SSE2, AVX2, AVX-512 and, off x86, whatever 16-byte vectors there are.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fcn::FCN_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(kVectorBytes)));
    typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
    using type = int32_t;
};
template <>
struct IntOf<double> {
    using type = int64_t;
};
template <class T>
using Int = typename IntOf<T>::type;

template <class T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}

template <class T>
inline void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}

// The first `count` lanes; the others are 0, and nothing past `count` is touched.
template <class T>
inline Vec<T> load_some(const T* p, int count) {
    Vec<T> v = {};
    for (int i = 0; i < count; ++i) v[i] = p[i];
    return v;
}

template <class T>
inline void store_some(T* p, Vec<T> v, int count) {
    for (int i = 0; i < count; ++i) p[i] = v[i];
}

#if defined(__AVX512F__)
inline Vec<float> load_some(const float* p, int count) {
    return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
}
inline void store_some(float* p, Vec<float> v, int count) {
    _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), (__m512)v);
}
#elif defined(__AVX2__)
inline __m256i first_lanes(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec<float> load_some(const float* p, int count) { return (Vec<float>)_mm256_maskload_ps(p, first_lanes(count)); }
inline void store_some(float* p, Vec<float> v, int count) { _mm256_maskstore_ps(p, first_lanes(count), (__m256)v); }
#endif

// Less 0, which the compiler leaves out; 0 plus a number it would have to add, since -0 becomes 0.
template <class T>
inline Vec<T> splat(T value) {
    return value - Vec<T>{};
}

template <class V>
inline V vmax(V a, V b) {
    return a > b ? a : b;
}

template <class V>
inline V vmin(V a, V b) {
    return a < b ? a : b;
}

// The larger of x and low; NaN where x is. The processors' own maximum, which the compiler makes of `low > x ? low : x`
// only while `low` is not a constant.
inline Vec<float> vmax_or_nan(Vec<float> x, Vec<float> low) {
#if defined(__AVX512F__)
    return (Vec<float>)_mm512_max_ps((__m512)low, (__m512)x);
#elif defined(__AVX2__)
    return (Vec<float>)_mm256_max_ps((__m256)low, (__m256)x);
#else
    return low > x ? low : x;
#endif
}

inline Vec<double> vmax_or_nan(Vec<double> x, Vec<double> low) { return low > x ? low : x; }

template <int kBy, class T, int... I>
inline Vec<T> rotated(Vec<T> v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, ((I + kBy) % kLanes<T>)...);
}

template <class T, int... I>
inline Vec<T> moved_in(Vec<T> before, Vec<T> v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(before, v, (kLanes<T> - 1 + I)...);
}

// v moved up by a lane, below it the last of `before`.
template <class T>
inline Vec<T> moved_in(Vec<T> before, Vec<T> v) {
    return moved_in<T>(before, v, std::make_integer_sequence<int, kLanes<T>>{});
}

// In halves: a chain of additions would wait for each.
template <class T, int kHalf = kLanes<T> / 2>
inline T sum(Vec<T> v) {
    if constexpr (kHalf == 0) return v[0];
    else return sum<T, kHalf / 2>(v + rotated<kHalf, T>(v, std::make_integer_sequence<int, kLanes<T>>{}));
}

// Whether any lane of a comparison's result is set.
template <class M>
inline bool any(M mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_epi8((__m256i)mask) != 0;
#elif defined(__x86_64__)
    return _mm_movemask_epi8((__m128i)mask) != 0;
#else
    uint64_t words[kVectorBytes / 8], bits = 0;
    std::memcpy(words, &mask, sizeof words);
    for (uint64_t word : words) bits |= word;
    return bits != 0;
#endif
}

// exp, relative error below one unit in the last place (2 in float64); results too small for a normal number become
// 0 or subnormal, and NaN stays NaN. Not for arguments above 88 (709). p(0) = 1 exactly: geometric progressions of it
// must not drift.
inline Vec<float> vexp(Vec<float> x) {
    // 1.5 * 2^23 + 127: adding it rounds to an integer, held in the low bits as the exponent field of a power of two.
    const float kRound = 12583039.f;
    const Vec<float> y = vmax_or_nan(x, splat(-88.f));  // where that field is 0, and so is the power
    const Vec<float> shifted = y * 1.44269504088896341f + kRound;
    const Vec<float> n = shifted - kRound;
    const Vec<float> r = (y - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;  // ln 2 in two parts
    Vec<float> p = splat(1.392620336e-03f);
    p = p * r + 8.363194882e-03f;
    p = p * r + 4.166655450e-02f;
    p = p * r + 1.666657689e-01f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.f;
    return p * (Vec<float>)(((Vec<int32_t>)shifted) << 23);
}

inline Vec<double> vexp(Vec<double> x) {
    const double kRound = 6755399441056767.0;  // 1.5 * 2^52 + 1023
    const Vec<double> y = vmax_or_nan(x, splat(-709.0));
    const Vec<double> shifted = y * 1.4426950408889634074 + kRound;
    const Vec<double> n = shifted - kRound;
    const Vec<double> r = (y - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    Vec<double> p = splat(2.09147070696123546e-09);
    p = p * r + 2.51052451539013709e-08;
    p = p * r + 2.75572735947994133e-07;
    p = p * r + 2.75572553325544091e-06;
    p = p * r + 2.48015873255858388e-05;
    p = p * r + 1.98412698748739747e-04;
    p = p * r + 1.38888888888837373e-03;
    p = p * r + 8.33333333332612024e-03;
    p = p * r + 4.16666666666666713e-02;
    p = p * r + 1.66666666666666713e-01;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    return p * (Vec<double>)(((Vec<int64_t>)shifted) << 52);
}

// exp of a score less the largest of its pixel, so of a number up to 0, for sums and shares. Cheaper than vexp: ln 2 is not
// split, so the relative error grows by some 6e-8 |x|, as much as the subtraction before may have cost already.
inline Vec<float> softmax_exp(Vec<float> x) {
    const float kRound = 12583039.f;  // as in vexp
    const Vec<float> y = vmax_or_nan(x * 1.44269504088896341f, splat(-127.f));
    const Vec<float> shifted = y + kRound;
    const Vec<float> f = y - (shifted - kRound);
    Vec<float> p = splat(1.326472731307149e-03f);  // 2^f, f in [-1/2, 1/2]: minimax with p(0) = 1
    p = p * f + 9.671512991189957e-03f;
    p = p * f + 5.550733581185341e-02f;
    p = p * f + 2.4022242426872253e-01f;
    p = p * f + 6.931470036506653e-01f;
    p = p * f + 1.f;
    return p * (Vec<float>)(((Vec<int32_t>)shifted) << 23);
}

inline Vec<double> softmax_exp(Vec<double> x) { return vexp(x); }

// log of positive normal numbers; NaN stays NaN.
inline Vec<float> vlog(Vec<float> x) {
    // x = 2^e * m with m in [sqrt(1/2), sqrt(2))
    const Vec<int32_t> bits = (Vec<int32_t>)x - 0x3f3504f3;
    const Vec<int32_t> e = bits >> 23;
    const Vec<float> z = (Vec<float>)((bits & 0x007fffff) + 0x3f3504f3) - 1.f;
    Vec<float> p = splat(-7.902743772e-02f);
    p = p * z + 1.262231985e-01f;
    p = p * z - 1.299818376e-01f;
    p = p * z + 1.421449592e-01f;
    p = p * z - 1.664128146e-01f;
    p = p * z + 2.000104509e-01f;
    p = p * z - 2.500030642e-01f;
    p = p * z + 3.333333073e-01f;
    const Vec<float> exponent = __builtin_convertvector(e, Vec<float>);
    const Vec<float> z2 = z * z;
    const Vec<float> small = exponent * 1.42860682030941723e-6f + (p * z2 * z - 0.5f * z2);
    const Vec<float> result = exponent * 0.693145751953125f + (small + z);
    return x == x ? result : x;
}

inline Vec<double> vlog(Vec<double> x) {
    Vec<double> result = {};
    for (int i = 0; i < kLanes<double>; ++i) result[i] = __builtin_log(x[i]);
    return result;
}

// 1 / x of positive normal numbers to within 2 units in the last place.
inline Vec<float> reciprocal(Vec<float> x) {
#if defined(__AVX512F__)
    const Vec<float> r = (Vec<float>)_mm512_rcp14_ps((__m512)x);
    return r * (2.f - x * r);
#elif defined(__AVX2__)
    const Vec<float> r = (Vec<float>)_mm256_rcp_ps((__m256)x);
    return r * (2.f - x * r);
#else
    return 1.f / x;
#endif
}

inline Vec<double> reciprocal(Vec<double> x) { return 1.0 / x; }

template <int kFirst, int kStep, class T, int... I>
inline Vec<T> every(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (kFirst + kStep * I)...);
}
template <int kFirst, class T, int... I>
inline Vec<T> in_turn(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (kFirst + I / 2 + I % 2 * kLanes<T>)...);
}

// a0 b0 a1 b1 ..., in two vectors.
template <class T>
inline void interleave(Vec<T> a, Vec<T> b, Vec<T>& first, Vec<T>& second) {
    constexpr std::make_integer_sequence<int, kLanes<T>> lanes{};
    first = in_turn<0, T>(a, b, lanes);
    second = in_turn<kLanes<T> / 2, T>(a, b, lanes);
}

// The inverse.
template <class T>
inline void deinterleave(Vec<T> first, Vec<T> second, Vec<T>& a, Vec<T>& b) {
    constexpr std::make_integer_sequence<int, kLanes<T>> lanes{};
    a = every<0, 2, T>(first, second, lanes);
    b = every<1, 2, T>(first, second, lanes);
}

// A square of numbers, a vector to a row: rows become columns.
template <class T>
inline void transpose(Vec<T>* row) {
    constexpr int L = kLanes<T>;
    Vec<T> next[L];
    for (int stage = 1; stage < L; stage *= 2) {
        for (int i = 0; i < L / 2; ++i) interleave<T>(row[i], row[i + L / 2], next[2 * i], next[2 * i + 1]);
        for (int i = 0; i < L; ++i) row[i] = next[i];
    }
}

// Stores that bypass the cache, for results larger than it: they save reading each line before it is written.
inline bool large(int64_t total) { return kVectorBytes >= 32 && total > (4 << 20); }
template <class S>
inline bool aligned(const S* out) {
    return reinterpret_cast<uintptr_t>(out) % kVectorBytes == 0;
}

inline void stream(float* out, Vec<float> v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(out, (__m512)v);
#elif defined(__AVX2__)
    _mm256_stream_ps(out, (__m256)v);
#else
    store(out, v);
#endif
}

}  // namespace fcn::FCN_ISA
