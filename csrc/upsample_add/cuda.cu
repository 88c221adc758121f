// upsample_add on GPUs, bound by memory. A thread makes a strip of 16 bytes of an output row, and goes on to the same
// strip of other planes: what the columns sample is the same there.
#include "cuda.h"

#include "../common/maps.h"
#include "../common/sampling.h"

namespace fcn {
namespace {

template <class T>
struct ForwardArgs {
    Map<const T> x, skip;  // skip.data is null where there is none
    Map<T> out;
    Sampling rows, columns;
    Strips strips;  // of an output row
    int height;
    int64_t planes;
};

// Each of the following holds what a strip samples along its row, and mixes it from two input rows.
// A single channel's pixels in a row, enlarged: neighbours share input pixels, which are loaded once.
template <class T>
struct Enlarged {
    static constexpr int kCount = kPack<T>;
    int first, at[kCount];  // input pixel on the left of the first cell; on the right of each: -1 is zero, -2 the same
    float t[kCount];

    FCN_D Enlarged(const ForwardArgs<T>& a, int begin) {
        const Sampling& c = a.columns;
        Sample s = c.at(begin);
        first = c.counts(s.cell) ? c.clamped(s.cell) : -1;
        at[0] = c.counts(s.cell + 1) ? c.clamped(s.cell + 1) : -1;
        t[0] = s.t;
#pragma unroll
        for (int k = 1; k < kCount; ++k) {
            s.rest += c.step;
            at[k] = -2;
            if (s.rest >= c.denominator) {
                s.rest -= c.denominator;
                ++s.cell;
                at[k] = c.counts(s.cell + 1) ? c.clamped(s.cell + 1) : -1;
            }
            t[k] = float(s.rest) * c.inverse;
        }
    }

    FCN_D void mix(float (&v)[kCount], const T* up, const T* down, float w_up, float w_down) const {
        T u[kCount + 1], d[kCount + 1];
#pragma unroll
        for (int k = 0; k <= kCount; ++k) {
            const int i = k == 0 ? first : at[k - 1];
            u[k] = i >= 0 ? up[i] : from_float<T>(0.0f);
            d[k] = i >= 0 ? down[i] : from_float<T>(0.0f);
        }
        float left = 0, right = w_up * to_float(u[0]) + w_down * to_float(d[0]);
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
            if (at[k] != -2) left = right, right = w_up * to_float(u[k + 1]) + w_down * to_float(d[k + 1]);
            v[k] = left + t[k] * (right - left);
        }
    }
};

// channels_last with a number of channels that fills strips: a strip lies within a pixel.
template <class T>
struct WithinPixel {
    static constexpr int kCount = kPack<T>;
    int64_t left, right;
    float w_left, w_right;

    FCN_D WithinPixel(const ForwardArgs<T>& a, int begin) {
        const Sampling& c = a.columns;
        const int pixel = int(a.strips.inner.divide(uint32_t(begin))), channel = begin - pixel * int(a.strips.inner.divisor);
        const Sample s = c.at(pixel);
        left = int64_t(c.clamped(s.cell)) * a.strips.inner.divisor + channel;
        right = int64_t(c.clamped(s.cell + 1)) * a.strips.inner.divisor + channel;
        w_left = c.counts(s.cell) ? 1 - s.t : 0;
        w_right = c.counts(s.cell + 1) ? s.t : 0;
    }

    FCN_D void mix(float (&v)[kCount], const T* up, const T* down, float w_up, float w_down) const {
        const auto a = load_pack<kCount>(up + left), b = load_pack<kCount>(up + right);
        const auto c = load_pack<kCount>(down + left), d = load_pack<kCount>(down + right);
        const float wa = w_up * w_left, wb = w_up * w_right, wc = w_down * w_left, wd = w_down * w_right;
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
            v[k] = wa * to_float(a.v[k]) + wb * to_float(b.v[k]) + wc * to_float(c.v[k]) + wd * to_float(d.v[k]);
        }
    }
};

// Anything else: each number by itself.
template <class T>
struct Scattered {
    static constexpr int kCount = kPack<T>;
    int64_t left[kCount], right[kCount];
    float w_left[kCount], w_right[kCount];

    FCN_D Scattered(const ForwardArgs<T>& a, int begin) {
        const Sampling& c = a.columns;
        const int inner = int(a.strips.inner.divisor);
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
            const int e = max(begin + k, 0), pixel = int(a.strips.inner.divide(uint32_t(e))), channel = e - pixel * inner;
            const Sample s = c.at(pixel);
            left[k] = int64_t(c.clamped(s.cell)) * inner + channel;
            right[k] = int64_t(c.clamped(s.cell + 1)) * inner + channel;
            w_left[k] = c.counts(s.cell) ? 1 - s.t : 0;
            w_right[k] = c.counts(s.cell + 1) ? s.t : 0;
        }
    }

    FCN_D void mix(float (&v)[kCount], const T* up, const T* down, float w_up, float w_down) const {
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
            const float upper = w_left[k] * to_float(up[left[k]]) + w_right[k] * to_float(up[right[k]]);
            const float lower = w_left[k] * to_float(down[left[k]]) + w_right[k] * to_float(down[right[k]]);
            v[k] = w_up * upper + w_down * lower;
        }
    }
};

template <class T, class Columns>
FCN_D void make_strip(const ForwardArgs<T>& a, const Columns& columns, int64_t plane, int y, int begin, const Sample& row) {
    constexpr int kCount = kPack<T>;
    const T* up = a.x.row(plane, a.rows.clamped(row.cell));
    const T* down = a.x.row(plane, a.rows.clamped(row.cell + 1));
    float v[kCount];
    columns.mix(v, up, down, a.rows.counts(row.cell) ? 1 - row.t : 0, a.rows.counts(row.cell + 1) ? row.t : 0);
    add_and_store(a.out.row(plane, y), a.skip.data ? a.skip.row(plane, y) : nullptr, begin, a.strips.row_size, v);
}

template <class T, class Columns>
__global__ void __launch_bounds__(256) upsample_add_kernel(const ForwardArgs<T> a) {
    const uint32_t task = blockIdx.x * 256 + threadIdx.x;
    const int y = int(a.strips.per_row.divide(task)), strip = int(task) - y * int(a.strips.per_row.divisor);
    if (y >= a.height) return;
    const Sample row = a.rows.at(y);
    if (a.strips.aligned) {
        const int begin = strip * kPack<T>;
        const Columns columns(a, begin);
        for (int64_t plane = blockIdx.y; plane < a.planes; plane += gridDim.y) make_strip(a, columns, plane, y, begin, row);
    } else {
        for (int64_t plane = blockIdx.y; plane < a.planes; plane += gridDim.y) {
            const int begin = strip * kPack<T> - misalignment(a.out.row(plane, y));
            if (begin >= a.strips.row_size) continue;
            make_strip(a, Columns(a, begin), plane, y, begin, row);
        }
    }
}

}  // namespace

template <class T>
void upsample_add(const UpsampleAddArgs& args, cudaStream_t stream) {
    const Tensor& out = args.out;
    const bool last = args.channels_last;
    ForwardArgs<T> a;
    a.x = Map<const T>(args.x, last), a.skip = Map<const T>(args.skip, last), a.out = Map<T>(out, last);
    a.rows = Sampling(args.grid.rows, args.x.size[2], args.grid.clamp);
    a.columns = Sampling(args.grid.columns, args.x.size[3], args.grid.clamp);
    a.strips = Strips::of<T>(out, last);
    a.height = int(out.size[2]);
    a.planes = out.size[0] * (last ? 1 : out.size[1]);
    const dim3 grid = strip_grid(a.strips, a.height, a.planes);
    const int64_t inner = last ? out.size[1] : 1;
    const bool pixels_fill = inner % kPack<T> == 0 && a.strips.aligned && a.x.aligned();
    if (inner == 1 && a.columns.step <= a.columns.denominator) {
        launch(upsample_add_kernel<T, Enlarged<T>>, grid, 256, 0, stream, a);
    } else if (pixels_fill) {
        launch(upsample_add_kernel<T, WithinPixel<T>>, grid, 256, 0, stream, a);
    } else {
        launch(upsample_add_kernel<T, Scattered<T>>, grid, 256, 0, stream, a);
    }
}

template void upsample_add<FCN_NUMBER>(const UpsampleAddArgs&, cudaStream_t);

}  // namespace fcn
