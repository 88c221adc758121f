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

// Labels of K pixels of a row, the first at pixel (y, x); behind `count` ignored ones.
template <int K, class S>
FCN_D void read_labels(const LossArgs<S>& a, int image, int y, int x, int count, int (&label)[K]) {
    const int64_t at = image * a.target_stride[0] + y * a.target_stride[1] + x * a.target_stride[2];
    const auto read = [&](const auto* labels) {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            label[k] = kIgnored;
            if (k >= count) continue;
            const int64_t value = int64_t(labels[at + k * a.target_stride[2]]);
            if (value == a.ignore_index) continue;
            label[k] = value >= 0 && value < a.classes ? int(value) : kOutOfRange;
        }
    };
    switch (a.target_dtype) {
        case DType::uint8: return read(static_cast<const uint8_t*>(a.target));
        case DType::int16: return read(static_cast<const int16_t*>(a.target));
        case DType::int32: return read(static_cast<const int32_t*>(a.target));
        default: return read(static_cast<const int64_t*>(a.target));
    }
}

template <class S>
FCN_D float pixel_weight(const LossArgs<S>& a, int image, int y, int x) {
    if (!a.pixel_weight) return 1.0f;
    return a.pixel_weight[image * a.pixel_weight_stride[0] + y * a.pixel_weight_stride[1] + x * a.pixel_weight_stride[2]];
}

// A pixel's weights: of itself (0 if it does not count), of the score of its label, in the sum of weights. `loss` is NaN
// where the label is out of range, else 0.
struct PixelWeights {
    float pixel = 0, hard = 0, total = 0, loss = 0;
};

// `pixel`: the weight that the caller gave the pixel.
template <class S>
FCN_D PixelWeights weigh(const LossArgs<S>& a, int label, float pixel) {
    PixelWeights w;
    if (pixel == 0 || label == kIgnored) return w;
    if (label == kOutOfRange) {
        w.loss = NAN;
        return w;
    }
    w.pixel = pixel;
    w.total = class_weight(a, label) * pixel;
    w.hard = a.hard * w.total;
    return w;
}

// What each pixel's log-sum-exp gets from label smoothing.
template <class S>
FCN_D float smoothing_total(const LossArgs<S>& a) {
    if (a.smoothing == 0) return 0;
    float total = 0;
    for (int c = 0; c < a.classes; ++c) total += class_weight(a, c);
    return a.smoothing * total;
}

}  // namespace fcn
