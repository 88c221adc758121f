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
        const float upper_first = fmaf(p.t_column, upper, v[0]), lower_first = fmaf(p.t_column, lower, v[2]);
        const float down = lower_first - upper_first, twist = (lower - upper) * (kLog2E * column_step);
        first = exp2_approx(kLog2E * fmaf(p.t_row, down, upper_first));
        column = exp2_approx(fmaf(p.t_row, twist, upper * (kLog2E * column_step)));
        row = exp2_approx(down * (kLog2E * row_step));
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
    const float column = fmaf(column_step, s_column, patch.t_column * s);  // weighted by the position in the cell
    const float below = fmaf(row_step, s_row, patch.t_row * s);
    const float both = fmaf(patch.t_row, column, row_step * fmaf(column_step, s_both, patch.t_column * s_row));
    corner[0] = s - column - below + both;
    corner[1] = column - both;
    corner[2] = below - both;
    corner[3] = both;
}

// What the labels of a patch are, for the gradient.
struct PatchLabels {
    int only;          // the one label of all pixels, of equal weight; or -1
    unsigned present;  // bit c % 32: whether a pixel may have class c
};

// Weights at the corners of pixels of the patch that are `count` rows by `columns`, each of weight 1.
FCN_D void corner_weights(const Patch& p, float column_step, float row_step, float (&w)[4]) {
    const float columns = float(p.columns()), rows = float(p.rows());
    const float right = columns * fmaf(0.5f * (columns - 1), column_step, p.t_column), left = columns - right;
    const float lower = rows * fmaf(0.5f * (rows - 1), row_step, p.t_row), upper = rows - lower;
    w[0] = upper * left, w[1] = upper * right, w[2] = lower * left, w[3] = lower * right;
}

// Adds a pixel's weights at the corners.
FCN_D void add_pixel(float weight, float t_row, float t_column, float (&w)[4]) {
    const float lower = weight * t_row, upper = weight - lower;
    w[1] = fmaf(upper, t_column, w[1]), w[0] += fmaf(-upper, t_column, upper);
    w[3] = fmaf(lower, t_column, w[3]), w[2] += fmaf(-lower, t_column, lower);
}

// What labels say about the pixels of a patch, row by row.
struct LabelScan {
    int least, greatest, counted;
    unsigned present;
    float smooth[4];  // see BlockMemory
};

// Weights of the log-sum-exp of a row's pixels, all that count weighing 1.
template <int K, class S>
FCN_D void count_row(const LossArgs<S>& a, const Patch& patch, int row, LabelScan& scan, float (&w)[K]) {
    int label[K];
    const int count = row < patch.rows() ? patch.columns() : 0;
    read_labels<K>(a, patch.image, patch.first_row() + row, patch.first_column(), count, label);
#pragma unroll
    for (int k = 0; k < K; ++k) {
        w[k] = label[k] >= 0 ? 1.0f : 0.0f;
        if (label[k] >= 0) scan.present |= 1u << (label[k] & 31), ++scan.counted;
        if (k < count) scan.least = min(scan.least, label[k]), scan.greatest = max(scan.greatest, label[k]);
    }
}

// The same for weighted pixels and smoothed labels: one pixel after the other, by way of shared memory.
template <int K, class S>
FCN_D void weigh_row(const LossArgs<S>& a, const Patch& patch, int row, float total_smoothing, LabelScan& scan, float (&w)[K], Sums& sums) {
    static_assert(K <= sizeof(BlockMemory::corner_sums) / (sizeof(float) * kThreads));
    float* const weights = BlockMemory::here().corner_sums[0][0][0] + threadIdx.x;  // nobody else uses this thread's column
    const int y = patch.first_row() + row, x = patch.first_column(), count = row < patch.rows() ? patch.columns() : 0;
    with_labels(a, patch.image, y, x, [&](const auto* labels) {
#pragma unroll 1
        for (int k = 0; k < K; ++k, labels += a.target_stride[2]) {
            const int label = k < count ? checked_label(a, *labels) : kIgnored;
            const PixelWeights weight = weigh(a, label, patch.image, y, x + k, sums);
            weights[k * kThreads] = fmaf(total_smoothing, weight.pixel, weight.hard);
            if (label >= 0) scan.present |= 1u << (label & 31);
            if (k < count) scan.least = min(scan.least, label), scan.greatest = max(scan.greatest, label);
            if (a.smoothing != 0) {
                add_pixel(weight.pixel, fmaf(float(row), a.rows.slope, patch.t_row), fmaf(float(k), a.columns.slope, patch.t_column),
                          scan.smooth);
            }
        }
    });
#pragma unroll
    for (int k = 0; k < K; ++k) w[k] = weights[k * kThreads];
}

// From sums of exponentials to the factors that turn exponentials into gradients, weight / sum; counts log-sum-exp.
template <int K, int R, class S>
FCN_D PatchLabels normalise(const LossArgs<S>& a, const Patch& patch, float (&sum)[R][K], Sums& sums) {
    const bool plain = !a.class_weight && !a.pixel_weight && a.smoothing == 0;
    const float total_smoothing = smoothing_total(a);
    LabelScan scan{a.classes, -1, 0, 0, {0, 0, 0, 0}};
    float logs = 0;
#pragma unroll
    for (int row = 0; row < R; ++row) {
        float w[K];
        if (plain) {
            count_row<K>(a, patch, row, scan, w);
        } else {
            weigh_row<K>(a, patch, row, total_smoothing, scan, w, sums);
        }
#pragma unroll
        for (int k = 0; k < K; ++k) {
            logs += w[k] != 0 ? w[k] * log2_approx(sum[row][k]) : 0.0f;
            sum[row][k] = w[k] != 0 ? __fdividef(w[k], sum[row][k]) : 0.0f;
        }
    }
    sums.loss = fmaf(kLn2, logs, sums.loss);
    sums.weight += float(scan.counted);
    if (plain && scan.least == kOutOfRange) sums.loss = NAN;
    if (a.smoothing != 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) BlockMemory::here().smooth[i][threadIdx.x] = scan.smooth[i];
    }
    return {scan.least == scan.greatest && !a.pixel_weight ? scan.least : -1, scan.present};
}

// The weights at the corners that the pixels' labels give to class c.
template <class S>
FCN_D void label_weights(const LossArgs<S>& a, const Patch& patch, const PatchLabels& labels, int c, float (&w)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = 0;
    if (labels.only == c) {
        corner_weights(patch, a.columns.slope, a.rows.slope, w);
    } else if (labels.only < 0 && (labels.present >> (c & 31) & 1) && c != a.ignore_index) {
        with_labels(a, patch.image, patch.first_row(), patch.first_column(), [&](const auto* labels_of_row) {
#pragma unroll 1
            for (int row = 0; row < patch.rows(); ++row, labels_of_row += a.target_stride[1]) {
#pragma unroll 1
                for (int k = 0; k < patch.columns(); ++k) {
                    if (int64_t(labels_of_row[k * a.target_stride[2]]) != c) continue;
                    const float given = given_weight(a, patch.image, patch.first_row() + row, patch.first_column() + k);
                    add_pixel(given, fmaf(float(row), a.rows.slope, patch.t_row), fmaf(float(k), a.columns.slope, patch.t_column), w);
                }
            }
        });
    }
    const float hard = a.hard * class_weight(a, c), smoothing = a.smoothing * class_weight(a, c);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        w[i] *= hard;
        if (a.smoothing != 0) w[i] = fmaf(smoothing, BlockMemory::here().smooth[i][threadIdx.x], w[i]);
    }
}

template <int K, int R, class S>
FCN_D void geometric_path(const LossArgs<S>& a, const Patch& patch, const Corners<S>& corners, CornerSums<S>& gradient, Sums& sums) {
    const float column_step = a.columns.slope, row_step = a.rows.slope;
    float factor[R][K], v[4];  // first the sums of exponentials
#pragma unroll
    for (int row = 0; row < R; ++row) {
#pragma unroll
        for (int k = 0; k < K; ++k) factor[row][k] = 0;
    }
    const S* plane = corners.image;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c, plane += corners.class_stride) {
        corners.read(plane, v);
        add_exponentials<K, R>(Progression(v, patch, column_step, row_step), factor);
    }
    const PatchLabels labels = normalise<K, R>(a, patch, factor, sums);
    float score = 0;  // <scores, T>
    plane = corners.image;
#pragma unroll 1
    for (int first = 0; first < a.classes; first += CornerSums<S>::kClasses) {
        const int classes = min(CornerSums<S>::kClasses, a.classes - first);
#pragma unroll 1
        for (int g = 0; g < classes; ++g, plane += corners.class_stride) {
            const int c = first + g;
            float sum[4] = {0, 0, 0, 0};
            if (a.grad) {
                corners.read(plane, v);
                sum_gradient<K, R>(Progression(v, patch, column_step, row_step), patch, column_step, row_step, factor, sum);
            }
            if (a.smoothing != 0 || (labels.present >> (c & 31) & 1)) {
                float w[4];
                label_weights(a, patch, labels, c, w);
                corners.read(plane, v);
#pragma unroll
                for (int i = 0; i < 4; ++i) score = fmaf(w[i], v[i], score), sum[i] -= w[i];
            }
            if (!a.grad) continue;
            gradient.put(g, sum);
        }
        if (a.grad) gradient.flush(first, classes, false);
    }
    sums.loss -= score;
}

}  // namespace fcn
