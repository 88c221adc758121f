// Interpolation on a GPU between scores that may be infinite (a class may be excluded by -inf): along(a, t, difference(a, b))
// for t in [0, 1). What has weight 0 counts for nothing, whatever it is; an infinite score with a weight is the result, and
// NaN or infinities of both signs make NaN.
#pragma once

#include "cuda.h"

namespace fcn {

FCN_D bool finite(float v) { return v - v == 0; }

// 0 where a is infinite and stays so on the way to b.
FCN_D float difference(float a, float b) { return !finite(a) && (finite(b) || a == b) ? 0.0f : b - a; }

FCN_D float along(float a, float t, float d) { return t != 0 ? fmaf(t, d, a) : a; }

}  // namespace fcn
