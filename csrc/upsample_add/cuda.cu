// upsample_add on GPUs, bound by memory.
#include "cuda.h"

#include "../common/maps.h"
#include "../common/sampling.h"

namespace fcn {
namespace {

// Forward: a thread makes a strip of 16 bytes of an output row, and goes on to the same strip of other planes: what the
// columns sample is the same there.
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
    static constexpr int kCount = kPack<T>, kBlocks = 2;  // kBlocks: on a multiprocessor, as registers allow
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
            u[k] = i >= 0 ? read(up + i) : from_float<T>(0.0f);
            d[k] = i >= 0 ? read(down + i) : from_float<T>(0.0f);
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
    static constexpr int kCount = kPack<T>, kBlocks = 3;
    int left, right;
    float w_left, w_right;

    FCN_D WithinPixel(const ForwardArgs<T>& a, int begin) {
        const Sampling& c = a.columns;
        const int pixel = int(a.strips.inner.divide(uint32_t(begin))), channel = begin - pixel * int(a.strips.inner.divisor);
        const Sample s = c.at(pixel);
        left = c.clamped(s.cell) * int(a.strips.inner.divisor) + channel;
        right = c.clamped(s.cell + 1) * int(a.strips.inner.divisor) + channel;
        w_left = c.counts(s.cell) ? 1 - s.t : 0;
        w_right = c.counts(s.cell + 1) ? s.t : 0;
    }

    FCN_D void mix(float (&v)[kCount], const T* up, const T* down, float w_up, float w_down) const {
        const auto a = read_pack<kCount>(up + left), b = read_pack<kCount>(up + right);
        const auto c = read_pack<kCount>(down + left), d = read_pack<kCount>(down + right);
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
    static constexpr int kCount = kPack<T>, kBlocks = 2;
    const ForwardArgs<T>& a;
    int begin;

    FCN_D Scattered(const ForwardArgs<T>& args, int first) : a(args), begin(first) {}

    FCN_D void mix(float (&v)[kCount], const T* up, const T* down, float w_up, float w_down) const {
        const Sampling& c = a.columns;
        const int inner = int(a.strips.inner.divisor);
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
            const int number = max(begin + k, 0), pixel = int(a.strips.inner.divide(uint32_t(number)));
            const Sample s = c.at(pixel);
            const int left = c.clamped(s.cell) * inner + number - pixel * inner;
            const int right = c.clamped(s.cell + 1) * inner + number - pixel * inner;
            const float w_left = c.counts(s.cell) ? 1 - s.t : 0, w_right = c.counts(s.cell + 1) ? s.t : 0;
            const float upper = w_left * to_float(read(up + left)) + w_right * to_float(read(up + right));
            const float lower = w_left * to_float(read(down + left)) + w_right * to_float(read(down + right));
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
__global__ void __launch_bounds__(256, Columns::kBlocks) upsample_add_kernel(const ForwardArgs<T> a) {
    const uint32_t task = blockIdx.x * 256 + threadIdx.x;
    const int y = int(a.strips.per_row.divide(task)), strip = int(task) - y * int(a.strips.per_row.divisor);
    if (y >= a.height) return;
    const Sample row = a.rows.at(y);
    if (a.strips.aligned) {
        const int begin = strip * kPack<T>;
        const Columns columns(a, begin);
#pragma unroll 2
        for (int64_t plane = blockIdx.y; plane < a.planes; plane += gridDim.y) make_strip(a, columns, plane, y, begin, row);
    } else {
        for (int64_t plane = blockIdx.y; plane < a.planes; plane += gridDim.y) {
            const int begin = strip * kPack<T> - misalignment(a.out.row(plane, y));
            if (begin >= a.strips.row_size) continue;
            make_strip(a, Columns(a, begin), plane, y, begin, row);
        }
    }
}

// Backward gathers. A thread walks down the rows of the output's gradient that one column of cells feeds, cell by cell: what
// a cell gives to the inputs above is the sum over its rows less what it gives to those below.
template <class T>
struct BackwardArgs {
    Map<const T> grad;  // of the output
    Map<T> out;         // the gradient of x
    Sampling rows, columns;
    Divisor columns_of_plane;  // what threads of a plane are numbered by: cells, or input columns
    Divisor chunks;            // of a pixel's channels
    int height, band;          // input rows, and as many of them as a thread makes
    int64_t count;             // threads for a band
};

// One channel: a thread sums the pixels of its own column of cells, and gets what its left neighbour's give to the right.
// Warps overlap in one lane, so that every lane but the first has that neighbour. kChunk pixels are read at a time.
template <class T, int kChunk>
__global__ void __launch_bounds__(256, 3) upsample_add_backward_planes(const BackwardArgs<T> a) {
    const int lane = int(threadIdx.x) % 32;
    const int64_t task = (int64_t(blockIdx.x) * 8 + threadIdx.x / 32) * 31 + lane;
    const bool active = task < a.count;
    const uint32_t plane = a.columns_of_plane.divide(uint32_t(active ? task : 0));
    const int c = int(active ? task - int64_t(plane) * a.columns_of_plane.divisor : 0) - 1;
    Cell column = a.columns.cell(c);
    if (!active) column.end = column.begin;

    const int first = int(blockIdx.y) * a.band, end = min(first + a.band, a.height);
    float below = 0, below_right = 0;  // what the cell above gives to this row, in all and to the right
    for (int i = first - 1; i < end; ++i) {
        const Cell row = a.rows.cell(i);
        float all = 0, all_right = 0, lower = 0, lower_right = 0, t = row.t;
#pragma unroll 2
        for (int y = row.begin; y < row.end; ++y, t += row.slope) {
            const T* pixels = a.grad.row(plane, y);
            float sum = 0, right = 0;
            for (int x = column.begin; x < column.end; x += kChunk) {
                float part = 0, weighted = 0;
#pragma unroll
                for (int k = 0; k < kChunk; ++k) {
                    const float v = x + k < column.end ? to_float(read(pixels + x + k)) : 0;
                    part += v;
                    weighted += float(k) * v;
                }
                sum += part;
                right += (column.t + float(x - column.begin) * column.slope) * part + column.slope * weighted;
            }
            all += sum, all_right += right;
            lower += t * sum, lower_right += t * right;
        }
        if (i >= first) {
            const float in_all = below + (all - lower), to_right = below_right + (all_right - lower_right);
            const float from_left = __shfl_up_sync(~0u, to_right, 1);
            if (active && lane > 0 && c >= 0) a.out.row(plane, i)[c] = from_float<T>((in_all - to_right) + from_left);
        }
        below = lower, below_right = lower_right;
    }
}

// channels_last: a thread has kCount channels of an input column, and sums over the two columns of cells beside it.
template <class T, int kCount>
__global__ void __launch_bounds__(256, 3) upsample_add_backward_pixels(const BackwardArgs<T> a) {
    const int64_t task = int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (task >= a.count) return;
    const uint32_t column = a.chunks.divide(uint32_t(task)), plane = a.columns_of_plane.divide(column);
    const int channel = (int(task) - int(column * a.chunks.divisor)) * kCount, channels = int(a.chunks.divisor) * kCount;
    const int j = int(column - plane * a.columns_of_plane.divisor);
    const Cell left = a.columns.cell(j - 1), right = a.columns.cell(j);

    const int first = int(blockIdx.y) * a.band, end = min(first + a.band, a.height);
    float below[kCount] = {};
    for (int i = first - 1; i < end; ++i) {
        const Cell row = a.rows.cell(i);
        float all[kCount] = {}, lower[kCount] = {}, t = row.t;
        for (int y = row.begin; y < row.end; ++y, t += row.slope) {
            const T* pixels = a.grad.row(plane, y) + channel;
            float sum[kCount] = {};
            const auto add = [&](const Cell& cell, float weight, float slope) {
#pragma unroll 2
                for (int x = cell.begin; x < cell.end; ++x, weight += slope) {
                    const auto v = read_pack<kCount>(pixels + x * channels);
#pragma unroll
                    for (int k = 0; k < kCount; ++k) sum[k] += weight * to_float(v.v[k]);
                }
            };
            add(left, left.t, left.slope);
            add(right, 1 - right.t, -right.slope);
#pragma unroll
            for (int k = 0; k < kCount; ++k) all[k] += sum[k], lower[k] += t * sum[k];
        }
        if (i >= first) {
            Pack<T, kCount> made;
#pragma unroll
            for (int k = 0; k < kCount; ++k) made.v[k] = from_float<T>(below[k] + (all[k] - lower[k]));
            write_pack(a.out.row(plane, i) + j * channels + channel, made);
        }
#pragma unroll
        for (int k = 0; k < kCount; ++k) below[k] = lower[k];
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

template <class T>
void upsample_add_backward(const UpsampleAddArgs& args, cudaStream_t stream) {
    const Tensor& out = args.out;
    const bool last = args.channels_last;
    BackwardArgs<T> a;
    a.grad = Map<const T>(args.x, last), a.out = Map<T>(out, last);
    a.rows = Sampling(args.grid.rows, out.size[2], args.grid.clamp);
    a.columns = Sampling(args.grid.columns, out.size[3], args.grid.clamp);
    a.height = int(out.size[2]);
    const int64_t n = out.size[0], c = out.size[1], w = out.size[3];
    const bool packs = c % kPack<T> == 0 && a.grad.aligned() && a.out.aligned();
    const int64_t chunks = packs ? c / kPack<T> : c;
    a.chunks = Divisor(chunks);
    a.columns_of_plane = Divisor(last ? w : w + 1);
    a.count = last ? n * w * chunks : n * c * (w + 1);
    if (a.count >= (int64_t(1) << 31)) throw std::invalid_argument("a row of all planes has 2^31 numbers or more");
    const int64_t blocks = last ? (a.count + 255) / 256 : (a.count + 247) / 248;
    a.band = band_rows(blocks, a.height);
    const dim3 grid(unsigned(blocks), unsigned((a.height + a.band - 1) / a.band));
    if (last && packs) {
        launch(upsample_add_backward_pixels<T, kPack<T>>, grid, 256, 0, stream, a);
    } else if (last) {
        launch(upsample_add_backward_pixels<T, 1>, grid, 256, 0, stream, a);
    } else if (2 * a.columns.step >= a.columns.denominator) {  // two pixels in a cell, or fewer
        launch(upsample_add_backward_planes<T, 2>, grid, 256, 0, stream, a);
    } else {
        launch(upsample_add_backward_planes<T, 8>, grid, 256, 0, stream, a);
    }
}

template void upsample_add<FCN_NUMBER>(const UpsampleAddArgs&, cudaStream_t);
template void upsample_add_backward<FCN_NUMBER>(const UpsampleAddArgs&, cudaStream_t);

}  // namespace fcn
