#pragma once

#include "../common/arguments.h"
#include "../common/cuda.h"

namespace fcn {

// Instantiated for float, bfloat16 and float16.
template <class S>
void upsample_argmax(const UpsampleArgmaxArgs& args, cudaStream_t stream);

}  // namespace fcn
