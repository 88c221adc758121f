#pragma once

#include "../common/kernels.h"

namespace fcn::FCN_ISA {

UpsampleRegionSumsResult upsample_region_sums(const UpsampleRegionSumsArgs& args);

}  // namespace fcn::FCN_ISA
