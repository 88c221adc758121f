// Sums over threads in a fixed order: equal bit for bit from run to run.
#pragma once

#include "cuda.h"

namespace fcn {
namespace {

// The sum over a block of up to 1024 threads, a multiple of 32, for thread 0. No barrier is needed before the next call.
template <class T>
FCN_D T block_sum(T value) {
    __shared__ T warps[32];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_down_sync(~0u, value, distance);
    __syncthreads();  // those who read what is there are done
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = T(0);
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < blockDim.x / 32; ++i) value += warps[i];
    }
    return value;
}

}  // namespace
}  // namespace fcn
