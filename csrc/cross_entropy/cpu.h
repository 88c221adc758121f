#pragma once

#include "../common/kernels.h"

namespace fcn::FCN_ISA {

CrossEntropyResult cross_entropy(const CrossEntropyArgs& args);

}  // namespace fcn::FCN_ISA
