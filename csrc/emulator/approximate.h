// The device's approximations: exact on a CPU, or, as a test may want it, off by what the documents allow: always to the
// same side, or as a hash of the argument says. How far a result is off depends on the argument alone, so that results repeat.
//
// PTX: ex2.approx is within 2^-22 of the result; lg2.approx too, and within 2^-22 at all where the argument is in [1/2, 2];
// div.approx is within 2 units in the last place, 2^-22 at most. The CUDA guide's bounds of __expf and __logf follow.
#pragma once

#include <cmath>

#include "emulator.h"

namespace fcn::emulator {

// By at most `most`.
inline float off(float argument, float most) {
    switch (approximation()) {
        case Approximation::exact: return 0;
        case Approximation::high: return most;
        case Approximation::low: return -most;
        case Approximation::random: break;
    }
    uint32_t bits = FCN_ISA::bit_cast<uint32_t>(argument) * 0x9e3779b1u;
    bits = (bits ^ bits >> 15) * 0x85ebca77u;
    return most * (float(bits >> 8) * 0x1p-23f - 1);
}

constexpr float kOff = 0x1p-22f;

// Of normal numbers; what is not normal becomes 0 on the device.
inline float exp2(float v) {
    const float exact = exp2f(v);
    return v == 0 ? exact : exact + exact * off(v, kOff);
}
inline float log2(float v) {
    const float exact = log2f(v), size = v >= 0.5f && v <= 2 ? 1.0f : std::fabs(exact);
    return std::isfinite(exact) ? exact + size * off(v, kOff) : exact;
}
inline float divide(float a, float b) {
    const float exact = a / b;
    return std::isfinite(exact) ? exact + exact * off(a - b, kOff) : exact;
}

}  // namespace fcn::emulator
