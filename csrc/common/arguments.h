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
    Tensor grad;          // like x, float32 or float64: gradient of the reduced loss (on a GPU of the sum); data may be null
    Tensor pixel_loss;    // [N, H, W], contiguous; data is null unless the loss of each pixel is wanted
    Grid grid;
    int64_t ignore_index;
    bool mean;
    double label_smoothing;
    bool exact;  // skip the geometric progression: for tests
    int threads;  // on a CPU
};

struct UpsampleCrossEntropyResult {
    double loss;           // sum or mean over pixels
    int64_t bad_pixel;     // first pixel (flat index of [N, H, W]) with a label out of range, or -1
    int64_t exact_blocks;  // blocks of cells that took the exact path, of
    int64_t blocks;
};

struct UpsampleRegionSumsArgs {
    Tensor x;        // [N, C, h, w]
    Tensor target;   // [N, H, W]
    Tensor sums;     // forward: [3, N, C], contiguous, float32 or float64; data is null in backward
    Tensor weights;  // backward: [2, N, C], contiguous, likewise: incoming gradients of the first two sums
    Tensor grad;     // backward: like x, of the dtype of sums
    Grid grid;
    int64_t ignore_index;
    bool squared;
    bool exact;   // skip the geometric progression: for tests
    int threads;  // on a CPU
};

struct UpsampleRegionSumsResult {
    int64_t bad_pixel;     // first pixel (flat index of [N, H, W]) with a label out of range, or -1
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

struct DilatedConv2dArgs {
    Tensor x;       // [N, I, H, W]; maps and filters are dense and channels_last
    Tensor weight;  // [O, I, k, l]
    Tensor bias;    // [O]; data may be null
    Tensor out;     // [N, O, H', W']
    int64_t dilation[2], padding[2];
    bool transposed;  // x is the gradient of an output and out that of its input: taps look the other way
    bool relu;
    bool tf32;                       // float32 may be rounded to tf32
    int tile_pixels, tile_channels;  // of a block: 64 x 64, 128 x 64 or 128 x 128; where that cannot be, a smaller one
};

// On a CPU: filters of 3 x 3 taps, float32 or float64.
struct WinogradFiltersArgs {
    Tensor weight;       // [O, I, 3, 3]
    Tensor transformed;  // contiguous, of the size that winograd_filters_size says
    bool transposed;     // inputs and outputs exchanged, taps turned round: for the gradient of x
    int threads;
};

struct WinogradArgs {
    Tensor x;        // [N, I, H, W]
    Tensor filters;  // transformed
    Tensor bias;     // [O], contiguous; data may be null
    Tensor out;      // [N, O, H', W'], channels next to each other
    int64_t dilation[2];
    int64_t before[2];  // zeros above and left of x; if negative, rows and columns that no filter sees
    bool relu;
    int threads;
};

// The same of few inputs: filters of any size, whose numbers should fit into the first-level cache with those of 14 pixels.
struct FewInputsArgs {
    Tensor x;       // [N, I, H, W]
    Tensor weight;  // [O, I, k, l]
    Tensor bias;    // [O], contiguous; data may be null
    Tensor out;     // [N, O, H', W'], channels next to each other
    int64_t dilation[2], padding[2];
    bool relu;
    int threads;
};

struct WinogradWeightArgs {
    Tensor x;            // [N, I, H, W]
    Tensor grad;         // [N, O, H', W'], of the output
    Tensor grad_weight;  // [O, I, 3, 3]
    int64_t dilation[2], padding[2];
    int threads;
};

struct DilatedConv2dWeightArgs {
    Tensor grad;         // [N, O, H', W']
    Tensor x;            // [N, I, H, W]
    Tensor grad_weight;  // [O, I, k, l]
    Tensor parts;        // [parts, O * I * k * l], float32, to work with; without data there is one part
    int64_t dilation[2], padding[2];
    bool tf32;
    int tile;  // of a block: 64 x 64 or 128 x 128; where that cannot be, the smaller one
};

}  // namespace fcn
