// The exact path: for scores of any range, values that are not finite, and smoothed losses of each pixel.
#pragma once

#include "../common/exact.h"
#include "block.h"

namespace fcn::FCN_ISA {

// smoothing: [classes] label_smoothing / classes * weight, or null without smoothing. pixel_lse, when not null, is given
// each pixel's weighted log-sum-exp, and b.pixel its smoothed scores, [pixel][lane]; no gradient is made then.
template <class T, int K, bool finite>
double exact_block(const LossBlock<T>& b, const T* smoothing, T* pixel_lse) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    V weighted = {};
    double total = 0;
    V t[K];
    for (int k = 0; k < K; ++k) t[k] = b.t_column + T(k) * b.column_step;
    for (int row = 0; row < b.rows; ++row) {
        const V t_row = b.t_row + T(row) * b.row_step;
        V peak[K] = {}, s[K] = {}, smooth[K] = {};
        exact_row<T, K, finite>(b, t_row, t, peak, s, [&](int c, int k, V score) {
            if (smoothing) smooth[k] += times<finite>(splat(smoothing[c]), score);
        });
        LogSum<T> logs;
        V factor[K] = {};
        for (int k = 0; k < K; ++k) {
            if (pixel_lse) {
                const int64_t at = (row * K + k) * L;
                store(pixel_lse + at, load(b.coefficient + at) * (vlog(s[k]) + peak[k]));
                store(b.pixel + at, smooth[k]);
                continue;
            }
            const auto counts = has_pixel(b, row, k);
            const V w = b.coefficient ? load(b.coefficient + (row * K + k) * L) : splat(T(1));
            weighted += counts & (w != T(0)) ? w * peak[k] : V{};
            factor[k] = normalise(b, row, k, s[k], logs, weighted);
        }
        total += logs.total();
        if (!b.grad_left || pixel_lse) continue;
        for (int c = 0; c < b.classes; ++c) {
            V g = {}, g_t = {};
            for (int k = 0; k < K; ++k) {
                const V p = times<finite>(factor[k], load(b.exps + (c * kMaxRun + k) * L));
                g += p;
                g_t += t[k] * p;
            }
            add_to_corners(b, c * b.class_stride, g, g_t, V(t_row * g), V(t_row * g_t));
        }
    }
    return total + double(sum<T>(weighted));
}

}  // namespace fcn::FCN_ISA
