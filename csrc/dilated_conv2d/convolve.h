// The convolution as a matrix product that nobody writes down: rows are the pixels of a rectangle, columns output
// channels, and depth goes over taps and input channels. Taps that see nothing but padding from the whole rectangle are
// left out; single pixels of padding are zeros.
#pragma once

#include "geometry.h"
#include "tiles.h"

namespace fcn {
namespace {

// x [images, rows, columns, read_channels]; weight [channels, taps, taps, read_channels]; out like x. kAligned: chunks of
// 16 bytes of x and weight are whole and aligned; `aligned` says so of out.
template <class S, class Math, int kM, int kN, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<kM, kN, kAligned>)
convolve(Convolution c, const S* __restrict__ x, const S* __restrict__ weight, const S* __restrict__ bias, bool relu,
         bool aligned, S* __restrict__ out) {
    constexpr int kStageSize = (kM + kN) * kDepthBytes;
    constexpr int kRowsPerThread = kM / 32, kColumnsPerThread = kN / 32;
    const TapAxis &rows = c.rows, &columns = c.columns;
    const int column_tiles = (c.channels + kN - 1) / kN, tiles_across = (columns.size + c.tile_columns - 1) / c.tile_columns;
    const int tiles_down = (rows.size + c.tile_rows - 1) / c.tile_rows;
    int tile = int(blockIdx.x);
    const int first_channel = tile % column_tiles * kN;
    tile /= column_tiles;
    const int left = tile % tiles_across * c.tile_columns;
    tile /= tiles_across;
    const int top = tile % tiles_down * c.tile_rows, image = tile / tiles_down;
    const int bottom = min(top + c.tile_rows, rows.size), right = min(left + c.tile_columns, columns.size);

    char* const shared = dynamic_shared<char>();
    const int thread = int(threadIdx.x), warp = thread / 32;
    // What this thread copies in each stage: one chunk in depth, of these rows (pixels) and columns (filters). Where they
    // lie is settled once, in chunks; a stage adds one number to all pixels and one to all filters.
    using Offset = std::conditional_t<kAligned, uint32_t, int64_t>;
    constexpr int kUnit = kAligned ? kPack<S> : 1;
    const int chunk = thread % 4, first = thread / 4, taps = rows.taps * columns.taps;
    const int64_t units = c.read_channels / kUnit;  // of a pixel
    int pixel_row[kRowsPerThread], pixel_column[kRowsPerThread];
    Offset pixel_at[kRowsPerThread], filter_at[kColumnsPerThread];
#pragma unroll
    for (int i = 0; i < kRowsPerThread; ++i) {
        const int pixel = first + 32 * i;
        pixel_row[i] = top + pixel / c.tile_columns;
        pixel_column[i] = left + pixel % c.tile_columns;
        pixel_at[i] = Offset((int64_t(pixel_row[i]) * columns.read_size + pixel_column[i]) * units);
        if (pixel_row[i] >= bottom || pixel_column[i] >= right) pixel_row[i] = -(1 << 30);  // sees nothing
    }
#pragma unroll
    for (int i = 0; i < kColumnsPerThread; ++i) {  // columns beyond the last filter are copies of it, and go nowhere
        filter_at[i] = Offset(int64_t(min(first_channel + first + 32 * i, c.channels - 1)) * taps * units);
    }
    const Range tap_rows = seeing_taps(rows, top, bottom - 1), tap_columns = seeing_taps(columns, left, right - 1);
    const int depths = (c.read_channels + kDepth<S> - 1) / kDepth<S>;
    const int stages = (tap_rows.end - tap_rows.first) * (tap_columns.end - tap_columns.first) * depths;

    int tap_y = tap_rows.first, tap_x = tap_columns.first, depth = 0;
    unsigned inside = 0;  // bit i: pixel i of this thread sees something with this tap
    const S *seen = x, *filters = weight;
    const auto enter_tap = [&] {
        const int down = rows.offset(tap_y), across = columns.offset(tap_x);
        inside = 0;
#pragma unroll
        for (int i = 0; i < kRowsPerThread; ++i) {
            const bool exists = unsigned(pixel_row[i] + down) < unsigned(rows.read_size) &&
                                unsigned(pixel_column[i] + across) < unsigned(columns.read_size);
            inside |= unsigned(exists) << i;
        }
        seen = x + ((int64_t(image) * rows.read_size + down) * columns.read_size + across) * c.read_channels + chunk * kPack<S>;
        filters = weight + (int64_t(tap_y) * columns.taps + tap_x) * c.read_channels + chunk * kPack<S>;
    };
    const auto copy_stage = [&](int slot) {
        if (depth == 0) enter_tap();
        char* const to = shared + slot * kStageSize + row_chunk(first, chunk);
        const int count = c.read_channels - depth - chunk * kPack<S>;
        const unsigned exist = count > 0 ? inside : 0;
#pragma unroll
        for (int i = 0; i < kRowsPerThread; ++i) {
            const S* const from = seen + int64_t(pixel_at[i]) * kUnit;
            copy_chunk<S, kAligned>(to + 32 * i * kDepthBytes, from, exist >> i & 1 ? count : 0);
        }
#pragma unroll
        for (int i = 0; i < kColumnsPerThread; ++i) {
            const S* const from = filters + int64_t(filter_at[i]) * kUnit;
            copy_chunk<S, kAligned>(to + (kM + 32 * i) * kDepthBytes, from, count);
        }
        seen += kDepth<S>, filters += kDepth<S>, depth += kDepth<S>;
        if (depth >= c.read_channels) {
            depth = 0;
            if (++tap_x == tap_columns.end) tap_x = tap_columns.first, ++tap_y;
        }
    };

#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
        if (stage < stages) copy_stage(stage);
        copy_async_commit();
    }
    Accumulators<kM / 2, kN / 2> sum = {};
    for (int stage = 0; stage < stages; ++stage) {
        copy_async_wait<kStages - 2>();
        __syncthreads();  // this stage has come for all threads, and all are done with the one before
        if (stage + kStages - 1 < stages) copy_stage((stage + kStages - 1) % kStages);
        copy_async_commit();
        const char* const pixels = shared + stage % kStages * kStageSize;
        Math::multiply_rows(sum, pixels, warp / 2 * (kM / 2), pixels + kM * kDepthBytes, warp % 2 * (kN / 2));
    }
    copy_async_wait<0>();

    const auto bias_of = [&](int column) {
        return bias && first_channel + column < c.channels ? to_float(bias[first_channel + column]) : 0.0f;
    };
    const auto destination = [&](int row) -> S* {
        const int v = top + row / c.tile_columns, u = left + row % c.tile_columns;
        if (v >= bottom || u >= right) return nullptr;
        return out + ((int64_t(image) * rows.size + v) * columns.size + u) * c.channels + first_channel;
    };
    store_tile<S, kM, kN>(sum, shared, c.channels - first_channel, aligned, relu, bias_of, destination);
}

}  // namespace
}  // namespace fcn
