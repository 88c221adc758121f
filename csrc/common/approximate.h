// Exponential and logarithm on a GPU, one instruction each.
#pragma once

#include <cmath>

#include "cuda.h"

namespace fcn {

constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// 2^v (0 where that is not normal) and log2 v of normal numbers: 2^v within 2^-22 of itself, and log2 v as well, and where v
// is in [1/2, 2] within 2^-22 at all.
#if defined(__CUDA_ARCH__)
FCN_D float exp2_approx(float v) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
}
FCN_D float log2_approx(float v) {
    float result;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
}

// v, of which the compiler knows nothing: what is computed from it stays where it is written. Else the compiler moves it out
// of the loop over classes, where it holds registers for the sake of work that is rarely done.
FCN_D int opaque(int v) {
    asm volatile("" : "+r"(v));
    return v;
}
#else
#if defined(FCN_EMULATE)
FCN_D float exp2_approx(float v) { return emulator::exp2(v); }
FCN_D float log2_approx(float v) { return emulator::log2(v); }
#else  // nvcc's look at the host's side, which runs none of it
FCN_D float exp2_approx(float v) { return exp2f(v); }
FCN_D float log2_approx(float v) { return log2f(v); }
#endif
FCN_D int opaque(int v) { return v; }
#endif

// exp v: __expf without the instructions that keep what is not normal.
FCN_D float exp_approx(float v) { return exp2_approx(kLog2E * v); }

}  // namespace fcn
