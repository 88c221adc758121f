// The table of one instruction set (FCN_ISA names it).
#include "kernels.h"

#include "../conv_transpose_add/cpu.h"
#include "../cross_entropy/cpu.h"
#include "../dilated_conv2d/cpu.h"
#include "../upsample_add/cpu.h"
#include "../upsample_argmax/cpu.h"
#include "../upsample_cross_entropy/cpu.h"
#include "../upsample_region_sums/cpu.h"

#define FCN_STRING(x) #x
#define FCN_NAME(x) FCN_STRING(x)
#define FCN_JOIN2(a, b) a##b
#define FCN_JOIN(a, b) FCN_JOIN2(a, b)

namespace fcn {

const Kernels FCN_JOIN(kernels_, FCN_ISA) = {
    FCN_NAME(FCN_ISA),
    FCN_ISA::upsample_add,
    FCN_ISA::upsample_add_backward,
    FCN_ISA::upsample_argmax,
    FCN_ISA::winograd_filters_size,
    FCN_ISA::winograd_filters,
    FCN_ISA::winograd,
    FCN_ISA::few_inputs,
    FCN_ISA::winograd_backward_weight,
    FCN_ISA::conv_transpose_add,
    FCN_ISA::conv_transpose_add_backward_x,
    FCN_ISA::conv_transpose_add_backward_weight,
    FCN_ISA::cross_entropy,
    FCN_ISA::upsample_cross_entropy,
    FCN_ISA::upsample_region_sums,
};

}  // namespace fcn
