// A kernel with faults to choose from, which tests of the emulator plant.
#include "planted.h"

#include "../common/cuda.h"

namespace fcn {
namespace {

constexpr int kThreads = 64;

// Reverses every 64 numbers.
__global__ void reverse(const float* in, float* out, Fault fault) {
    __shared__ float tile[kThreads];
    const int i = int(threadIdx.x), base = int(blockIdx.x) * kThreads;
    if (fault != Fault::unset || i != 5) tile[i] = in[base + i];
    if (fault == Fault::divergence && blockIdx.x == 1 && i == 7) return;
    if (fault != Fault::race) __syncthreads();
    float v = tile[kThreads - 1 - i];
    if (fault == Fault::lane && i != 3) v = __shfl_xor_sync(~0u, v, 0);
    if (fault == Fault::alignment) v = load_pack<4>(in + i).v[0];
    out[base + i] = v;
    if (fault == Fault::outside && blockIdx.x + 1 == gridDim.x && i == 0) out[base + kThreads] = v;
}

}  // namespace

void planted(const Tensor& in, const Tensor& out, Fault fault) {
    launch(reverse, unsigned(in.size[0] / kThreads), kThreads, 0, nullptr, static_cast<const float*>(in.data),
           static_cast<float*>(out.data), fault);
}

}  // namespace fcn
