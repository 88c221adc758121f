// Reading and writing the storage dtypes as the dtype that is computed in.
#pragma once

#include <cstdint>
#include <cstring>

#include "tensor.h"

namespace fcn::FCN_ISA {

struct bfloat16 {
    uint16_t bits;
};
struct float16 {
    uint16_t bits;
};

template <class To, class From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float to_number(float v) { return v; }
inline double to_number(double v) { return v; }
inline float to_number(bfloat16 v) { return bit_cast<float>(uint32_t(v.bits) << 16); }

// Without branches, so that loops of it vectorise.
inline float to_number(float16 v) {
    const uint32_t sign = uint32_t(v.bits & 0x8000u) << 16;
    const uint32_t rest = v.bits & 0x7fffu;
    // The exponent field moved to float's place and scaled by 2^112; this turns subnormals right as well.
    const float scaled = bit_cast<float>(rest << 13) * bit_cast<float>(0x77800000u);
    const uint32_t infinite = (rest << 13) | 0x7f800000u;  // infinity and NaN
    return bit_cast<float>(sign | (rest >= 0x7c00u ? infinite : bit_cast<uint32_t>(scaled)));
}

inline void from_number(float v, float& out) { out = v; }
inline void from_number(double v, double& out) { out = v; }

inline void from_number(float v, bfloat16& out) {
    const uint32_t u = bit_cast<uint32_t>(v);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;  // to nearest even
    out.bits = uint16_t(v != v ? 0x7fc0u : rounded);
}

inline void from_number(float v, float16& out) {
    const uint32_t u = bit_cast<uint32_t>(v);
    const uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    // Subnormal results: adding 0.5 aligns the mantissa so that the hardware rounds to nearest even.
    const uint32_t tiny = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;  // rebiases by -112
    const uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;                  // NaN or infinity
    const uint32_t rest = magnitude < 0x38800000u ? tiny : magnitude >= 0x477ff000u ? large : normal;
    out.bits = uint16_t(sign | rest);
}

// Calls f with a null pointer of the tensor's element type; f is a generic lambda.
template <class F>
inline void with_float_dtype(DType dtype, F&& f) {
    switch (dtype) {
        case DType::float32: return f((float*)nullptr);
        case DType::float64: return f((double*)nullptr);
        case DType::bfloat16: return f((bfloat16*)nullptr);
        default: return f((float16*)nullptr);
    }
}

template <class F>
inline void with_label_dtype(DType dtype, F&& f) {
    switch (dtype) {
        case DType::uint8: return f((uint8_t*)nullptr);
        case DType::int16: return f((int16_t*)nullptr);
        case DType::int32: return f((int32_t*)nullptr);
        default: return f((int64_t*)nullptr);
    }
}

}  // namespace fcn::FCN_ISA
