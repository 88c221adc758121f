// What the kernels of cross_entropy share: how pixels are found, what their labels weigh, what a pixel's loss is.
#pragma once

#include "../common/approximate.h"
#include "../common/sums.h"

namespace fcn {
namespace {

constexpr int kBlock = 128;

// Strides of a map over images, rows and columns.
struct PixelStrides {
    int64_t image, row, column;
};

template <class S>
struct Problem {
    const S* logits;
    S* grad;                    // null where it is not wanted
    const void* target;
    const float* weight;        // null: 1 for each class
    const float* pixel_weight;  // null: 1 for each pixel
    float* pixel_loss;          // contiguous; null where it is not wanted
    float* losses;              // the sum of each block; null where it is not wanted
    float* weights;             // likewise, of pixel weight times class weight
    DType label_dtype;
    int classes;
    int64_t images, rows, columns, ignore_index;
    PixelStrides logits_at, grad_at, target_at, pixel_weight_at;
    int64_t logits_class, grad_class;  // strides over classes
    float hard, smoothing;             // 1 - label smoothing; label smoothing / classes
};

struct Position {
    int64_t image, row, column;

    FCN_D int64_t in(const PixelStrides& at) const { return image * at.image + row * at.row + column * at.column; }
};

template <class S>
FCN_D Position position(const Problem<S>& p, int64_t pixel) {
    const int64_t row = pixel / p.columns;
    return {row / p.rows, row % p.rows, pixel % p.columns};
}

// What the label of a pixel says.
struct Label {
    int value;            // -1 where it is ignored or out of range
    float pixel, weight;  // the pixel's weight; times the weight of its class
    bool known;           // false: out of range, which makes the loss NaN
};

template <class S>
FCN_D Label read_label(const Problem<S>& p, const Position& at) {
    const int64_t offset = at.in(p.target_at);
    int64_t value;
    switch (p.label_dtype) {
        case DType::uint8: value = static_cast<const uint8_t*>(p.target)[offset]; break;
        case DType::int16: value = static_cast<const int16_t*>(p.target)[offset]; break;
        case DType::int32: value = static_cast<const int32_t*>(p.target)[offset]; break;
        default: value = static_cast<const int64_t*>(p.target)[offset];
    }
    if (value == p.ignore_index) return {-1, 0.0f, 0.0f, true};
    const bool known = value >= 0 && value < p.classes;
    const float pixel = p.pixel_weight ? p.pixel_weight[at.in(p.pixel_weight_at)] : 1.0f;
    // A label out of range weighs as label 0 would, as in the reference.
    const float weight = p.weight ? p.weight[known ? value : 0] : 1.0f;
    return {known ? int(value) : -1, pixel, pixel * weight, known};
}

template <class S>
FCN_D float smoothing_of(const Problem<S>& p, int c) {
    return p.smoothing * (p.weight ? p.weight[c] : 1.0f);
}

// Sums over a pixel's classes.
struct Softmax {
    float peak, sum;            // the largest logit; of exp(logit - peak)
    float score;                // of the label, less peak
    float smoothed, smoothing;  // of smoothing_of(c) times (logit - peak); of smoothing_of(c)
};

// The same sums relative to a peak as large or larger; `score` is not relative yet.
FCN_D void move_peak(Softmax& s, float peak) {
    s.sum *= exp_approx(s.peak - peak);
    s.smoothed += (s.peak - peak) * s.smoothing;
    s.peak = peak;
}

// Joins the sums over some classes with those over others.
FCN_D void join(Softmax& s, Softmax other) {
    const float peak = fmaxf(s.peak, other.peak);
    move_peak(s, peak);
    move_peak(other, peak);
    s.sum += other.sum;
    s.score += other.score;  // the label is among the classes of one
    s.smoothed += other.smoothed;
    s.smoothing += other.smoothing;
}

// loss = (hard weight + smoothing pixel) log(sum of exp) - hard weight (score - peak) - pixel smoothed
FCN_D float pixel_loss(const Softmax& s, const Label& label, float hard) {
    if (label.pixel == 0) return 0.0f;  // nothing of a pixel that does not count, NaN included
    if (!label.known) return __int_as_float(0x7fc00000);
    const float w = hard * label.weight;
    return (w + s.smoothing * label.pixel) * logf(s.sum) - w * s.score - label.pixel * s.smoothed;
}

// gradient of class c = factor exp(logit - peak) - pixel smoothing_of(c) - (c is the label) weight
struct Gradient {
    float factor, pixel, weight;
    bool counts;

    FCN_D float of(float exponential, float smoothing, bool is_label) const {
        const float g = factor * exponential - pixel * smoothing - (is_label ? weight : 0.0f);
        return counts ? g : 0.0f;
    }
};

FCN_D Gradient gradient(const Softmax& s, const Label& label, float hard) {
    const float weight = hard * label.weight;
    return {(weight + s.smoothing * label.pixel) / s.sum, label.pixel, weight, label.pixel != 0 && label.known};
}

// Sums over the pixels of a thread.
struct Totals {
    float loss, weight;

    template <class S>
    FCN_D void add(const Problem<S>& p, const Position& at, const Label& label, float pixel_loss) {
        loss += pixel_loss;
        weight += label.weight;
        if (p.pixel_loss) p.pixel_loss[(at.image * p.rows + at.row) * p.columns + at.column] = pixel_loss;
    }

    // Ends the kernel: the block's sums go out.
    template <class S>
    FCN_D void finish(const Problem<S>& p) const {
        if (!p.losses) return;
        const float block_loss = block_sum(loss), block_weight = block_sum(weight);
        if (threadIdx.x == 0) p.losses[blockIdx.x] = block_loss, p.weights[blockIdx.x] = block_weight;
    }
};

}  // namespace
}  // namespace fcn
