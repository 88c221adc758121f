// upsample_cross_entropy on a GPU: a block of threads takes a tile of cells and makes its share of the loss and of the
// gradient in one pass; a second, small kernel adds up what tiles share.
#include "cuda.h"

#include "cuda_exact.h"
#include "cuda_finish.h"
#include "cuda_geometric.h"
#include "cuda_plan.h"

namespace fcn {
namespace {

// The block's sums, in a fixed order, to memory.
FCN_D void write_sums(Sums mine, float2* out) {
    float2* const per_warp = BlockMemory::here().warp_sums;
    for (int distance = 16; distance > 0; distance /= 2) {
        mine.loss += __shfl_down_sync(~0u, mine.loss, distance);
        mine.weight += __shfl_down_sync(~0u, mine.weight, distance);
    }
    if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = make_float2(mine.loss, mine.weight);
    __syncthreads();
    if (threadIdx.x != 0) return;
    float2 total = per_warp[0];
    for (int warp = 1; warp < int(blockDim.x) / 32; ++warp) total.x += per_warp[warp].x, total.y += per_warp[warp].y;
    *out = total;
}

// Two blocks of 128 registers a thread fit a multiprocessor.
template <int K, int R, class S>
__global__ void __launch_bounds__(kThreads, 2) loss_kernel(const LossArgs<S> a) {
    const Place place(a);
    const Patch patch(a, place);
    // All threads of the block agree on the path.
    const bool geometric = find_peaks(a, place, kRange) && K > 1 && !a.exact;
    const Corners<S> corners(a, place);
    CornerSums<S> gradient(a, place);
    Sums sums;
    if (geometric) {
        if constexpr (K > 1) geometric_path<K, R>(a, patch, corners, gradient, sums);
    } else {
        exact_path<K, R>(a, patch, corners, gradient, sums);
    }
    write_sums(sums, a.sums + blockIdx.x);
}

// The loss, and the factor that the gradient lacks: the blocks' sums, added by one block in a fixed order.
FCN_D void finish_loss(const float2* sums, int64_t blocks, bool mean, double* memory, float* loss, float* scale) {
    double *losses = memory, *weights = memory + kThreads;
    double my_loss = 0, my_weight = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += kThreads) my_loss += double(sums[i].x), my_weight += double(sums[i].y);
    losses[threadIdx.x] = my_loss, weights[threadIdx.x] = my_weight;
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < half) {
            losses[threadIdx.x] += losses[threadIdx.x + half];
            weights[threadIdx.x] += weights[threadIdx.x + half];
        }
    }
    if (threadIdx.x != 0) return;
    const double factor = !mean ? 1 : weights[0] != 0 ? 1 / weights[0] : 0;
    *loss = float(losses[0] * factor);
    if (scale) *scale = float(factor);
}

template <class S>
__global__ void __launch_bounds__(kThreads) finish_kernel(const LossArgs<S> a, int64_t blocks, bool mean, float* loss, float* scale) {
    if (blockIdx.x == 0 && blockIdx.y == 0) {
        finish_loss(a.sums, blocks, mean, dynamic_shared<double>(), loss, scale);
    } else if (blockIdx.x > 0) {
        finish_pixel(a, int64_t(blockIdx.x - 1) * kThreads + threadIdx.x, int(blockIdx.y) * kFinishClasses);
    }
}

template <class S>
void launch_loss(const LossArgs<S>& a, const Plan& plan, cudaStream_t stream) {
    const size_t shared = sizeof(BlockMemory) + sizeof(float) * size_t(a.rows.slots * a.columns.slots);
    const auto with = [&](auto* kernel) { launch(kernel, unsigned(plan.blocks), unsigned(plan.threads), shared, stream, a); };
    if (plan.k == 8 && plan.r == 8) return with(loss_kernel<8, 8, S>);
    if (plan.k == 8 && plan.r == 4) return with(loss_kernel<8, 4, S>);
    if (plan.k == 8) return with(loss_kernel<8, 2, S>);
    if (plan.k == 4) return with(loss_kernel<4, 4, S>);
    if (plan.k == 2) return with(loss_kernel<2, 2, S>);
    with(loss_kernel<1, 1, S>);
}

}  // namespace

template <class S>
void upsample_cross_entropy(const UpsampleCrossEntropyArgs& args, const LossOutputs& outputs, cudaStream_t stream) {
    const Plan plan(args, outputs.rows_of_a_patch);
    const Tensor& x = args.x;
    if ((x.size[2] - 1) * x.stride[2] + (x.size[3] - 1) * x.stride[3] >= (int64_t(1) << 31)) {
        throw std::invalid_argument("x: a class of an image spans 2^31 numbers or more");
    }
    LossArgs<S> a;
    a.x = static_cast<const S*>(args.x.data);
    a.grad = static_cast<float*>(args.grad.data);
    for (int i = 0; i < 4; ++i) a.x_stride[i] = args.x.stride[i], a.grad_stride[i] = args.grad.stride[i];
    a.target = args.target.data, a.target_dtype = args.target.dtype;
    for (int i = 0; i < 3; ++i) a.target_stride[i] = args.target.stride[i], a.pixel_weight_stride[i] = args.pixel_weight.stride[i];
    a.class_weight = static_cast<const float*>(args.weight.data);
    a.pixel_weight = static_cast<const float*>(args.pixel_weight.data);
    a.pixel_loss = static_cast<float*>(args.pixel_loss.data);
    a.ignore_index = args.ignore_index;
    a.images = int(args.x.size[0]), a.classes = int(args.x.size[1]);
    a.hard = float(1 - args.label_smoothing), a.smoothing = float(args.label_smoothing / a.classes);
    a.exact = args.exact || a.pixel_loss;
    a.rows = plan.rows, a.columns = plan.columns;
    a.cells = a.rows.tile * a.columns.tile, a.pieces = a.rows.pieces * a.columns.pieces;
    a.by_cells = Divisor(a.cells);
    a.sums = static_cast<float2*>(outputs.workspace.data);
    a.corner_parts = reinterpret_cast<float*>(a.sums + plan.blocks);
    launch_loss(a, plan, stream);
    if (a.pixel_loss) return;
    const int64_t pixels = a.grad ? args.x.size[0] * args.x.size[2] * args.x.size[3] : 0;
    const dim3 grid(unsigned(1 + ceil_div(pixels, kThreads)), unsigned(a.grad ? ceil_div(a.classes, kFinishClasses) : 1));
    launch(finish_kernel<S>, grid, kThreads, sizeof(double) * 2 * kThreads, stream, a, plan.blocks, args.mean,
           static_cast<float*>(outputs.loss.data), static_cast<float*>(outputs.scale.data));
}

template <class S>
int64_t upsample_cross_entropy_workspace(const UpsampleCrossEntropyArgs& args, bool with_grad, int rows_of_a_patch) {
    const Plan plan(args, rows_of_a_patch);
    return 2 * plan.blocks + (with_grad ? plan.corner_floats(args.x.size[1]) : 0);
}

template void upsample_cross_entropy<FCN_NUMBER>(const UpsampleCrossEntropyArgs&, const LossOutputs&, cudaStream_t);
template int64_t upsample_cross_entropy_workspace<FCN_NUMBER>(const UpsampleCrossEntropyArgs&, bool, int);

}  // namespace fcn
