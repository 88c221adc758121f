#pragma once

#include "../common/kernels.h"

namespace fcn::FCN_ISA {

void conv_transpose_add(const ConvTransposeAddArgs& args);
void conv_transpose_add_backward_x(const ConvTransposeAddArgs& args);
void conv_transpose_add_backward_weight(const ConvTransposeAddArgs& args);

}  // namespace fcn::FCN_ISA
