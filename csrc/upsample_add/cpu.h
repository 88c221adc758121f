#pragma once

#include "../common/kernels.h"

namespace fcn::FCN_ISA {

void upsample_add(const UpsampleAddArgs& args);
void upsample_add_backward(const UpsampleAddArgs& args);

}  // namespace fcn::FCN_ISA
