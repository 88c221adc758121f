// The fast path: exp of a bilinear function is a geometric progression.
//
// Along a row of a patch a class's score is v + k * d, so its exponential is A * R^k; from row to row A and R are multiplied
// by constants as well. Four exponentials per (patch, class) serve all its pixels, and the gradient's sums over pixels are
// polynomials in R, and from row to row in A's ratio: Horner's rule with the derivative.
#pragma once

#include "cuda_corner_sums.h"
#include "cuda_labels.h"

namespace fcn {

// Scores relative to the largest class lie above this (nats) at all corners: exponentials, their products with the
// reciprocal sums, and powers of the ratios then stay inside float32's range.
constexpr float kRange = 62.0f;

// A class's exponential at the patch's first pixel, its ratios from column to column and from row to row, and the ratio
// from row to row of the ratio from column to column.
struct Progression {
    float first, column, row, both;

    FCN_D Progression(const float (&v)[4], const Patch& p, float column_step, float row_step) {
        const float upper = v[1] - v[0], lower = v[3] - v[2];
        const float upper_first = fmaf(p.column.t, upper, v[0]), lower_first = fmaf(p.column.t, lower, v[2]);
        const float down = lower_first - upper_first, twist = (lower - upper) * column_step;
        first = exp2_approx(fmaf(p.row.t, down, upper_first));
        column = exp2_approx(fmaf(p.row.t, twist, upper * column_step));
        row = exp2_approx(down * row_step);
        both = exp2_approx(twist * row_step);
    }
};

// Adds a class's exponentials to the sums of its pixels.
template <int K, int R>
FCN_D void add_exponentials(Progression p, float (&sum)[R][K]) {
#pragma unroll
    for (int row = 0; row < R; ++row) {
        // Two chains, of even and of odd pixels.
        float even = p.first, odd = p.first * p.column;
        const float square = p.column * p.column;
#pragma unroll
        for (int k = 0; k < K; k += 2) {
            sum[row][k] += even, sum[row][k + 1] += odd;
            if (k + 2 < K) even *= square, odd *= square;
        }
        if (row + 1 < R) p.first *= p.row, p.column *= p.both;
    }
}

// Sums over the patch's pixels of p, column * p, row * p and row * column * p, where p = factor * exponential, to sums at
// the corners.
template <int K, int R>
FCN_D void sum_gradient(const Progression& p, const Patch& patch, float column_step, float row_step, const float (&factor)[R][K],
                        float (&corner)[4]) {
    float ratio[R];
    ratio[0] = p.column;
#pragma unroll
    for (int row = 1; row < R; ++row) ratio[row] = ratio[row - 1] * p.both;
    float s = 0, s_column = 0, s_row = 0, s_both = 0;
#pragma unroll
    for (int row = R - 1; row >= 0; --row) {
        float value = factor[row][K - 1], slope = 0;
#pragma unroll
        for (int k = K - 2; k >= 0; --k) {
            slope = fmaf(slope, ratio[row], value);
            value = fmaf(value, ratio[row], factor[row][k]);
        }
        slope *= ratio[row];
        if (row + 1 < R) s_row = fmaf(s_row, p.row, s), s_both = fmaf(s_both, p.row, s_column);
        s = fmaf(s, p.row, value), s_column = fmaf(s_column, p.row, slope);
    }
    s *= p.first, s_column *= p.first;
    const float down = p.first * p.row;  // the derivatives lack one factor
    s_row *= down, s_both *= down;
    const float column = fmaf(column_step, s_column, patch.column.t * s);  // weighted by the position in the cell
    const float below = fmaf(row_step, s_row, patch.row.t * s);
    const float both = fmaf(patch.row.t, column, row_step * fmaf(column_step, s_both, patch.column.t * s_row));
    corner[0] = s - column - below + both;
    corner[1] = column - both;
    corner[2] = below - both;
    corner[3] = both;
}

// What the labels of a patch are, for the gradient.
struct PatchLabels {
    int only;          // the one label of all pixels, of equal weight; or -1
    unsigned present;  // bit c % 32: whether a pixel may have class c
    float smooth[4];   // the pixels' weights at the corners, where labels are smoothed
};

// Weights at the corners of pixels of the patch that are `count` rows by `columns`, each of weight 1.
FCN_D void corner_weights(const Patch& p, float column_step, float row_step, float (&w)[4]) {
    const float columns = float(p.column.count), rows = float(p.row.count);
    const float right = columns * fmaf(0.5f * (columns - 1), column_step, p.column.t), left = columns - right;
    const float lower = rows * fmaf(0.5f * (rows - 1), row_step, p.row.t), upper = rows - lower;
    w[0] = upper * left, w[1] = upper * right, w[2] = lower * left, w[3] = lower * right;
}

// Adds a pixel's weights at the corners.
FCN_D void add_pixel(float weight, float t_row, float t_column, float (&w)[4]) {
    const float lower = weight * t_row, upper = weight - lower;
    w[1] = fmaf(upper, t_column, w[1]), w[0] += fmaf(-upper, t_column, upper);
    w[3] = fmaf(lower, t_column, w[3]), w[2] += fmaf(-lower, t_column, lower);
}

// From sums of exponentials to the factors that turn exponentials into gradients, weight / sum; counts log-sum-exp.
template <int K, int R, class S>
FCN_D PatchLabels normalise(const LossArgs<S>& a, const Place& place, const Patch& patch, float (&sum)[R][K], Sums& sums) {
    PatchLabels labels{-1, 0, {0, 0, 0, 0}};
    const float total_smoothing = smoothing_total(a);
    float logs = 0;
    int least = a.classes, greatest = -1;
#pragma unroll
    for (int row = 0; row < R; ++row) {
        int label[K];
        const int y = patch.row.first + row, count = row < patch.row.count ? patch.column.count : 0;
        read_labels<K>(a, place.image, y, patch.column.first, count, label);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const float pixel = label[k] != kIgnored ? pixel_weight(a, place.image, y, patch.column.first + k) : 0.0f;
            const PixelWeights weight = weigh(a, label[k], pixel);
            const float w = fmaf(total_smoothing, weight.pixel, weight.hard);
            sums.weight += weight.total;
            sums.loss += weight.loss;
            logs += w != 0 ? w * log2_approx(sum[row][k]) : 0.0f;
            sum[row][k] = w != 0 ? __fdividef(w, sum[row][k]) : 0.0f;
            if (k < count) least = min(least, label[k]), greatest = max(greatest, label[k]);
            if (weight.hard != 0) labels.present |= 1u << (label[k] & 31);
            if (a.smoothing != 0) {
                add_pixel(weight.pixel, fmaf(float(row), a.rows.slope, patch.row.t),
                          fmaf(float(k), a.columns.slope, patch.column.t), labels.smooth);
            }
        }
    }
    sums.loss = fmaf(kLn2, logs, sums.loss);
    if (least == greatest && !a.pixel_weight) labels.only = least;
    return labels;
}

// The weights at the corners of the pixels with label c.
template <int K, int R, class S>
FCN_D void label_weights(const LossArgs<S>& a, const Place& place, const Patch& patch, const PatchLabels& labels, int c,
                         float (&w)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = 0;
    if (!(labels.present >> (c & 31) & 1)) return;
    if (labels.only >= 0) {
        if (labels.only == c) corner_weights(patch, a.columns.slope, a.rows.slope, w);
    } else {
        for (int row = 0; row < patch.row.count; ++row) {
            int label[K];
            const int y = patch.row.first + row;
            read_labels<K>(a, place.image, y, patch.column.first, patch.column.count, label);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                if (label[k] != c) continue;
                add_pixel(pixel_weight(a, place.image, y, patch.column.first + k), fmaf(float(row), a.rows.slope, patch.row.t),
                          fmaf(float(k), a.columns.slope, patch.column.t), w);
            }
        }
    }
    const float hard = a.hard * class_weight(a, c);
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] *= hard;
}

// `gradient` is null where none is wanted.
template <int K, int R, class S>
FCN_D void geometric_path(const LossArgs<S>& a, const Place& place, const Patch& patch, const Corners<S>& corners,
                          CornerSums* gradient, Sums& sums) {
    const float column_step = a.columns.slope, row_step = a.rows.slope;
    float factor[R][K], v[4];  // first the sums of exponentials
#pragma unroll
    for (int row = 0; row < R; ++row) {
#pragma unroll
        for (int k = 0; k < K; ++k) factor[row][k] = 0;
    }
    for (int c = 0; c < a.classes; ++c) {
        corners.read(c, v);
        add_exponentials<K, R>(Progression(v, patch, column_step, row_step), factor);
    }
    const PatchLabels labels = normalise<K, R>(a, place, patch, factor, sums);
    float score = 0;  // <scores, T>
    for (int first = 0; first < a.classes; first += CornerSums::kClasses) {
        const int classes = min(CornerSums::kClasses, a.classes - first);
        for (int g = 0; g < classes; ++g) {
            const int c = first + g;
            if (!gradient && a.smoothing == 0 && !(labels.present >> (c & 31) & 1)) continue;
            float w[4];
            corners.read(c, v);
            label_weights<K, R>(a, place, patch, labels, c, w);
            const float smoothing = a.smoothing * class_weight(a, c);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                w[i] = fmaf(smoothing, labels.smooth[i], w[i]);
                score = fmaf(w[i], v[i], score);
            }
            if (!gradient) continue;
            float sum[4];
            sum_gradient<K, R>(Progression(v, patch, column_step, row_step), patch, column_step, row_step, factor, sum);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] -= w[i];
            gradient->put(g, sum);
        }
        if (gradient) gradient->flush(first, classes, false);
    }
    sums.loss = fmaf(-kLn2, score, sums.loss);
}

}  // namespace fcn
