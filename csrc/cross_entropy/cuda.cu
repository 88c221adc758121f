// cross_entropy on GPUs, bound by memory: the logits are read once (with a gradient above 32 classes twice, the second time
// from a cache) and the gradient is written once.
#include "cuda.h"

#include <algorithm>

#include "cuda_pixels.h"
#include "cuda_planes.h"
#include "cuda_totals.h"

namespace fcn {
namespace {

constexpr int kMostInRegisters = 32;  // classes
constexpr int kStrip = 4;              // pixels
constexpr size_t kKeptShared = 1 << 10;  // for what kernels declare themselves

PixelStrides pixel_strides(const Tensor& t) { return {t.stride[0], t.stride[t.dims - 2], t.stride[t.dims - 1]}; }

// Rows without gaps between them in any map become one long row.
template <class S>
void join_rows(Problem<S>& p) {
    PixelStrides* const maps[] = {&p.logits_at, &p.target_at, p.grad ? &p.grad_at : nullptr,
                                  p.pixel_weight ? &p.pixel_weight_at : nullptr};
    for (PixelStrides* map : maps) {
        if (map && p.rows > 1 && p.columns > 1 && map->row != map->column * p.columns) return;
    }
    for (PixelStrides* map : maps) {
        if (map && p.columns == 1) map->column = map->row;
    }
    p.columns *= p.rows, p.rows = 1;
}

template <class S>
bool aligned(const S* data, int64_t numbers) { return reinterpret_cast<uintptr_t>(data) % (numbers * sizeof(S)) == 0; }

// Whether strips of kStrip pixels of this map are aligned.
template <class S>
bool strips_aligned(const Problem<S>& p, const S* data, const PixelStrides& at, int64_t class_stride) {
    const int64_t steps = (p.images > 1 ? at.image : 0) | (p.rows > 1 ? at.row : 0) | (p.classes > 1 ? class_stride : 0);
    return (p.columns | steps) % kStrip == 0 && at.column == 1 && aligned(data, kStrip);
}

// Whether all numbers of this map are one piece of memory, a pixel after the other.
template <class S>
bool dense_pixels(const Problem<S>& p, const S* data, const PixelStrides& at, int64_t class_stride) {
    return p.rows == 1 && class_stride == 1 && at.column == p.classes && (p.images == 1 || at.image == p.columns * p.classes) &&
           aligned(data, kPack<S>);
}

template <class S, int kWidth>
void launch_planes(const Problem<S>& p, unsigned blocks, cudaStream_t stream) {
    const auto run = [&](void (*kernel)(Problem<S>)) { launch(kernel, blocks, kBlock, 0, stream, p); };
    if (p.classes > kMostInRegisters) return run(cross_entropy_streamed<S, kWidth>);
    if constexpr (kWidth > 1) {
        if (p.classes <= 8) return run(cross_entropy_registers<S, 8, kWidth>);
        if (p.classes <= 16) return run(cross_entropy_registers<S, 16, kWidth>);
        if (p.classes <= 24) return run(cross_entropy_registers<S, 24, kWidth>);
    }
    run(cross_entropy_registers<S, kMostInRegisters, kWidth>);
}

// Launches the kernel that suits the layout; returns the number of blocks, of which each leaves a partial sum.
template <class S>
unsigned launch_losses(const Problem<S>& p, int most_blocks, cudaStream_t stream) {
    const auto blocks_of = [&](int64_t work, int64_t per_block) {
        return unsigned(std::min<int64_t>((work + per_block - 1) / per_block, most_blocks));
    };
    const int64_t pixels = p.images * p.rows * p.columns;
    const auto both = [&](auto test) {
        return test(p, p.logits, p.logits_at, p.logits_class) && (!p.grad || test(p, p.grad, p.grad_at, p.grad_class));
    };
    if (p.logits_at.column == 1 && (!p.grad || p.grad_at.column == 1)) {
        const bool wide = both(strips_aligned<S>);
        const int64_t strips = wide ? pixels / kStrip : pixels;
        const unsigned blocks = blocks_of(strips, p.classes > kMostInRegisters ? 32 : kBlock);
        wide ? launch_planes<S, kStrip>(p, blocks, stream) : launch_planes<S, 1>(p, blocks, stream);
        return blocks;
    }
    // Three blocks to a multiprocessor, if they may be so small.
    const size_t most = most_shared() - kKeptShared, pixel = p.classes * sizeof(S);
    int threads = kBlock;
    while (threads > 32 && threads * pixel > most / 3) threads /= 2;
    const size_t shared = threads * pixel;
    if (both(dense_pixels<S>) && shared <= most) {
        const unsigned blocks = blocks_of(pixels, threads);
        launch(cross_entropy_pixels<S>, blocks, threads, shared, stream, p);
        return blocks;
    }
    const unsigned blocks = blocks_of(pixels, 32);
    launch(cross_entropy_streamed<S, 1>, blocks, kBlock, 0, stream, p);
    return blocks;
}

}  // namespace

template <class S>
void cross_entropy(const CrossEntropyArgs& args, const CrossEntropyTotals& totals, cudaStream_t stream) {
    const Tensor& x = args.logits;
    Problem<S> p{};
    p.logits = static_cast<const S*>(x.data), p.logits_at = pixel_strides(x), p.logits_class = x.stride[1];
    p.grad = static_cast<S*>(args.grad.data);
    if (p.grad) p.grad_at = pixel_strides(args.grad), p.grad_class = args.grad.stride[1];
    p.target = args.target.data, p.target_at = pixel_strides(args.target), p.label_dtype = args.target.dtype;
    p.weight = static_cast<const float*>(args.weight.data);
    p.pixel_weight = static_cast<const float*>(args.pixel_weight.data);
    if (p.pixel_weight) p.pixel_weight_at = pixel_strides(args.pixel_weight);
    p.pixel_loss = static_cast<float*>(args.pixel_loss.data);
    p.images = x.size[0], p.classes = int(x.size[1]), p.rows = x.size[2], p.columns = x.size[3];
    p.ignore_index = args.ignore_index;
    p.hard = float(1 - args.label_smoothing), p.smoothing = float(args.label_smoothing / double(p.classes));
    join_rows(p);
    p.losses = static_cast<float*>(totals.sums.data);
    if (p.losses) p.weights = p.losses + totals.most_blocks;
    const unsigned blocks = launch_losses(p, totals.most_blocks, stream);
    if (!p.losses) return;
    launch(finish_totals, 1, kTotalsBlock, 0, stream, p.losses, p.weights, int(blocks), args.mean,
           static_cast<float*>(totals.loss.data), static_cast<float*>(totals.scale.data));
}

template void cross_entropy<FCN_NUMBER>(const CrossEntropyArgs&, const CrossEntropyTotals&, cudaStream_t);

}  // namespace fcn
