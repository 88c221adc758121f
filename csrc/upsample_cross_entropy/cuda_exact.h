// The exact path: one exponential per pixel and class, relative to the pixel's own maximum. For scores of any range, for values that are not finite, for any grid, and for the loss of each pixel.
#pragma once

#include "../common/infinite.h"
#include "cuda_corner_sums.h"
#include "cuda_labels.h"

namespace fcn {

// Scores of a class along a row of pixels, the first of which lies at t in the cell; in units of log 2.
struct RowScores {
    float first, step;

    FCN_D RowScores(const float (&v)[4], float t_row, float t, float column_step) {
        const float left = along(v[0], t_row, difference(v[0], v[2])), right = along(v[1], t_row, difference(v[1], v[3]));
        const float slope = difference(left, right);
        first = kLog2E * along(left, t, slope);
        step = column_step != 0 ? kLog2E * column_step * slope : 0.0f;
    }
    FCN_D float at(int k) const { return along(first, float(k), step); }
};

// Up to K pixels of a row, `count` of them, the first at pixel (y, x) and at (t_row, t) in its cell.
struct Strip {
    int y, x, count;
    float t_row, t;
};

// `add`: the gradient's sums are added to those of an earlier strip.
template <int K, class S>
FCN_D void exact_strip(const LossArgs<S>& a, int image, const Strip& strip, const Corners<S>& corners,
                       float total_smoothing, CornerSums<S>& gradient, bool add, Sums& sums) {
    const float column_step = a.columns.slope;
    int label[K];
    float peak[K], s[K], score[K], v[4];
    read_labels<K>(a, image, strip.y, strip.x, strip.count, label);
#pragma unroll
    for (int k = 0; k < K; ++k) peak[k] = -INFINITY, s[k] = score[k] = 0;
    const S* plane = corners.image;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c, plane += corners.class_stride) {
        corners.read_any(plane, v);
        const RowScores scores(v, strip.t_row, strip.t, column_step);
#pragma unroll
        for (int k = 0; k < K; ++k) peak[k] = fmaxf(peak[k], scores.at(k));
    }
    PixelWeights weight[K];
#pragma unroll
    for (int k = 0; k < K; ++k) weight[k] = weigh(a, label[k], image, strip.y, strip.x + k, sums);
    plane = corners.image;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c, plane += corners.class_stride) {
        corners.read_any(plane, v);
        const RowScores scores(v, strip.t_row, strip.t, column_step);
        const float smoothing = a.smoothing * class_weight(a, c);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            s[k] += exp2_approx(scores.at(k) - peak[k]);
            const float w = smoothing * weight[k].pixel + (label[k] == c ? weight[k].hard : 0.0f);
            if (w != 0) score[k] = fmaf(w, scores.at(k), score[k]);
        }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const float w = fmaf(total_smoothing, weight[k].pixel, weight[k].hard);
        const float loss = w != 0 ? kLn2 * (w * (log2_approx(s[k]) + peak[k]) - score[k]) : 0.0f;
        sums.loss += loss;
        if (a.pixel_loss && k < strip.count) {
            a.pixel_loss[(int64_t(image) * a.rows.size + strip.y) * a.columns.size + strip.x + k] = label[k] == kOutOfRange ? NAN : loss;
        }
        s[k] = w != 0 ? __fdividef(w, s[k]) : 0.0f;
    }
    if (!a.grad) return;
    plane = corners.image;
#pragma unroll 1
    for (int first = 0; first < a.classes; first += CornerSums<S>::kClasses) {
        const int classes = min(CornerSums<S>::kClasses, a.classes - first);
#pragma unroll 1
        for (int g = 0; g < classes; ++g, plane += corners.class_stride) {
            corners.read_any(plane, v);
            const RowScores scores(v, strip.t_row, strip.t, column_step);
            const float smoothing = a.smoothing * class_weight(a, first + g);
            float all = 0, right = 0;
#pragma unroll
            for (int k = 0; k < K; ++k) {
                float p = s[k] != 0 ? s[k] * exp2_approx(scores.at(k) - peak[k]) : 0.0f;
                p -= smoothing * weight[k].pixel + (label[k] == first + g ? weight[k].hard : 0.0f);
                all += p;
                right = fmaf(float(k), p, right);
            }
            right = fmaf(column_step, right, strip.t * all);
            const float left = all - right, lower_left = strip.t_row * left, lower_right = strip.t_row * right;
            const float sum[4] = {left - lower_left, right - lower_right, lower_left, lower_right};
            gradient.put(g, sum);
        }
        gradient.flush(first, classes, add);
    }
}

// Patches of up to R x K pixels, in strips: few registers, so that this path does not cost the other one threads.
template <int K, int R, class S>
FCN_D void exact_path(const LossArgs<S>& a, const Patch& patch, const Corners<S>& corners, CornerSums<S>& gradient, Sums& sums) {
    constexpr int kStrip = K < 4 ? K : 4;
    const float total_smoothing = smoothing_total(a);
#pragma unroll 1
    for (int row = 0; row < R; ++row) {
#pragma unroll 1
        for (int column = 0; column < K; column += kStrip) {
            const Strip strip{patch.first_row() + row, patch.first_column() + column, row < patch.rows() ? patch.columns() - column : 0,
                              fmaf(float(row), a.rows.slope, patch.t_row), fmaf(float(column), a.columns.slope, patch.t_column)};
            exact_strip<kStrip>(a, patch.image, strip, corners, total_smoothing, gradient, row + column > 0, sums);
        }
    }
}

}  // namespace fcn
