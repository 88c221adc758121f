// What a block of threads works on: a tile of cells of one image, all classes. A thread has a run of a cell's rows and
// columns, up to R x K pixels.
#pragma once

#include "../common/arguments.h"
#include "cuda_tiles.h"

namespace fcn {

constexpr int kThreads = 256;      // of a block, at most
constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// 2^v and log2 v of numbers that are normal, and a quotient: one instruction each, and a multiplication.
#if defined(__CUDA_ARCH__)
FCN_D float exp2_approx(float v) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
}
FCN_D float log2_approx(float v) {
    float result;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
}
#else
FCN_D float exp2_approx(float v) { return exp2f(v); }
FCN_D float log2_approx(float v) { return log2f(v); }
#endif

template <class S>
struct LossArgs {
    const S* x;
    int64_t x_stride[4];
    float* grad;  // or null
    int64_t grad_stride[4];
    const void* target;
    DType target_dtype;
    int64_t target_stride[3];
    const float* class_weight;  // or null
    const float* pixel_weight;  // or null
    int64_t pixel_weight_stride[3];
    float* pixel_loss;  // or null
    int64_t ignore_index;
    float hard, smoothing;  // 1 - label_smoothing, label_smoothing / classes
    int images, classes;
    bool exact;
    TiledAxis rows, columns;
    float* corner_parts;  // [block][class][slot row][slot column]
    float2* sums;         // [block]: loss and weight
};

// The block's tile, and this thread's place in it. Threads are numbered by piece, then by cell: neighbours read
// neighbouring scores.
struct Place {
    int image, tile_row, tile_column;
    int cells, pieces;       // of a tile, nominally; of a cell
    int piece, cell;         // this thread's
    int row, column;         // its unit in the tile
    int height, width;       // the tile's units
    bool active;

    template <class S>
    FCN_D explicit Place(const LossArgs<S>& a) {
        const unsigned tiles = unsigned(a.rows.tiles * a.columns.tiles), tile = blockIdx.x % tiles;
        image = int(blockIdx.x / tiles);
        tile_row = int(tile / unsigned(a.columns.tiles));
        tile_column = int(tile) - tile_row * a.columns.tiles;
        cells = a.rows.tile * a.columns.tile;
        pieces = a.rows.pieces * a.columns.pieces;
        piece = int(threadIdx.x) / cells;
        cell = int(threadIdx.x) - piece * cells;
        row = int(a.columns.by_tile.divide(uint32_t(cell)));
        column = cell - row * a.columns.tile;
        height = a.rows.units_in(tile_row);
        width = a.columns.units_in(tile_column);
        active = piece < pieces && row < height && column < width;
    }
};

// This thread's pixels. An inactive thread has none.
struct Patch {
    Run row, column;

    template <class S>
    FCN_D Patch(const LossArgs<S>& a, const Place& p) : row{0, 0, 0}, column{0, 0, 0} {
        if (!p.active) return;
        const int row_piece = p.piece / a.columns.pieces;
        row = a.rows.run(p.tile_row * a.rows.tile + p.row, row_piece);
        column = a.columns.run(p.tile_column * a.columns.tile + p.column, p.piece - row_piece * a.columns.pieces);
        if (row.count == 0) column.count = 0;
    }
};

// The largest class at each of the tile's corners, in units of log 2, into `peaks`: [slot row][slot column]. Returns
// whether all scores of the tile are finite and above their peak less `range` nats.
template <class S>
FCN_D bool find_peaks(const LossArgs<S>& a, const Place& p, float range, float* peaks) {
    const int rows = a.rows.slots_in(p.tile_row), columns = a.columns.slots_in(p.tile_column);
    bool fits = true;
    for (int i = int(threadIdx.x); i < rows * columns; i += int(blockDim.x)) {
        const int y = a.rows.corner(a.rows.cell_of_slot(p.tile_row, i / columns));
        const int x = a.columns.corner(a.columns.cell_of_slot(p.tile_column, i % columns));
        float peak = 0;
        if (y >= 0 && x >= 0) {
            const S* at = a.x + p.image * a.x_stride[0] + y * a.x_stride[2] + x * a.x_stride[3];
            float least = peak = to_float(*at), poison = 0;
            for (int c = 0; c < a.classes; ++c) {
                const float v = to_float(at[c * a.x_stride[1]]);
                peak = fmaxf(peak, v), least = fminf(least, v), poison = fmaf(v, 0, poison);
            }
            fits &= poison == 0 && least > peak - range;
            peak *= kLog2E;
        }
        peaks[i] = peak;
    }
    return __syncthreads_and(fits);
}

// The four scores that a cell samples: upper left, upper right, lower left, lower right. In units of log 2, relative to
// the largest class at each corner: interpolation weights are the same for all classes, so the softmax does not change,
// and no score is above 0.
template <class S>
struct Corners {
    const S* at[4];
    bool counts[4];
    float peak[4];
    int64_t class_stride;

    FCN_D Corners(const LossArgs<S>& a, const Place& p, const float* peaks) : class_stride(a.x_stride[1]) {
        const int stride = a.columns.slots_in(p.tile_column);
        const int slot_row = a.rows.shared() ? p.row : 2 * p.row, slot_column = a.columns.shared() ? p.column : 2 * p.column;
        const int64_t row = a.rows.cell_of_slot(p.tile_row, slot_row);
        const int64_t column = a.columns.cell_of_slot(p.tile_column, slot_column);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int y = a.rows.corner(row + i / 2), x = a.columns.corner(column + i % 2);
            counts[i] = p.active && y >= 0 && x >= 0;
            at[i] = a.x + (counts[i] ? p.image * a.x_stride[0] + y * a.x_stride[2] + x * a.x_stride[3] : 0);
            peak[i] = p.active ? peaks[(slot_row + i / 2) * stride + slot_column + i % 2] : 0;
        }
    }

    FCN_D void read(int c, float (&v)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = counts[i] ? fmaf(to_float(at[i][c * class_stride]), kLog2E, -peak[i]) : 0.0f;
    }
};

// What a thread adds to the sums over pixels.
struct Sums {
    float loss = 0, weight = 0;
};

}  // namespace fcn
