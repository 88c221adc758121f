// Exponentials on the exact path: one per pixel and class, relative to the pixel's own maximum. For scores of any range and
// for values that are not finite.
#pragma once

#include "block.h"

namespace fcn::FCN_ISA {

// One row of pixels at t_row and t[K] between the corners: peak[K], the largest score of each; s[K], the sums of
// exponentials; and these themselves to b.exps. seen(c, k, score) for each of them.
template <class T, int K, bool finite, class F>
inline void exact_row(const Block<T>& b, Vec<T> t_row, const Vec<T>* t, Vec<T>* peak, Vec<T>* s, const F& seen) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    for (int c = 0; c < b.classes; ++c) {
        const int64_t at = c * b.class_stride;
        const V left = load(b.left + at), slope = load(b.slope + at);
        const V here = along<finite>(left, t_row, difference<finite>(left, load(b.left + at + b.below)));
        const V d = along<finite>(slope, t_row, difference<finite>(slope, load(b.slope + at + b.below)));
        store(b.params + 2 * L * c, here);
        store(b.params + 2 * L * c + L, d);
        for (int k = 0; k < K; ++k) {
            const V v = along<finite>(here, t[k], d);
            peak[k] = c == 0 ? v : vmax(peak[k], v);
        }
    }
    for (int c = 0; c < b.classes; ++c) {
        const V here = load<T>(b.params + 2 * L * c), d = load<T>(b.params + 2 * L * c + L);
        for (int k = 0; k < K; ++k) {
            const V v = along<finite>(here, t[k], d);
            const V e = softmax_exp(v - peak[k]);
            s[k] += e;
            store(b.exps + (c * kMaxRun + k) * L, e);
            seen(c, k, v);
        }
    }
}

}  // namespace fcn::FCN_ISA
