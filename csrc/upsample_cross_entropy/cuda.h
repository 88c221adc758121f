#pragma once

#include "../common/arguments.h"
#include "../common/cuda.h"

namespace fcn {

// What the GPU's version is given beyond the CPU's arguments.
struct LossOutputs {
    Tensor loss;       // a float32 number; data is null where the loss of each pixel is wanted
    Tensor scale;      // a float32 number, the factor that the gradient lacks; data is null where there is none
    Tensor workspace;  // float32, as large as upsample_cross_entropy_workspace says
    int rows_of_a_patch;  // 8, 4 or 2; 0: what suits the size
};

// Instantiated for float, bfloat16 and float16.
template <class S>
void upsample_cross_entropy(const UpsampleCrossEntropyArgs& args, const LossOutputs& outputs, cudaStream_t stream);

// Numbers in the workspace, the same for every S. Of args only x's size and grid are read.
template <class S>
int64_t upsample_cross_entropy_workspace(const UpsampleCrossEntropyArgs& args, bool with_grad, int rows_of_a_patch);

}  // namespace fcn
