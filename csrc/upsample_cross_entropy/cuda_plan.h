// How a launch is cut up: pixels of a patch, cells of a tile, threads, blocks.
#pragma once

#include "cuda_block.h"

namespace fcn {

inline int power_of_two_from(int v) {
    int result = 1;
    while (result < v) result *= 2;
    return result;
}

// How a launch is cut up.
struct Plan {
    int k, r;  // pixels of a patch: columns, rows
    TiledAxis rows, columns;
    int threads;  // of a block
    int64_t blocks;

    Plan(const UpsampleCrossEntropyArgs& args, int rows_of_a_patch) {
        const int64_t images = args.x.size[0], height = args.x.size[2], width = args.x.size[3];
        const Grid& grid = args.grid;
        AxisPatches down(grid.rows, height, grid.clamp, 8), across(grid.columns, width, grid.clamp, 8);
        k = power_of_two_from(across.length > down.length ? across.length : down.length);
        // Progressions from pixel to pixel that are more than half a cell apart may overflow, and gain nothing.
        if (down.slope > 0.5f || across.slope > 0.5f) k = 1;
        r = k;
        if (k == 8) r = rows_of_a_patch > 0 ? rows_of_a_patch : rows_for(images * down.units * down.pieces * across.units * across.pieces);
        down = AxisPatches(grid.rows, height, grid.clamp, r), across = AxisPatches(grid.columns, width, grid.clamp, k);
        choose_tiles(down, across, images);
    }

    int64_t corner_floats(int64_t classes) const { return blocks * classes * rows.slots * columns.slots; }

private:
    // Patches of all 8 rows do the least work; smaller ones give more threads where there are few. A GPU of 130
    // multiprocessors holds 67000 threads of 128 registers at a time. Not measured.
    static int rows_for(int64_t patches) { return patches >= 32000 ? 8 : patches >= 8000 ? 4 : 2; }

    // The tile shape that costs the fewest threads, corners at the edges counted as well.
    void choose_tiles(const AxisPatches& down, const AxisPatches& across, int64_t images) {
        const int pieces = down.pieces * across.pieces;
        const int64_t patches = images * down.units * across.units * pieces;
        int capacity = kThreads;  // threads; smaller blocks where there are few
        while (capacity > 64 && capacity / 2 >= pieces && patches / capacity < 264) capacity /= 2;
        const int cells = capacity / pieces;
        double best = 0;
        int height = 0, width = 0;
        for (int wide = 1; wide <= cells && wide <= across.units; ++wide) {
            const int w = int(ceil_div(across.units, ceil_div(across.units, wide)));
            const int tall = cells / w < down.units ? cells / w : down.units;
            const int h = int(ceil_div(down.units, ceil_div(down.units, tall)));
            const double tiles = double(ceil_div(across.units, w)) * double(ceil_div(down.units, h));
            const double cost = tiles * double(ceil_div(int64_t(w) * h * pieces, 32) * 32 + 4 * (w + h));
            if (height == 0 || cost < best) best = cost, height = h, width = w;
        }
        rows = TiledAxis(down, height), columns = TiledAxis(across, width);
        threads = int(ceil_div(int64_t(height) * width * pieces, 32) * 32);
        blocks = images * rows.tiles * columns.tiles;
        if (blocks >= (int64_t(1) << 31)) throw std::invalid_argument("too many pixels for one launch");
    }
};

}  // namespace fcn
