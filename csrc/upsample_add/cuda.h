#pragma once

#include "../common/arguments.h"
#include "../common/cuda.h"

namespace fcn {

// Instantiated for float, bfloat16 and float16.
template <class T>
void upsample_add(const UpsampleAddArgs& args, cudaStream_t stream);
template <class T>
void upsample_add_backward(const UpsampleAddArgs& args, cudaStream_t stream);

}  // namespace fcn
