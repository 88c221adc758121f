// The loss's label term: loss = sum of weighted log-sum-exp - <scores, T>, with T the labels' bilinear histogram on the
// coarse grid; the gradient is the softmax part less T.
#pragma once

#include "cuda_block.h"

namespace fcn {

constexpr int kIgnored = -1, kOutOfRange = -2;

template <class S>
FCN_D float class_weight(const LossArgs<S>& a, int c) {
    return a.class_weight ? a.class_weight[c] : 1.0f;
}

template <class L, class S>
FCN_D int checked_label(const LossArgs<S>& a, L value) {
    if (int64_t(value) == a.ignore_index) return kIgnored;
    return int64_t(value) >= 0 && int64_t(value) < a.classes ? int(value) : kOutOfRange;
}

// f(pointer to the label of a pixel), in the labels' dtype.
template <class S, class F>
FCN_D void with_labels(const LossArgs<S>& a, int image, int y, int x, const F& f) {
    const int64_t at = opaque(image) * a.target_stride[0] + y * a.target_stride[1] + x * a.target_stride[2];
    switch (a.target_dtype) {
        case DType::uint8: return f(static_cast<const uint8_t*>(a.target) + at);
        case DType::int16: return f(static_cast<const int16_t*>(a.target) + at);
        case DType::int32: return f(static_cast<const int32_t*>(a.target) + at);
        default: return f(static_cast<const int64_t*>(a.target) + at);
    }
}

// Labels of K pixels of a row, the first at pixel (y, x); behind `count` ignored ones.
template <int K, class S>
FCN_D void read_labels(const LossArgs<S>& a, int image, int y, int x, int count, int (&label)[K]) {
    with_labels(a, image, y, x, [&](const auto* labels) {
#pragma unroll
        for (int k = 0; k < K; ++k, labels += a.target_stride[2]) label[k] = k < count ? checked_label(a, *labels) : kIgnored;
    });
}

// The weight that the caller gave a pixel.
template <class S>
FCN_D float given_weight(const LossArgs<S>& a, int image, int y, int x) {
    if (!a.pixel_weight) return 1.0f;
    return a.pixel_weight[opaque(image) * a.pixel_weight_stride[0] + y * a.pixel_weight_stride[1] + x * a.pixel_weight_stride[2]];
}

// What a pixel weighs: itself (0 where it does not count), and in the score of its label.
struct PixelWeights {
    float pixel, hard;
};

// `sums` counts the weight; a label out of range makes its loss NaN.
template <class S>
FCN_D PixelWeights weigh(const LossArgs<S>& a, int label, int image, int y, int x, Sums& sums) {
    if (label == kIgnored) return {0, 0};
    const float given = given_weight(a, image, y, x);
    if (given == 0) return {0, 0};
    if (label == kOutOfRange) {
        sums.loss = NAN;
        return {0, 0};
    }
    const float total = class_weight(a, label) * given;
    sums.weight += total;
    return {given, a.hard * total};
}

// What each pixel's log-sum-exp weighs for label smoothing.
template <class S>
FCN_D float smoothing_total(const LossArgs<S>& a) {
    if (a.smoothing == 0) return 0;
    float total = 0;
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) total += class_weight(a, c);
    return a.smoothing * total;
}

}  // namespace fcn
