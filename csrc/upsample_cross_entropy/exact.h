// The exact path: one exponential per pixel and class, relative to the pixel's own maximum. For scores of any range, for
// values that are not finite, for float64, and for the loss of each pixel.
#pragma once

#include "block.h"

namespace fcn::FCN_ISA {

// smoothing: [classes] label_smoothing / classes * weight, or null without smoothing. pixel_lse, when not null, is given
// each pixel's weighted log-sum-exp, and b.pixel its smoothed scores, [pixel][lane]; no gradient is made then.
template <class T, int K, bool finite>
double exact_block(const Block<T>& b, const T* smoothing, T* pixel_lse) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    V weighted = {};
    double total = 0;
    V t[K];
    for (int k = 0; k < K; ++k) t[k] = b.t_column + T(k) * b.column_step;
    for (int row = 0; row < b.rows; ++row) {
        const V t_row = b.t_row + T(row) * b.row_step;
        V peak[K] = {}, s[K] = {}, smooth[K] = {};
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
                if (smoothing) smooth[k] += times<finite>(splat(smoothing[c]), v);
            }
        }
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
            const int64_t at = c * b.class_stride;
            add_to(b.grad_left + at, g - t_row * g);
            add_to(b.grad_left + at + b.below, t_row * g);
            add_to(b.grad_slope + at, g_t - t_row * g_t);
            add_to(b.grad_slope + at + b.below, t_row * g_t);
        }
    }
    return total + double(sum<T>(weighted));
}

}  // namespace fcn::FCN_ISA
