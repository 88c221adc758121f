// cross_entropy where classes are planes (NCHW). A thread takes kWidth pixels next to each other, in one access for each
// class: four where alignment allows it. (Eight of 16 bits each would not leave enough registers.)
#pragma once

#include "cuda_problem.h"

namespace fcn {
namespace {

// Up to kClasses classes: logits stay in registers from the maximum to the gradient. (Two blocks at least: left to itself the
// compiler gives the smallest kernel too few registers, and spills.)
template <class S, int kClasses, int kWidth>
__global__ void __launch_bounds__(kBlock, 2) cross_entropy_registers(const __grid_constant__ Problem<S> p) {
    const bool smooth = p.smoothing > 0;
    const int64_t strips = p.images * p.rows * (p.columns / kWidth);
    Totals totals{0, 0};
    for (int64_t strip = int64_t(blockIdx.x) * kBlock + threadIdx.x; strip < strips; strip += int64_t(gridDim.x) * kBlock) {
        const Position at = position(p, strip * kWidth);
        const S* const from = p.logits + at.in(p.logits_at);
        Pack<S, kWidth> x[kClasses];
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
            if (c >= p.classes) break;
            x[c] = load_pack<kWidth>(from + c * p.logits_class);
        }
        Label label[kWidth];
        Softmax s[kWidth];
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            label[i] = read_label(p, {at.image, at.row, at.column + i});
            s[i] = {to_float(x[0].v[i]), 0, 0, 0, 0};
        }
#pragma unroll
        for (int c = 1; c < kClasses; ++c) {
            if (c >= p.classes) break;
#pragma unroll
            for (int i = 0; i < kWidth; ++i) s[i].peak = fmaxf(s[i].peak, to_float(x[c].v[i]));
        }
        float smoothing = 0;
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
            if (c >= p.classes) break;
            const float smoothing_here = smooth ? smoothing_of(p, c) : 0.0f;
            smoothing += smoothing_here;
#pragma unroll
            for (int i = 0; i < kWidth; ++i) {
                const float d = to_float(x[c].v[i]) - s[i].peak, e = exp_approx(d);
                s[i].sum += e;
                if (c == label[i].value) s[i].score = d;
                if (smooth) s[i].smoothed += smoothing_here * d;
                if constexpr (sizeof(S) == sizeof(float)) x[c].v[i] = e;  // else one rounds; computed again below
            }
        }
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            s[i].smoothing = smoothing;
            totals.add(p, {at.image, at.row, at.column + i}, label[i], pixel_loss(s[i], label[i], p.hard));
        }
        if (!p.grad) continue;
        S* const to = p.grad + at.in(p.grad_at);
        Gradient g[kWidth];
#pragma unroll
        for (int i = 0; i < kWidth; ++i) g[i] = gradient(s[i], label[i], p.hard);
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
            if (c >= p.classes) break;
            const float smoothing_here = smooth ? smoothing_of(p, c) : 0.0f;
#pragma unroll
            for (int i = 0; i < kWidth; ++i) {
                const float v = to_float(x[c].v[i]), e = sizeof(S) == sizeof(float) ? v : exp_approx(v - s[i].peak);
                x[c].v[i] = from_float<S>(g[i].of(e, smoothing_here, c == label[i].value));
            }
            write_pack(to + c * p.grad_class, x[c]);
        }
    }
    totals.finish(p);
}

constexpr int kClassesAtOnce = 8;  // loads under way for each thread

// Any number of classes, which the warps of a block share: maximum and sum in one read, the gradient in a second, which
// finds what the first one read in a cache. With kWidth 1 any strides do.
template <class S, int kWidth>
__global__ void __launch_bounds__(kBlock) cross_entropy_streamed(const __grid_constant__ Problem<S> p) {
    constexpr int kWarps = kBlock / 32;
    __shared__ Softmax shared[kWarps][32][kWidth];
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const bool smooth = p.smoothing > 0;
    const int64_t strips = p.images * p.rows * (p.columns / kWidth);
    Totals totals{0, 0};
    for (int64_t first = int64_t(blockIdx.x) * 32; first < strips; first += int64_t(gridDim.x) * 32) {
        const bool inside = first + lane < strips;
        const Position at = position(p, inside ? (first + lane) * kWidth : 0);
        const S* const from = p.logits + at.in(p.logits_at);
        Label label[kWidth];
        Softmax s[kWidth];
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            label[i] = read_label(p, {at.image, at.row, at.column + i});
            s[i] = {-3.4e38f, 0, 0, 0, 0};  // finite: nothing is added to nothing without NaN
        }
        for (int c = warp * kClassesAtOnce; c < p.classes; c += kBlock / 32 * kClassesAtOnce) {
            Pack<S, kWidth> x[kClassesAtOnce];
#pragma unroll
            for (int j = 0; j < kClassesAtOnce; ++j) {
                if (c + j < p.classes) x[j] = load_pack<kWidth>(from + (c + j) * p.logits_class);
            }
#pragma unroll
            for (int i = 0; i < kWidth; ++i) {
                float peak = s[i].peak;
#pragma unroll
                for (int j = 0; j < kClassesAtOnce; ++j) {
                    if (c + j < p.classes) peak = fmaxf(peak, to_float(x[j].v[i]));
                }
                move_peak(s[i], peak);
            }
#pragma unroll
            for (int j = 0; j < kClassesAtOnce; ++j) {
                if (c + j >= p.classes) break;
                const float smoothing_here = smooth ? smoothing_of(p, c + j) : 0.0f;
#pragma unroll
                for (int i = 0; i < kWidth; ++i) {
                    const float v = to_float(x[j].v[i]), d = v - s[i].peak;
                    s[i].sum += exp_approx(d);
                    if (c + j == label[i].value) s[i].score = v;
                    if (smooth) s[i].smoothed += smoothing_here * d, s[i].smoothing += smoothing_here;
                }
            }
        }
        __syncthreads();  // all have read what the strip before left
#pragma unroll
        for (int i = 0; i < kWidth; ++i) shared[warp][lane][i] = s[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            s[i] = shared[0][lane][i];
#pragma unroll
            for (int w = 1; w < kWarps; ++w) join(s[i], shared[w][lane][i]);
            s[i].score -= s[i].peak;
        }
        if (!inside) continue;
        if (warp == 0) {
#pragma unroll
            for (int i = 0; i < kWidth; ++i) {
                totals.add(p, {at.image, at.row, at.column + i}, label[i], pixel_loss(s[i], label[i], p.hard));
            }
        }
        if (!p.grad) continue;
        S* const to = p.grad + at.in(p.grad_at);
        Gradient g[kWidth];
#pragma unroll
        for (int i = 0; i < kWidth; ++i) g[i] = gradient(s[i], label[i], p.hard);
        for (int c = warp * kClassesAtOnce; c < p.classes; c += kBlock / 32 * kClassesAtOnce) {
            Pack<S, kWidth> x[kClassesAtOnce];
#pragma unroll
            for (int j = 0; j < kClassesAtOnce; ++j) {
                if (c + j < p.classes) x[j] = load_pack<kWidth>(from + (c + j) * p.logits_class);
            }
#pragma unroll
            for (int j = 0; j < kClassesAtOnce; ++j) {
                if (c + j >= p.classes) break;
                const float smoothing_here = smooth ? smoothing_of(p, c + j) : 0.0f;
#pragma unroll
                for (int i = 0; i < kWidth; ++i) {
                    const float e = exp_approx(to_float(x[j].v[i]) - s[i].peak);
                    x[j].v[i] = from_float<S>(g[i].of(e, smoothing_here, c + j == label[i].value));
                }
                write_pack(to + (c + j) * p.grad_class, x[j]);
            }
        }
    }
    totals.finish(p);
}

}  // namespace
}  // namespace fcn
