// cross_entropy where a pixel's classes lie next to each other (channels_last), without gaps. The logits of a block's
// pixels are one piece of memory: it comes and the gradient goes in accesses of 16 bytes, and between, in shared memory,
// each thread has a pixel.
#pragma once

#include "../common/mma.h"
#include "cuda_problem.h"

namespace fcn {
namespace {

// Threads whose pixels begin in the same bank begin with different classes: `turn` is the class a thread begins with.
template <class S>
FCN_D int first_class(int thread, int classes) {
    constexpr int kPerWord = 4 / int(sizeof(S));
    if (classes % kPerWord != 0) return 0;  // words of pixels overlap: they are spread already
    int in_bank = 32;  // threads of a warp that begin in one bank: the greatest common divisor of 32 and a pixel's words
    while (classes / kPerWord % in_bank != 0) in_bank /= 2;
    return thread % 32 * in_bank / 32 * kPerWord;
}

template <class S>
__global__ void __launch_bounds__(kBlock) cross_entropy_pixels(const __grid_constant__ Problem<S> p) {
    S* const tile = dynamic_shared<S>();
    const int thread = int(threadIdx.x), threads = int(blockDim.x), classes = p.classes;
    const bool smooth = p.smoothing > 0;
    const int64_t pixels = p.images * p.rows * p.columns;
    const int turn = first_class<S>(thread, classes);
    S* const mine = tile + thread * classes;
    Totals totals{0, 0};
    for (int64_t first = int64_t(blockIdx.x) * threads; first < pixels; first += int64_t(gridDim.x) * threads) {
        const int count = int(min(int64_t(threads), pixels - first)) * classes, whole = count / kPack<S> * kPack<S>;
        const S* const from = p.logits + first * classes;
        for (int i = thread * kPack<S>; i < whole; i += threads * kPack<S>) copy_async_16(tile + i, from + i, true);
        copy_async_commit();
        if (whole + thread < count) tile[whole + thread] = from[whole + thread];
        const bool inside = first + thread < pixels;
        const Position at = position(p, inside ? first + thread : 0);
        const Label label = read_label(p, at);
        copy_async_wait<0>();
        __syncthreads();
        if (inside) {
            Softmax s{to_float(mine[0]), 0, 0, 0, 0};
#pragma unroll 4
            for (int i = 0, c = turn; i < classes; ++i, c = c + 1 < classes ? c + 1 : 0) {
                s.peak = fmaxf(s.peak, to_float(mine[c]));
            }
#pragma unroll 4
            for (int i = 0, c = turn; i < classes; ++i, c = c + 1 < classes ? c + 1 : 0) {
                const float d = to_float(mine[c]) - s.peak;
                s.sum += exp_approx(d);
                if (smooth) s.smoothed += smoothing_of(p, c) * d, s.smoothing += smoothing_of(p, c);
            }
            if (label.value >= 0) s.score = to_float(mine[label.value]) - s.peak;
            totals.add(p, at, label, pixel_loss(s, label, p.hard));
            if (p.grad) {
                const Gradient g = gradient(s, label, p.hard);
#pragma unroll 4
                for (int i = 0, c = turn; i < classes; ++i, c = c + 1 < classes ? c + 1 : 0) {
                    const float e = exp_approx(to_float(mine[c]) - s.peak);
                    mine[c] = from_float<S>(g.of(e, smooth ? smoothing_of(p, c) : 0.0f, c == label.value));
                }
            }
        }
        __syncthreads();
        if (p.grad) {
            S* const to = p.grad + first * classes;
            for (int i = thread * kPack<S>; i < whole; i += threads * kPack<S>) write_pack(to + i, load_pack<kPack<S>>(tile + i));
            if (whole + thread < count) to[whole + thread] = tile[whole + thread];
            __syncthreads();  // the tile is free
        }
    }
    totals.finish(p);
}

}  // namespace
}  // namespace fcn
