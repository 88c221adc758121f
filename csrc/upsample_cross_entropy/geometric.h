// The fast path: exponentials as geometric progressions.
#pragma once

#include "../common/progressions.h"
#include "block.h"

namespace fcn::FCN_ISA {

// pixel_lse, when not null, is given each pixel's weighted log-sum-exp, [pixel][lane], and b.pixel zeros, since labels are
// not smoothed here; no gradient is made then.
template <class T, int K>
double geometric_block(const LossBlock<T>& b, T* pixel_lse) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    make_progressions(b);
    sum_exponentials<T, K>(b);
    if (pixel_lse) {
        for (int at = 0; at < b.rows * K * L; at += L) {
            store(pixel_lse + at, load(b.coefficient + at) * vlog(load<T>(b.pixel + at)));
            store(b.pixel + at, V{});
        }
        return 0;
    }

    LogSum<T> logs;
    V weighted = {};
    for (int row = 0; row < b.rows; ++row) {
        for (int k = 0; k < K; ++k) {
            T* pixel = b.pixel + (row * K + k) * L;
            store(pixel, normalise(b, row, k, load<T>(pixel), logs, weighted));
        }
    }
    if (b.grad_left) {
        // Of the pixels, coefficient / sum of exponentials.
        const auto factors = [pixel = b.pixel](int row, V, V, V* f) {
            for (int k = 0; k < K; ++k) f[k] = load<T>(pixel + (row * K + k) * L);
        };
        for (int c = 0; c < b.classes; ++c) accumulate_gradient<T, K>(b, b.params + 4 * L * c, c * b.class_stride, factors);
    }
    return logs.total() + double(sum<T>(weighted));
}

}  // namespace fcn::FCN_ISA
