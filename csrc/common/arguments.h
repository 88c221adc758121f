// What kernels are called with, once shapes are checked.
#pragma once

#include "tensor.h"

namespace fcn {

struct UpsampleAddArgs {
    Tensor x;     // [N, C, h, w]; in backward the gradient of the output, [N, C, H, W]
    Tensor skip;  // data is null where there is none
    Tensor out;   // [N, C, H, W]; in backward the gradient of x, [N, C, h, w]
    Grid grid;
    bool channels_last;  // how all three are stored: strides alone do not tell where a size is 1
    int threads;  // on a CPU
};

struct ConvTransposeAddArgs {
    Tensor x;       // [N, C, h, w]; in backward_x the gradient of it, to be written
    Tensor weight;  // [C, 1, k, k]; in backward_weight the gradient of it, to be written
    Tensor skip;    // [N, C, H, W]; data is null where there is none
    Tensor out;     // [N, C, H, W]; in backward the gradient of it
    int64_t stride, crop;
    bool channels_last;  // how x, skip and out are stored
    int threads;  // on a CPU
};

struct UpsampleArgmaxArgs {
    Tensor x;           // [N, C, h, w]
    Tensor labels;      // [N, H, W], contiguous, uint8 or int64
    Tensor confidence;  // [N, H, W], contiguous; data is null where it is not wanted
    Grid grid;
    int threads;  // on a CPU
};

struct UpsampleCrossEntropyArgs {
    Tensor x;             // [N, C, h, w]
    Tensor target;        // [N, H, W]
    Tensor weight;        // [C], float32 or float64 as the sums; data may be null
    Tensor pixel_weight;  // [N, H, W], likewise
    Tensor grad;          // like x, float32 or float64: gradient of the sum over pixels; data may be null
    Tensor pixel_loss;    // [N, H, W], contiguous; data is null unless the loss of each pixel is wanted
    Grid grid;
    int64_t ignore_index;
    double label_smoothing;
    bool exact;  // skip the geometric progression: for tests
    int threads;  // on a CPU
};

struct UpsampleCrossEntropyResult {
    double loss;          // sum over pixels
    double weight;        // sum of class weight x pixel weight
    int64_t bad_pixel;    // first pixel (flat index of [N, H, W]) with a label out of range, or -1
    int64_t exact_blocks;  // blocks of cells that took the exact path, of
    int64_t blocks;
};

struct CrossEntropyArgs {
    Tensor logits;        // [N, C, H, W]
    Tensor target;        // [N, H, W]
    Tensor weight;        // [C], float32 or float64 as the sums; data may be null
    Tensor pixel_weight;  // [N, H, W], likewise
    Tensor grad;          // like logits: gradient of the reduced loss; data may be null
    Tensor pixel_loss;    // [N, H, W], contiguous; data is null unless the loss of each pixel is wanted
    int64_t ignore_index;
    bool mean;
    double label_smoothing;
    int threads;  // on a CPU
};

struct CrossEntropyResult {
    double loss;        // sum or mean over pixels
    int64_t bad_pixel;  // first pixel (flat index of [N, H, W]) with a label out of range, or -1
};

}  // namespace fcn
