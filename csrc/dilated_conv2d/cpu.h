#pragma once

#include "../common/kernels.h"

namespace fcn::FCN_ISA {

int64_t winograd_filters_size(DType dtype, int64_t outputs, int64_t inputs);
void winograd_filters(const WinogradFiltersArgs& args);
// Whether all results are finite; if not, they are not those of a convolution.
bool winograd(const WinogradArgs& args);
void few_inputs(const FewInputsArgs& args);
bool winograd_backward_weight(const WinogradWeightArgs& args);

}  // namespace fcn::FCN_ISA
