// The fast path: exponentials as geometric progressions.
#pragma once

#include "../common/progressions.h"
#include "block.h"

namespace fcn::FCN_ISA {

template <class T, int K>
double geometric_block(const LossBlock<T>& b) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    make_progressions(b);
    sum_exponentials<T, K>(b);

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
