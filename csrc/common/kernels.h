// The CPU kernels and the table through which one instruction set's version of them is called.
#pragma once

#include "tensor.h"

namespace fcn {

struct UpsampleAddArgs {
    Tensor x;     // [N, C, h, w]; in backward the gradient of the output, [N, C, H, W]
    Tensor skip;  // data is null where there is none
    Tensor out;   // [N, C, H, W]; in backward the gradient of x, [N, C, h, w]
    Grid grid;
    bool channels_last;  // how all three are stored: strides alone do not tell where a size is 1
    int threads;
};

struct ConvTransposeAddArgs {
    Tensor x;       // [N, C, h, w]; in backward_x the gradient of it, to be written
    Tensor weight;  // [C, 1, k, k]; in backward_weight the gradient of it, to be written
    Tensor skip;    // [N, C, H, W]; data is null where there is none
    Tensor out;     // [N, C, H, W]; in backward the gradient of it
    int64_t stride, crop;
    bool channels_last;  // how x, skip and out are stored
    int threads;
};

struct UpsampleArgmaxArgs {
    Tensor x;           // [N, C, h, w]
    Tensor labels;      // [N, H, W], contiguous, uint8 or int64
    Tensor confidence;  // [N, H, W], contiguous; data is null where it is not wanted
    Grid grid;
    int threads;
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
    int threads;
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
    int threads;
};

struct CrossEntropyResult {
    double loss;        // sum or mean over pixels
    int64_t bad_pixel;  // first pixel (flat index of [N, H, W]) with a label out of range, or -1
};

struct Kernels {
    const char* name;
    void (*upsample_add)(const UpsampleAddArgs&);
    void (*upsample_add_backward)(const UpsampleAddArgs&);
    void (*upsample_argmax)(const UpsampleArgmaxArgs&);
    void (*conv_transpose_add)(const ConvTransposeAddArgs&);
    void (*conv_transpose_add_backward_x)(const ConvTransposeAddArgs&);
    void (*conv_transpose_add_backward_weight)(const ConvTransposeAddArgs&);
    CrossEntropyResult (*cross_entropy)(const CrossEntropyArgs&);
    UpsampleCrossEntropyResult (*upsample_cross_entropy)(const UpsampleCrossEntropyArgs&);
};

// One per instruction set, defined in kernels.cpp, which is compiled once for each.
extern const Kernels kernels_baseline;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace fcn
