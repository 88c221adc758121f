// Exponentials on the fast path: exp of a bilinear function is a geometric progression.
//
// Along a row of a cell's pixels a class's score is v + k * d, so its exponential is A * R^k with A = e^v, R = e^d; from
// row to row A and R are multiplied by constants as well. Four exponentials per (cell, class) serve all its pixels, and
// sums over pixels are polynomials in R, evaluated by Horner's rule, with positions together with their derivative.
// Needs scores in (kLowest, 0] at all corners.
#pragma once

#include "block.h"

namespace fcn::FCN_ISA {

// Scores relative to the largest class lie above this (nats) at all corners: exponentials, their products with the
// reciprocal sums, and powers of the ratios then stay inside float32's range.
constexpr float kLowest = -62.f;

// A, R and what a row multiplies them by, of every class, to b.params.
template <class T>
inline void make_progressions(const Block<T>& b) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    for (int c = 0; c < b.classes; ++c) {
        const int64_t at = c * b.class_stride;
        const V left = load(b.left + at), slope = load(b.slope + at);
        const V d_left = load(b.left + at + b.below) - left, d_slope = load(b.slope + at + b.below) - slope;
        const V first = left + b.t_column * slope, d_first = d_left + b.t_column * d_slope;
        T* params = b.params + 4 * L * c;
        store(params, vexp(first + b.t_row * d_first));
        store(params + L, vexp((slope + b.t_row * d_slope) * b.column_step));
        store(params + 2 * L, vexp(d_first * b.row_step));
        store(params + 3 * L, vexp(d_slope * (b.column_step * b.row_step)));
    }
}

template <class T, int K, int G>
__attribute__((noinline)) void accumulate_exponentials(const T* params, T* pixel, int rows) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    V a[G], r[G], a_ratio[G], r_ratio[G];
    for (int g = 0; g < G; ++g) {
        a[g] = load(params + (4 * g) * L);
        r[g] = load(params + (4 * g + 1) * L);
        a_ratio[g] = load(params + (4 * g + 2) * L);
        r_ratio[g] = load(params + (4 * g + 3) * L);
    }
    for (int row = 0; row < rows; ++row, pixel += K * L) {
        V e[G];
        for (int g = 0; g < G; ++g) e[g] = a[g];
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
            V s = load<T>(pixel + k * L);
            for (int g = 0; g < G; ++g) s += e[g], e[g] *= r[g];
            store<T>(pixel + k * L, s);
        }
        for (int g = 0; g < G; ++g) a[g] *= a_ratio[g], r[g] *= r_ratio[g];
    }
}

// b.pixel: the sum over classes of each pixel's exponentials.
template <class T, int K>
inline void sum_exponentials(const Block<T>& b) {
    constexpr int L = kLanes<T>;
    std::memset(b.pixel, 0, sizeof(T) * K * b.rows * L);
    int c = 0;
    for (; c + 3 <= b.classes; c += 3) accumulate_exponentials<T, K, 3>(b.params + 4 * L * c, b.pixel, b.rows);
    for (; c < b.classes; ++c) accumulate_exponentials<T, K, 1>(b.params + 4 * L * c, b.pixel, b.rows);
}

// Adds one class's gradient to the corners' sums: that of a pixel is the class's exponential times a factor.
// factors(row, a, r, f) makes f[K], those of a row, whose exponentials are a * r^k.
template <class T, int K, class F>
__attribute__((noinline)) void accumulate_gradient(const Block<T>& b, const T* params, int64_t at, const F& factors) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    V a = load(params), r = load(params + L);
    const V a_ratio = load(params + 2 * L), r_ratio = load(params + 3 * L);
    // Sums over pixels of g, column * g, row * g, row * column * g, with positions in pixels.
    V s = {}, s_c = {}, s_r = {}, s_rc = {};
    for (int row = 0; row < b.rows; ++row) {
        V f[K];
        factors(row, a, r, f);
        V p = f[K - 1], d = {};
#pragma GCC unroll 8
        for (int k = K - 2; k >= 0; --k) {
            d = d * r + p;
            p = p * r + f[k];
        }
        const V g = a * p, g_c = a * r * d;
        s += g;
        s_c += g_c;
        s_r += T(row) * g;
        s_rc += T(row) * g_c;
        a *= a_ratio;
        r *= r_ratio;
    }
    const V column = b.t_column * s + b.column_step * s_c;
    const V row = b.t_row * s + b.row_step * s_r;
    const V both = b.t_row * column + b.row_step * (b.t_column * s_r + b.column_step * s_rc);
    add_to_corners(b, at, s, column, row, both);
}

}  // namespace fcn::FCN_ISA
