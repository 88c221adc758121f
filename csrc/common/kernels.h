// The CPU kernels and the table through which one instruction set's version of them is called.
#pragma once

#include "arguments.h"

namespace fcn {

struct Kernels {
    const char* name;
    void (*upsample_add)(const UpsampleAddArgs&);
    void (*upsample_add_backward)(const UpsampleAddArgs&);
    void (*upsample_argmax)(const UpsampleArgmaxArgs&);
    int64_t (*winograd_filters_size)(DType dtype, int64_t outputs, int64_t inputs);
    void (*winograd_filters)(const WinogradFiltersArgs&);
    bool (*winograd)(const WinogradArgs&);
    void (*few_inputs)(const FewInputsArgs&);
    bool (*winograd_backward_weight)(const WinogradWeightArgs&);
    void (*conv_transpose_add)(const ConvTransposeAddArgs&);
    void (*conv_transpose_add_backward_x)(const ConvTransposeAddArgs&);
    void (*conv_transpose_add_backward_weight)(const ConvTransposeAddArgs&);
    CrossEntropyResult (*cross_entropy)(const CrossEntropyArgs&);
    UpsampleCrossEntropyResult (*upsample_cross_entropy)(const UpsampleCrossEntropyArgs&);
    UpsampleRegionSumsResult (*upsample_region_sums)(const UpsampleRegionSumsArgs&);
};

// One per instruction set, defined in kernels.cpp, which is compiled once for each.
extern const Kernels kernels_baseline;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace fcn
