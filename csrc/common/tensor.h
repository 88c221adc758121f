// What Python hands over: raw pointers with shapes and strides in elements. No torch types anywhere.
#pragma once

#include <cstdint>

namespace fcn {

enum class DType : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3, uint8 = 4, int16 = 5, int32 = 6, int64 = 7 };

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
