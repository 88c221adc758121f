#pragma once

#include "../common/arguments.h"
#include "../common/cuda.h"

namespace fcn {

// Instantiated for float, bfloat16 and float16.
template <class T>
void conv_transpose_add(const ConvTransposeAddArgs& args, cudaStream_t stream);
template <class T>
void conv_transpose_add_backward_x(const ConvTransposeAddArgs& args, cudaStream_t stream);
// `parts` [P, C, k, k] in float32, contiguous: sums over P parts of the pixels, written on the way.
template <class T>
void conv_transpose_add_backward_weight(const ConvTransposeAddArgs& args, const Tensor& parts, cudaStream_t stream);

}  // namespace fcn
