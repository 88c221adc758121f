#pragma once

#include "../common/arguments.h"
#include "../common/cuda.h"

namespace fcn {

// Instantiated for float, bfloat16 and float16.
template <class T>
void dilated_conv2d(const DilatedConv2dArgs& args, cudaStream_t stream);
template <class T>
void dilated_conv2d_backward_weight(const DilatedConv2dWeightArgs& args, cudaStream_t stream);

}  // namespace fcn
