// What a block of threads works on: a tile of cells of one image, all classes. A thread has a run of a cell's rows and
// columns, up to R x K pixels.
#pragma once

#include "../common/approximate.h"
#include "../common/arguments.h"
#include "../common/tiles.h"

namespace fcn {

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
    int cells, pieces;    // of a tile, nominally; of a cell
    Divisor by_cells;
    float* corner_parts;  // [block][class][slot row][slot column]
    float2* sums;         // [block]: loss and weight
};

// A block's shared memory. What a thread needs rarely lies here, so that its registers hold sums over pixels.
struct BlockMemory {
    static constexpr int kClasses = 2;  // whose sums at corners are exchanged at a time

    float* out[kThreads];  // see CornerSums
    int place[kThreads];
    int first_row[kThreads], row_count[kThreads], first_column[kThreads], column_count[kThreads];  // pixels of the patch
    float smooth[4][kThreads];  // weights of the patch's pixels at the corners, where labels are smoothed
    float2 warp_sums[kThreads / 32];
    float corner_sums[2][kClasses][4][kThreads];  // two halves that take turns
    // Behind it: float peaks[slot row][slot column], the largest class at each corner of the tile.

    FCN_D static BlockMemory& here() { return *dynamic_shared<BlockMemory>(); }
    FCN_D float* peaks() { return reinterpret_cast<float*>(this + 1); }
};

// The block's tile, and this thread's place in it. Threads are numbered by piece, then by cell: neighbours read
// neighbouring scores.
struct Place {
    int image, tile_row, tile_column;
    int piece, cell;    // this thread's
    int row, column;    // its unit in the tile
    int height, width;  // the tile's units
    bool active;

    template <class S>
    FCN_D explicit Place(const LossArgs<S>& a) {
        const unsigned tiles = unsigned(a.rows.tiles * a.columns.tiles), tile = blockIdx.x % tiles;
        image = int(blockIdx.x / tiles);
        tile_row = int(tile / unsigned(a.columns.tiles));
        tile_column = int(tile) - tile_row * a.columns.tiles;
        piece = int(a.by_cells.divide(threadIdx.x));
        cell = int(threadIdx.x) - piece * a.cells;
        row = int(a.columns.by_tile.divide(uint32_t(cell)));
        column = cell - row * a.columns.tile;
        height = a.rows.units_in(tile_row);
        width = a.columns.units_in(tile_column);
        active = piece < a.pieces && row < height && column < width;
    }
};

// This thread's pixels. An inactive thread has none.
struct Patch {
    int image;
    float t_row, t_column;  // where the first pixel lies in the cell

    template <class S>
    FCN_D Patch(const LossArgs<S>& a, const Place& p) : image(p.image) {
        Run row{0, 0, 0}, column{0, 0, 0};
        if (p.active) {
            const int row_piece = p.piece / a.columns.pieces;
            row = a.rows.run(p.tile_row * a.rows.tile + p.row, row_piece);
            column = a.columns.run(p.tile_column * a.columns.tile + p.column, p.piece - row_piece * a.columns.pieces);
        }
        t_row = row.t, t_column = column.t;
        BlockMemory& memory = BlockMemory::here();
        memory.first_row[threadIdx.x] = row.first, memory.row_count[threadIdx.x] = row.count;
        memory.first_column[threadIdx.x] = column.first, memory.column_count[threadIdx.x] = row.count > 0 ? column.count : 0;
    }

    FCN_D int first_row() const { return BlockMemory::here().first_row[threadIdx.x]; }
    FCN_D int rows() const { return BlockMemory::here().row_count[threadIdx.x]; }
    FCN_D int first_column() const { return BlockMemory::here().first_column[threadIdx.x]; }
    FCN_D int columns() const { return BlockMemory::here().column_count[threadIdx.x]; }
};

// Finds the peaks. Returns whether all scores of the tile are finite and above their peak less `range` nats, those that stand
// in for corners where the border makes scores zero (see Corners) finite as well.
template <class S>
FCN_D bool find_peaks(const LossArgs<S>& a, const Place& p, float range) {
    float* const peaks = BlockMemory::here().peaks();
    const int rows = a.rows.slots_in(p.tile_row), columns = a.columns.slots_in(p.tile_column);
    bool fits = true;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < rows * columns; i += int(blockDim.x)) {
        const int64_t row = a.rows.cell_of_slot(p.tile_row, i / columns), column = a.columns.cell_of_slot(p.tile_column, i % columns);
        const S* at = a.x + p.image * a.x_stride[0] + a.rows.nearest(row) * a.x_stride[2] + a.columns.nearest(column) * a.x_stride[3];
        float peak = to_float(*at), least = peak, poison = 0;
        for (int c = 0; c < a.classes; ++c, at += a.x_stride[1]) {
            const float v = to_float(*at);
            peak = fmaxf(peak, v), least = fminf(least, v), poison = fmaf(v, 0, poison);
        }
        const bool counts = a.rows.corner(row) >= 0 && a.columns.corner(column) >= 0;
        fits &= poison == 0 && (!counts || least > peak - range);
        peaks[i] = counts && peak > -INFINITY ? peak : 0;  // with every class excluded, -inf less itself would be no number
    }
    return __syncthreads_and(fits);
}

// The four scores that a cell samples: upper left, upper right, lower left, lower right. Relative to the largest class at
// each corner: interpolation weights are the same for all classes, so the softmax does not change, and no score is above 0.
template <class S>
struct Corners {
    const S* image;
    int64_t class_stride;
    int offset[4];   // of class 0; of the nearest pixel where the border makes the score zero
    float scale[4];  // 1; 0 where the border makes the score zero
    float peak[4];

    FCN_D Corners(const LossArgs<S>& a, const Place& p) : image(a.x + p.image * a.x_stride[0]), class_stride(a.x_stride[1]) {
        const float* const peaks = BlockMemory::here().peaks();
        const int stride = a.columns.slots_in(p.tile_column);
        const int slot_row = a.rows.shared() ? p.row : 2 * p.row, slot_column = a.columns.shared() ? p.column : 2 * p.column;
        const int64_t row = a.rows.cell_of_slot(p.tile_row, slot_row);
        const int64_t column = a.columns.cell_of_slot(p.tile_column, slot_column);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int64_t y = row + i / 2, x = column + i % 2;
            const bool counts = p.active && a.rows.corner(y) >= 0 && a.columns.corner(x) >= 0;
            offset[i] = p.active ? a.rows.nearest(y) * int(a.x_stride[2]) + a.columns.nearest(x) * int(a.x_stride[3]) : 0;
            scale[i] = counts ? 1.0f : 0.0f;
            peak[i] = counts ? peaks[(slot_row + i / 2) * stride + slot_column + i % 2] : 0;
        }
    }

    // `plane` is the image's map of a class, whose scores are finite.
    FCN_D void read(const S* plane, float (&v)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = fmaf(to_float(plane[unsigned(offset[i])]), scale[i], -peak[i]);
    }

    FCN_D void read_any(const S* plane, float (&v)[4]) const {
        read(plane, v);
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = scale[i] != 0 ? v[i] : 0;
    }
};

// What a thread adds to the sums over pixels.
struct Sums {
    float loss = 0, weight = 0;
};

}  // namespace fcn
