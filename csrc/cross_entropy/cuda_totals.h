// Sums over all pixels, from those of the blocks, in a fixed order.
#pragma once

#include "../common/sums.h"

namespace fcn {
namespace {

constexpr int kTotalsBlock = 256;

FCN_D double sum_of(const float* partial, int count) {
    double total = 0;
    for (int i = int(threadIdx.x); i < count; i += kTotalsBlock) total += partial[i];
    return block_sum(total);
}

// loss: the sum of losses, divided by that of weights for a mean. scale (null: not wanted): 1 / the sum of weights, or 0
// where that is 0 because no pixel counts.
__global__ void __launch_bounds__(kTotalsBlock)
finish_totals(const float* losses, const float* weights, int count, bool mean, float* loss, float* scale) {
    const double total = sum_of(losses, count), weight = sum_of(weights, count);
    if (threadIdx.x != 0) return;
    const double inverse = weight != 0 ? 1 / weight : 0;
    *loss = float(mean ? total * inverse : total);
    if (scale) *scale = float(inverse);
}

}  // namespace
}  // namespace fcn
