#pragma once

#include "../common/arguments.h"
#include "../common/cuda.h"

namespace fcn {

// Instantiated for float, bfloat16 and float16. workspace: float32, as large as upsample_region_sums_workspace says.
template <class S>
void upsample_region_sums(const UpsampleRegionSumsArgs& args, const Tensor& workspace, cudaStream_t stream);

// Numbers in the workspace, the same for every S. Of args only x's size and grid are read.
template <class S>
int64_t upsample_region_sums_workspace(const UpsampleRegionSumsArgs& args, bool with_grad);

}  // namespace fcn
