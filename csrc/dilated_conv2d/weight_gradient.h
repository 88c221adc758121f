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
    const int row = first_row + chunk * kPack<S>, column = first_column + chunk * kPack<S>;
    const S* const grad_here = grad + (int64_t(down.first) * columns.size + across.first) * c.channels + row;
    const int seen_row = down.first + rows.offset(tap_y), seen_column = across.first + columns.offset(tap_x);
    const S* const x_here = x + (int64_t(seen_row) * columns.read_size + seen_column) * c.read_channels + column;
    const auto copy_stage = [&](int slot) {
        char* const to_rows = shared + slot * 2 * kTileSize;
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            const bool exists = at[i].image < c.images;
            const int pixel = (at[i].image * rows.size + at[i].row) * columns.size + at[i].column;
            const int seen = (at[i].image * rows.read_size + at[i].row) * columns.read_size + at[i].column;
            char* const to = to_rows + column_chunk<S, kTile>(first + kStep * i, chunk);
            const int row_count = exists ? c.channels - row : 0, column_count = exists ? c.read_channels - column : 0;
            copy_chunk<S, kAligned>(to, grad_here + int64_t(pixel) * c.channels, row_count);
            copy_chunk<S, kAligned>(to + kTileSize, x_here + int64_t(seen) * c.read_channels, column_count);
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
        const char* const staged_rows = shared + stage % kStages * 2 * kTileSize;
        Math::template multiply_columns<kTile>(sum, staged_rows, warp / 2 * (kTile / 2), staged_rows + kTileSize,
                                               warp % 2 * (kTile / 2));
    }
    copy_async_wait<0>();

    const auto destination = [&](int row) -> Out* {
        if (first_row + row >= c.channels) return nullptr;
        const int64_t filter = int64_t(blockIdx.y) * c.channels + first_row + row;
        return out + (filter * taps + tap) * c.read_channels + first_column;
    };
    const auto nothing = [](int) { return 0.0f; };
    store_tile<Out, kTile, kTile>(sum, shared, c.read_channels - first_column, aligned, false, nothing, destination);
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
