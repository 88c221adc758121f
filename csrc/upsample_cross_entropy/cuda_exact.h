// The exact path: one exponential per pixel and class, relative to the pixel's own maximum, one row of the patch at a time.
// For scores of any range, for values that are not finite, for any grid, and for the loss of each pixel.
#pragma once

#include "cuda_corner_sums.h"
#include "cuda_labels.h"

namespace fcn {

// Scores of a class along a row of pixels: at the left edge of the cell, and the difference to the right edge.
struct RowScores {
    float left, slope;

    FCN_D RowScores(const float (&v)[4], float t_row) {
        left = fmaf(t_row, v[2] - v[0], v[0]);
        slope = fmaf(t_row, v[3] - v[1], v[1]) - left;
    }
    FCN_D float at(float t) const { return fmaf(t, slope, left); }
};

// `gradient` is null where none is wanted. rows: how many rows each thread's patch has at most.
template <int K, class S>
FCN_D void exact_path(const LossArgs<S>& a, const Place& place, const Patch& patch, const Corners<S>& corners, int rows,
                      CornerSums* gradient, Sums& sums) {
    const float total_smoothing = smoothing_total(a);
    float t[K];
#pragma unroll
    for (int k = 0; k < K; ++k) t[k] = fmaf(float(k), a.columns.slope, patch.column.t);
    for (int row = 0; row < rows; ++row) {
        const float t_row = fmaf(float(row), a.rows.slope, patch.row.t);
        const int y = patch.row.first + row, count = row < patch.row.count ? patch.column.count : 0;
        int label[K];
        PixelWeights weight[K];
        read_labels<K>(a, place.image, y, patch.column.first, count, label);
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const float pixel = label[k] != kIgnored ? pixel_weight(a, place.image, y, patch.column.first + k) : 0.0f;
            weight[k] = weigh(a, label[k], pixel);
            sums.weight += weight[k].total;
        }

        float peak[K], s[K], score[K], v[4];
#pragma unroll
        for (int k = 0; k < K; ++k) peak[k] = -INFINITY, s[k] = score[k] = 0;
        for (int c = 0; c < a.classes; ++c) {
            corners.read(c, v);
            const RowScores scores(v, t_row);
#pragma unroll
            for (int k = 0; k < K; ++k) peak[k] = fmaxf(peak[k], scores.at(t[k]));
        }
        for (int c = 0; c < a.classes; ++c) {
            corners.read(c, v);
            const RowScores scores(v, t_row);
            const float smoothing = a.smoothing * class_weight(a, c);
#pragma unroll
            for (int k = 0; k < K; ++k) {
                const float here = scores.at(t[k]);
                s[k] += exp2_approx(here - peak[k]);
                const float w = smoothing * weight[k].pixel + (label[k] == c ? weight[k].hard : 0.0f);
                if (w != 0) score[k] = fmaf(w, here, score[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const float w = fmaf(total_smoothing, weight[k].pixel, weight[k].hard);
            const float log_sum = log2_approx(s[k]) + peak[k];
            const float loss = weight[k].loss + (weight[k].pixel != 0 ? kLn2 * (w * log_sum - score[k]) : 0.0f);
            sums.loss += loss;
            if (a.pixel_loss && k < count) {
                const int64_t at = (int64_t(place.image) * a.rows.size + y) * a.columns.size + patch.column.first + k;
                a.pixel_loss[at] = loss;
            }
            s[k] = w / s[k];
        }
        if (!gradient) continue;
        for (int first = 0; first < a.classes; first += CornerSums::kClasses) {
            const int classes = min(CornerSums::kClasses, a.classes - first);
            for (int g = 0; g < classes; ++g) {
                corners.read(first + g, v);
                const RowScores scores(v, t_row);
                const float smoothing = a.smoothing * class_weight(a, first + g);
                float left = 0, right = 0;
#pragma unroll
                for (int k = 0; k < K; ++k) {
                    float p = s[k] != 0 ? s[k] * exp2_approx(scores.at(t[k]) - peak[k]) : 0.0f;
                    p -= smoothing * weight[k].pixel + (label[k] == first + g ? weight[k].hard : 0.0f);
                    right = fmaf(t[k], p, right);
                    left += p;
                }
                left -= right;
                const float lower_left = t_row * left, lower_right = t_row * right;
                const float sum[4] = {left - lower_left, right - lower_right, lower_left, lower_right};
                gradient->put(g, sum);
            }
            gradient->flush(first, classes, row > 0);
        }
    }
}

}  // namespace fcn
