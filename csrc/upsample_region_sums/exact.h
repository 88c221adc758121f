// The exact path: one exponential per pixel and class.
#pragma once

#include "../common/exact.h"
#include "block.h"

namespace fcn::FCN_ISA {

// Where each pixel of a row lies, the row's exponentials (to b.exps), and 1 / their sums.
template <class T, int K, bool finite>
struct ExactRow {
    using V = Vec<T>;
    V t_row, t[K], inverses[K];

    ExactRow(const RegionBlock<T>& b, int row) {
        t_row = b.t_row + T(row) * b.row_step;
        for (int k = 0; k < K; ++k) t[k] = b.t_column + T(k) * b.column_step;
        V peak[K] = {}, s[K] = {};
        exact_row<T, K, finite>(b, t_row, t, peak, s, [](int, int, V) {});
        for (int k = 0; k < K; ++k) inverses[k] = inverse<T>(labels_of(b, row, k), s[k]);
    }

    V probability(const RegionBlock<T>& b, int c, int k) const {
        return times<finite>(inverses[k], load(b.exps + (c * kMaxRun + k) * kLanes<T>));
    }
};

template <class T, int K, bool finite>
void exact_sums(const RegionBlock<T>& b) {
    using V = Vec<T>;
    for (int row = 0; row < b.rows; ++row) {
        const ExactRow<T, K, finite> exact(b, row);
        for_each_class(b, [&](int c, bool known) {
            V sum = {}, own = {}, count = {};
            for (int k = 0; k < K; ++k) {
                const V p = exact.probability(b, c, k);
                sum += b.squared ? p * p : p;
                if (!known) continue;
                const auto here = labels_of(b, row, k) == Int<T>(c);
                own += here ? p : V{};
                count += here ? splat(T(1)) : V{};
            }
            add_to(b.prediction + c * kLanes<T>, sum);
            if (!known) return;
            add_to(b.intersection + c * kLanes<T>, own);
            add_to(b.count + c * kLanes<T>, count);
        });
    }
}

template <class T, int K, bool finite>
void exact_gradient(const RegionBlock<T>& b) {
    using V = Vec<T>;
    for (int row = 0; row < b.rows; ++row) {
        const ExactRow<T, K, finite> exact(b, row);
        V mean[K] = {};
        const auto weight = [&](int c, bool known, int k, V p) {
            V w = splat(b.weight_prediction[c]);
            if (b.squared) w *= 2 * p;
            if (known) w += labels_of(b, row, k) == Int<T>(c) ? splat(b.weight_intersection[c]) : V{};
            return w;
        };
        for_each_class(b, [&](int c, bool known) {
            for (int k = 0; k < K; ++k) {
                const V p = exact.probability(b, c, k);
                mean[k] += p * weight(c, known, k, p);
            }
        });
        for_each_class(b, [&](int c, bool known) {
            V s = {}, column = {};
            for (int k = 0; k < K; ++k) {
                const V p = exact.probability(b, c, k);
                const V g = p * (weight(c, known, k, p) - mean[k]);
                s += g;
                column += exact.t[k] * g;
            }
            add_to_corners(b, c * b.class_stride, s, column, V(exact.t_row * s), V(exact.t_row * column));
        });
    }
}

}  // namespace fcn::FCN_ISA
