// Exponential and logarithm on a GPU, one instruction each.
#pragma once

#include <cmath>

#include "cuda.h"

namespace fcn {

constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// 2^v (0 where that is not normal) and log2 v of normal numbers: within 2 units in the last place.
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
FCN_D float exp2_approx(float v) { return exp2f(v); }
FCN_D float log2_approx(float v) { return log2f(v); }
FCN_D int opaque(int v) { return v; }
#endif

}  // namespace fcn
