// What a block of threads works on: a tile of cells of one image, all classes. A thread has a run of a cell's rows and
// columns, up to R x K pixels; neighbours in a warp have neighbouring runs of one row.
#pragma once

#include "../common/approximate.h"
#include "../common/tiles.h"

namespace fcn {

template <class S>
struct ArgmaxArgs {
    const S* x;
    int64_t x_stride[4];
    void* labels;       // [N, H, W]
    float* confidence;  // likewise; or null
    int classes;
    TiledAxis rows, columns;
    Divisor by_runs;  // runs of columns in a tile
};

struct Place {
    int image, tile_row, tile_column;
    int row_unit, row_piece, column_unit, column_piece;  // this thread's, in the tile
    bool active;

    template <class S>
    FCN_D explicit Place(const ArgmaxArgs<S>& a) {
        const unsigned tiles = unsigned(a.rows.tiles * a.columns.tiles), tile = blockIdx.x % tiles;
        image = int(blockIdx.x / tiles);
        tile_row = int(tile / unsigned(a.columns.tiles));
        tile_column = int(tile) - tile_row * a.columns.tiles;
        const int row = int(a.by_runs.divide(threadIdx.x)), column = int(threadIdx.x) - row * int(a.by_runs.divisor);
        row_unit = row / a.rows.pieces, row_piece = row - row_unit * a.rows.pieces;
        column_unit = column / a.columns.pieces, column_piece = column - column_unit * a.columns.pieces;
        active = row_unit < a.rows.units_in(tile_row) && column_unit < a.columns.units_in(tile_column);
    }
};

// The four scores that a cell samples: upper left, upper right, lower left, lower right.
template <class S>
struct Corners {
    const S* image;
    int64_t class_stride;
    int offset[4];  // of class 0; of the nearest pixel where the border makes the score zero
    bool counts[4];

    FCN_D Corners(const ArgmaxArgs<S>& a, const Place& p) : image(a.x + p.image * a.x_stride[0]), class_stride(a.x_stride[1]) {
        const int64_t row = a.rows.cell_of_unit(p.tile_row * a.rows.tile + p.row_unit);
        const int64_t column = a.columns.cell_of_unit(p.tile_column * a.columns.tile + p.column_unit);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int64_t y = row + i / 2, x = column + i % 2;
            offset[i] = a.rows.nearest(y) * int(a.x_stride[2]) + a.columns.nearest(x) * int(a.x_stride[3]);
            counts[i] = a.rows.corner(y) >= 0 && a.columns.corner(x) >= 0;
        }
    }

    FCN_D void read(int c, float (&v)[4]) const {
        const S* plane = image + c * class_stride;
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = to_float(plane[unsigned(offset[i])]);
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = counts[i] ? v[i] : 0;
    }
};

}  // namespace fcn
