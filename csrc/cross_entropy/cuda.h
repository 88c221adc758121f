#pragma once

#include "../common/arguments.h"
#include "../common/cuda.h"

namespace fcn {

// Where a reduced loss goes, in float32; without data where only the losses of pixels are wanted.
struct CrossEntropyTotals {
    Tensor loss;      // []
    Tensor scale;     // []: 1 / sum of weights, or 0 where they are 0; data may be null
    Tensor sums;      // [2, most_blocks], to work with: each block leaves two sums
    int most_blocks;  // of a launch
};

// args.grad is the gradient of the sum over pixels whatever the reduction. Instantiated for float, bfloat16 and float16.
template <class T>
void cross_entropy(const CrossEntropyArgs& args, const CrossEntropyTotals& totals, cudaStream_t stream);

}  // namespace fcn
