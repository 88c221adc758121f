// The forward kernels of conv_transpose_add.
#pragma once

#include "../common/arguments.h"
#include "../common/maps.h"

namespace fcn {
namespace {

template <class T>
struct Filters {
    const T* data;
    int64_t stride_c, stride_y, stride_x;
    int k;

    Filters() = default;
    explicit Filters(const Tensor& t)
        : data(static_cast<const T*>(t.data)), stride_c(t.stride[0]), stride_y(t.stride[2]), stride_x(t.stride[3]), k(int(t.size[2])) {}

    FCN_D const T* at(int c, int y, int x) const { return data + c * stride_c + y * stride_y + x * stride_x; }
    FCN_D float tap(int c, int y, int x) const { return y < k && x < k ? to_float(read(at(c, y, x))) : 0; }

    // Whether kPack<T> channels of a tap are one access.
    bool aligned() const {
        return stride_c == 1 && reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride_y % kPack<T> == 0 && stride_x % kPack<T> == 0;
    }
};

template <class T>
struct Forward {
    Map<const T> x, skip;  // skip.data is null where there is none
    Map<T> out;
    Filters<T> weight;
    Strips strips;           // of an output row
    Divisor inner;           // numbers of a pixel: C with channels_last, or 1
    Divisor stride, height;  // height: of the output
    int h, w, crop, taps;    // taps: of an axis that meet in an output pixel
    int first_q, last_q;     // rows of phases: output row y before the crop lies in y / stride
    int band;                // such rows that a thread walks down
    Divisor bands;
    int64_t planes;
    bool channels_last;

    explicit Forward(const ConvTransposeAddArgs& args)
        : x(args.x, args.channels_last),
          skip(args.skip, args.channels_last),
          out(args.out, args.channels_last),
          weight(args.weight),
          strips(Strips::of<T>(args.out, args.channels_last)),
          inner(args.channels_last ? args.out.size[1] : 1),
          stride(args.stride),
          height(args.out.size[2]),
          h(int(args.x.size[2])),
          w(int(args.x.size[3])),
          crop(int(args.crop)),
          taps(int((args.weight.size[2] + args.stride - 1) / args.stride)),
          first_q(int(args.crop / args.stride)),
          last_q(int((args.crop + args.out.size[2] - 1) / args.stride)),
          planes(args.out.size[0] * (args.channels_last ? 1 : args.out.size[1])),
          channels_last(args.channels_last) {}
};

// Of the numbers of a strip: the input of tap 0 and of tap 1 of each, from one input row.
// A single channel's pixels: neighbours share input pixels, which are loaded once.
template <class T>
struct Neighbours {
    static constexpr int kCount = kPack<T>;
    int before, at[kCount];  // input pixel of tap 1 of the first number; of tap 0 of each: -1 is zero, -2 the one before

    FCN_D Neighbours(const Forward<T>& a, int begin) {
        int q = int(a.stride.divide(uint32_t(begin + a.crop))), phase = begin + a.crop - q * int(a.stride.divisor);
        before = unsigned(q - 1) < unsigned(a.w) ? q - 1 : -1;
        at[0] = unsigned(q) < unsigned(a.w) ? q : -1;
#pragma unroll
        for (int e = 1; e < kCount; ++e) {
            at[e] = -2;
            if (++phase == int(a.stride.divisor)) phase = 0, ++q, at[e] = unsigned(q) < unsigned(a.w) ? q : -1;
        }
    }

    FCN_D void fetch(float (&in)[2][kCount], const T* row) const {
        T numbers[kCount + 1];
#pragma unroll
        for (int e = 0; e <= kCount; ++e) {
            const int i = e == 0 ? before : at[e - 1];
            numbers[e] = i >= 0 ? read(row + i) : from_float<T>(0.0f);
        }
        float left = 0, right = to_float(numbers[0]);
#pragma unroll
        for (int e = 0; e < kCount; ++e) {
            if (at[e] != -2) left = right, right = to_float(numbers[e + 1]);
            in[0][e] = right, in[1][e] = left;
        }
    }
};

// channels_last with a number of channels that fills strips: a strip lies within a pixel.
template <class T>
struct WithinPixel {
    static constexpr int kCount = kPack<T>;
    int at;  // of tap 0; tap 1 lies a pixel before
    int channels;
    bool exists[2];

    FCN_D WithinPixel(const Forward<T>& a, int begin) {
        channels = int(a.inner.divisor);
        const int pixel = int(a.inner.divide(uint32_t(begin))), q = int(a.stride.divide(uint32_t(pixel + a.crop)));
        at = q * channels + (begin - pixel * channels);
        for (int t = 0; t < 2; ++t) exists[t] = unsigned(q - t) < unsigned(a.w);
    }

    FCN_D void fetch(float (&in)[2][kCount], const T* row) const {
#pragma unroll
        for (int t = 0; t < 2; ++t) {
            Pack<T, kCount> pack{};
            if (exists[t]) pack = read_pack<kCount>(row + at - t * channels);
#pragma unroll
            for (int e = 0; e < kCount; ++e) in[t][e] = to_float(pack.v[e]);
        }
    }
};

// At most two taps of an axis meet. A thread keeps the taps of a strip, and walks down the output rows of one phase, which
// all have them; of the two input rows that meet in a row one is there from the row before.
template <class T, class Columns>
__global__ void __launch_bounds__(256, 1) conv_transpose_add_walk(const Forward<T> a) {
    constexpr int kCount = kPack<T>;
    const uint32_t task = blockIdx.x * 256 + threadIdx.x;
    const int stride = int(a.stride.divisor);
    uint32_t rest = a.strips.per_row.divide(task);
    const int begin = int(task - rest * a.strips.per_row.divisor) * kCount;
    uint32_t plane = a.stride.divide(rest);
    const int phase = int(rest - plane * a.stride.divisor);
    rest = plane, plane = a.bands.divide(rest);
    const int first = a.first_q + int(rest - plane * a.bands.divisor) * a.band, last = min(first + a.band - 1, a.last_q);
    if (plane >= a.planes) return;

    float taps[2][2][kCount];
    const int c = a.channels_last ? 0 : int(plane - a.x.channels.divide(plane) * a.x.channels.divisor);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
        const int pixel = int(a.inner.divide(uint32_t(begin + e))), channel = c + begin + e - pixel * int(a.inner.divisor);
        const int x = pixel + a.crop - int(a.stride.divide(uint32_t(pixel + a.crop))) * stride;
#pragma unroll
        for (int i = 0; i < 4; ++i) taps[i / 2][i % 2][e] = a.weight.tap(channel, phase + i / 2 * stride, x + i % 2 * stride);
    }

    const Columns columns(a, begin);
    float above[2][kCount] = {};
    if (unsigned(first - 1) < unsigned(a.h)) columns.fetch(above, a.x.row(plane, first - 1));
#pragma unroll 2
    for (int q = first; q <= last; ++q) {
        float here[2][kCount] = {}, v[kCount];
        if (q < a.h) columns.fetch(here, a.x.row(plane, q));
        const int y = q * stride + phase - a.crop;
#pragma unroll
        for (int e = 0; e < kCount; ++e) {
            v[e] = here[0][e] * taps[0][0][e] + here[1][e] * taps[0][1][e] + above[0][e] * taps[1][0][e] + above[1][e] * taps[1][1][e];
            above[0][e] = here[0][e], above[1][e] = here[1][e];
        }
        if (y >= 0 && y < int(a.height.divisor)) {
            add_and_store(a.out.row(plane, y), a.skip.data ? a.skip.row(plane, y) : nullptr, begin, a.strips.row_size, v);
        }
    }
}

// Any number of taps, of channels, rows that begin anywhere: a strip for each thread, each of its numbers by itself.
template <class T>
__global__ void __launch_bounds__(256, 2) conv_transpose_add_numbers(const Forward<T> a) {
    constexpr int kCount = kPack<T>;
    const uint32_t task = blockIdx.x * 256 + threadIdx.x, line = a.strips.per_row.divide(task), plane = a.height.divide(line);
    if (plane >= a.planes) return;
    const int y = int(line - plane * a.height.divisor), stride = int(a.stride.divisor), inner = int(a.inner.divisor);
    T* out = a.out.row(plane, y);
    const int begin = int(task - line * a.strips.per_row.divisor) * kCount - misalignment(out);
    if (begin >= a.strips.row_size) return;

    const int c = a.channels_last ? 0 : int(plane - a.x.channels.divide(plane) * a.x.channels.divisor);
    const int q = int(a.stride.divide(uint32_t(y + a.crop))), phase = y + a.crop - q * stride;
    float v[kCount];
#pragma unroll 1
    for (int e = 0; e < kCount; ++e) {
        const int number = min(max(begin + e, 0), a.strips.row_size - 1);
        const int pixel = int(a.inner.divide(uint32_t(number))), channel = number - pixel * inner;
        const int column = int(a.stride.divide(uint32_t(pixel + a.crop))), first = pixel + a.crop - column * stride;
        float sum = 0;
        for (int r = 0; r < a.taps; ++r) {
            if (unsigned(q - r) >= unsigned(a.h)) continue;
            const T* row = a.x.row(plane, q - r) + channel;
            for (int t = 0; t < a.taps; ++t) {
                if (unsigned(column - t) >= unsigned(a.w)) continue;
                sum += to_float(read(row + (column - t) * inner)) * a.weight.tap(c + channel, phase + r * stride, first + t * stride);
            }
        }
#pragma unroll
        for (int k = 0; k < kCount; ++k) v[k] = k == e ? sum : v[k];  // an index known to the compiler keeps v in registers
    }
    add_and_store(out, a.skip.data ? a.skip.row(plane, y) : nullptr, begin, a.strips.row_size, v);
}

}  // namespace
}  // namespace fcn
