#pragma once

#include "../common/kernels.h"

namespace fcn::FCN_ISA {

UpsampleCrossEntropyResult upsample_cross_entropy(const UpsampleCrossEntropyArgs& args);

}  // namespace fcn::FCN_ISA
