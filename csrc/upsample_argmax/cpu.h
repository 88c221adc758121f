#pragma once

#include "../common/kernels.h"

namespace fcn::FCN_ISA {

void upsample_argmax(const UpsampleArgmaxArgs& args);

}  // namespace fcn::FCN_ISA
