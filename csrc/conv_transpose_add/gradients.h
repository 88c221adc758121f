// The backward kernels of conv_transpose_add.
#pragma once

#include "forward.h"

namespace fcn {
namespace {

template <class T>
struct Gradients {
    Map<const T> grad;  // of the output
    Map<T> x;           // in backward_x its gradient, to be written
    Filters<T> weight;  // in backward_weight its gradient, to be written
    Divisor w, rows;    // w: input columns; rows: of the input
    Divisor chunks;     // of a pixel's channels
    int h, height, width, crop, stride, k, channels;
    int inner;  // numbers of a pixel: C with channels_last, or 1
    int64_t planes;

    explicit Gradients(const ConvTransposeAddArgs& args)
        : grad(args.out, args.channels_last),
          x(args.x, args.channels_last),
          weight(args.weight),
          w(args.x.size[3]),
          rows(args.x.size[2]),
          h(int(args.x.size[2])),
          height(int(args.out.size[2])),
          width(int(args.out.size[3])),
          crop(int(args.crop)),
          stride(int(args.stride)),
          k(int(args.weight.size[2])),
          channels(int(args.x.size[1])),
          inner(args.channels_last ? channels : 1),
          planes(args.x.size[0] * (args.channels_last ? 1 : channels)) {}
};

// Each input pixel gathers what its k x k output pixels hand back: kCount channels of a pixel for each thread.
template <class T, int kCount>
__global__ void __launch_bounds__(256, 2) conv_transpose_add_backward_x_kernel(const Gradients<T> a) {
    const uint32_t task = blockIdx.x * 256 + threadIdx.x;
    const uint32_t pixel = a.chunks.divide(task), line = a.w.divide(pixel), plane = a.rows.divide(line);
    if (plane >= a.planes) return;
    const int channel = int(task - pixel * a.chunks.divisor) * kCount;
    const int top = int(line - plane * a.rows.divisor) * a.stride - a.crop, left = int(pixel - line * a.w.divisor) * a.stride - a.crop;
    const int c = a.inner > 1 ? channel : int(plane - a.x.channels.divide(plane) * a.x.channels.divisor);

    float sum[kCount] = {};
    for (int y = max(0, -top); y < min(a.k, a.height - top); ++y) {
        const T* row = a.grad.row(plane, top + y) + channel;
#pragma unroll 4
        for (int x = max(0, -left); x < min(a.k, a.width - left); ++x) {
            const auto v = read_pack<kCount>(row + (left + x) * a.inner);
            const auto taps = read_pack<kCount>(a.weight.at(c, y, x));
#pragma unroll
            for (int e = 0; e < kCount; ++e) sum[e] += to_float(v.v[e]) * to_float(taps.v[e]);
        }
    }
    Pack<T, kCount> made;
#pragma unroll
    for (int e = 0; e < kCount; ++e) made.v[e] = from_float<T>(sum[e]);
    write_pack(a.x.row(plane, int(line - plane * a.rows.divisor)) + int(pixel - line * a.w.divisor) * a.inner + channel, made);
}

constexpr int kTile = 4;  // taps along a row that a thread sums

// How the weight's gradient is divided. A block has some channels (with channels_last, chunks of a pixel's; else one), some
// pixels, kTile taps of one row of the filter and one part of the input pixels.
struct WeightParts {
    float* sums;  // [count][channels][k][k]
    int count, tiles, groups, lanes;  // lanes: chunks of channels side by side in a block
    bool channels_last;

    WeightParts(float* data, int64_t parts, int channels, int k, int pack, bool last)
        : sums(data), count(int(parts)), tiles((k + kTile - 1) / kTile), channels_last(last) {
        const int chunks = channels / pack;
        lanes = last ? (chunks < 256 ? chunks : 256) : 1;
        groups = last ? (chunks + lanes - 1) / lanes : channels;
    }
};

template <class T, int kCount>
__global__ void __launch_bounds__(256, 2) conv_transpose_add_backward_weight_parts(const Gradients<T> a, const WeightParts p) {
    const int tile = int(blockIdx.x) % p.tiles, y = int(blockIdx.x) / p.tiles % a.k, group = int(blockIdx.x) / p.tiles / a.k;
    const int lane = int(threadIdx.x) % p.lanes, place = int(threadIdx.x) / p.lanes, places = 256 / p.lanes;
    const int channel = p.channels_last ? (group * p.lanes + lane) * kCount : group;
    const bool active = place < places && channel < a.channels;

    // Input rows of all images, then pixels, of this part; each place takes every so many.
    const int64_t images = p.channels_last ? a.planes : a.planes / a.channels;
    const int64_t pixels = images * a.h * a.w.divisor;
    const int64_t first = pixels * blockIdx.y / p.count, end = pixels * (blockIdx.y + 1) / p.count;
    float sums[kTile][kCount] = {};
    for (int64_t i = first + place; i < end && active; i += places) {
        const uint32_t line = i < (int64_t(1) << 31) ? a.w.divide(uint32_t(i)) : uint32_t(i / a.w.divisor);
        const int column = int(i - int64_t(line) * a.w.divisor);
        const uint32_t image = a.rows.divide(line);
        const int row = int(line - image * a.rows.divisor), below = row * a.stride + y - a.crop;
        if (unsigned(below) >= unsigned(a.height)) continue;
        const int64_t plane = p.channels_last ? image : int64_t(image) * a.channels + channel;
        const int within = p.channels_last ? channel : 0, left = column * a.stride + tile * kTile - a.crop;
        const auto x = read_pack<kCount>(a.x.row(plane, row) + column * a.inner + within);
        const T* grad = a.grad.row(plane, below) + within;
#pragma unroll
        for (int t = 0; t < kTile; ++t) {
            if (unsigned(left + t) >= unsigned(a.width)) continue;
            const auto v = read_pack<kCount>(grad + (left + t) * a.inner);
#pragma unroll
            for (int e = 0; e < kCount; ++e) sums[t][e] += to_float(x.v[e]) * to_float(v.v[e]);
        }
    }

    // The places' sums, halved again and again: always in the same order.
    __shared__ float all[kTile][kCount][256];
#pragma unroll
    for (int i = 0; i < kTile * kCount; ++i) all[i / kCount][i % kCount][threadIdx.x] = sums[i / kCount][i % kCount];
    for (int left = places; left > 1;) {
        __syncthreads();
        const int half = (left + 1) / 2;
        if (place < left - half) {
#pragma unroll
            for (int i = 0; i < kTile * kCount; ++i) {
                all[i / kCount][i % kCount][threadIdx.x] += all[i / kCount][i % kCount][threadIdx.x + half * p.lanes];
            }
        }
        left = half;
    }
    if (place > 0 || !active) return;
    for (int t = 0; t < min(kTile, a.k - tile * kTile); ++t) {
        for (int e = 0; e < kCount; ++e) {
            const int64_t filter = int64_t(blockIdx.y) * a.channels + channel + e;
            p.sums[(filter * a.k + y) * a.k + tile * kTile + t] = all[t][e][threadIdx.x];
        }
    }
}

template <class T>
__global__ void __launch_bounds__(256, 2) conv_transpose_add_backward_weight_sum(const Gradients<T> a, const WeightParts p) {
    const int taps = a.k * a.k, size = a.channels * taps, i = int(blockIdx.x * 256 + threadIdx.x);
    if (i >= size) return;
    float sum = 0;
#pragma unroll 4
    for (int part = 0; part < p.count; ++part) sum += read(p.sums + int64_t(part) * size + i);
    const int c = i / taps, y = i % taps / a.k, x = i % a.k;
    *const_cast<T*>(a.weight.at(c, y, x)) = from_float<T>(sum);
}

}  // namespace
}  // namespace fcn
