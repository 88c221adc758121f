// A tensor as kernels see it: a raw pointer, shape, and strides in elements. No torch types anywhere.
#pragma once

#include <cstdint>

namespace fcn {

enum class DType { float32, float64, bfloat16, float16, uint8, int16, int32, int64 };

constexpr int kMaxDims = 4;

// Trivial on purpose: it crosses from code compiled for any CPU to code compiled for one instruction set.
struct Tensor {
    void* data;
    DType dtype;
    int dims;
    int64_t size[kMaxDims];
    int64_t stride[kMaxDims];
};

// One axis of a BilinearGrid: output pixel y samples (step * y + origin) / denominator.
struct Axis {
    int64_t size, step, origin, denominator;
};

struct Grid {
    Axis rows, columns;
    bool clamp;
};

}  // namespace fcn
