// The gradient of the filters: for each tap a matrix product of rows (output channels) by columns (input channels) whose
// depth is the pixels that see something with that tap. Depth is split among blocks; parts are added in a fixed order.
#pragma once

#include "geometry.h"
#include "tiles.h"

namespace fcn {
namespace {

// A pixel among those of a rectangle in every image, counted in order.
struct Walk {
    int image, row, column;
};

FCN_D Walk walk(int64_t steps, int rows, int columns) {
    const int64_t row = steps / columns;
    return {int(row / rows), int(row % rows), int(steps % columns)};
}

FCN_D void advance(Walk& at, const Walk& by, int rows, int columns) {
    at.column += by.column;
    at.row += by.row;
    at.image += by.image;
    if (at.column >= columns) at.column -= columns, ++at.row;
    if (at.row >= rows) at.row -= rows, ++at.image;
}

// grad [images, rows, columns, channels]; x [images, rows, columns, read_channels]; out [parts, channels, taps, taps,
// read_channels]. Block x: tap and tile; block y: part.
template <class S, class Math, class Out, int kTile, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<kTile, kTile, kAligned>)
multiply_pixels(Convolution c, const S* __restrict__ grad, const S* __restrict__ x, bool aligned, Out* __restrict__ out) {
    constexpr int kTileSize = kDepth<S> * kPitch<S, kTile>;
    constexpr int kChunksPerRow = kTile / kPack<S>, kPerThread = kTile / 32;
    const TapAxis &rows = c.rows, &columns = c.columns;
    const int taps = rows.taps * columns.taps;
    const int tiles_across = (c.read_channels + kTile - 1) / kTile, tiles_down = (c.channels + kTile - 1) / kTile;
    int tile = int(blockIdx.x);
    const int first_column = tile % tiles_across * kTile;
    tile /= tiles_across;
    const int first_row = tile % tiles_down * kTile, tap = tile / tiles_down;
    const int tap_y = tap / columns.taps, tap_x = tap % columns.taps;
    const Range down = seeing_pixels(rows, tap_y), across = seeing_pixels(columns, tap_x);
    const int height = down.end - down.first, width = across.end - across.first;
    const int64_t pixels = int64_t(c.images) * height * width;
    // Whole stages for every part, the last one perhaps less.
    const int64_t all_stages = (pixels + kDepth<S> - 1) / kDepth<S>, per_part = (all_stages + gridDim.y - 1) / gridDim.y;
    const int64_t first_stage = min(int64_t(blockIdx.y) * per_part, all_stages);
    const int stages = int(min(per_part, all_stages - first_stage));

    char* const shared = dynamic_shared<char>();
    const int thread = int(threadIdx.x), warp = thread / 32;
    const int chunk = thread % kChunksPerRow, first = thread / kChunksPerRow;
    constexpr int kStep = kThreads / kChunksPerRow;
    Walk at[kPerThread], by{};
    if (pixels > 0) {
        by = walk(kDepth<S>, height, width);
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) at[i] = walk(first_stage * kDepth<S> + first + kStep * i, height, width);
    }
    const int row_count = c.channels - first_row - chunk * kPack<S>, column_count = c.read_channels - first_column - chunk * kPack<S>;
    const auto copy_stage = [&](int slot) {
        char* const shared_rows = shared + slot * 2 * kTileSize;
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            const bool exists = at[i].image < c.images;
            const int v = down.first + at[i].row, u = across.first + at[i].column;
            const int64_t pixel = (int64_t(at[i].image) * rows.size + v) * columns.size + u;
            const int64_t seen = (int64_t(at[i].image) * rows.read_size + v + rows.offset(tap_y)) * columns.read_size + u +
                                 columns.offset(tap_x);
            const bool row_exists = exists && row_count > 0, column_exists = exists && column_count > 0;
            char* const to = shared_rows + column_chunk<S, kTile>(first + kStep * i, chunk);
            copy_chunk<S, kAligned>(to, row_exists ? grad + pixel * c.channels + first_row + chunk * kPack<S> : grad,
                                    row_exists ? row_count : 0);
            copy_chunk<S, kAligned>(to + kTileSize,
                                    column_exists ? x + seen * c.read_channels + first_column + chunk * kPack<S> : x,
                                    column_exists ? column_count : 0);
            advance(at[i], by, height, width);
        }
    };

#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
        if (stage < stages) copy_stage(stage);
        copy_async_commit();
    }
    Accumulators<kTile / 2, kTile / 2> sum = {};
    for (int stage = 0; stage < stages; ++stage) {
        copy_async_wait<kStages - 2>();
        __syncthreads();
        if (stage + kStages - 1 < stages) copy_stage((stage + kStages - 1) % kStages);
        copy_async_commit();
        const char* const shared_rows = shared + stage % kStages * 2 * kTileSize;
        Math::template multiply_columns<kTile>(sum, shared_rows, warp / 2 * (kTile / 2), shared_rows + kTileSize,
                                               warp % 2 * (kTile / 2));
    }
    copy_async_wait<0>();

    const auto destination = [&](int row) -> Out* {
        if (first_row + row >= c.channels) return nullptr;
        const int64_t filter = int64_t(blockIdx.y) * c.channels + first_row + row;
        return out + (filter * taps + tap) * c.read_channels + first_column;
    };
    store_tile<Out, kTile, kTile>(sum, shared, c.read_channels - first_column, aligned, [](float value, int) { return value; },
                                  destination);
}

// out[i] = parts[0][i] + parts[1][i] + ...
template <class S>
__global__ void __launch_bounds__(256) add_parts(const float* __restrict__ parts, int count, int64_t size, S* __restrict__ out) {
    const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i >= size) return;
    float sum = parts[i];
    for (int part = 1; part < count; ++part) sum += parts[part * size + i];
    out[i] = from_float<S>(sum);
}

}  // namespace
}  // namespace fcn
