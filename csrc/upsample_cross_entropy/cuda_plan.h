// How a launch is cut up: pixels of a patch, cells of a tile, threads, blocks.
#pragma once

#include "cuda_block.h"

namespace fcn {

struct Patches {
    int k, r;  // pixels of a patch: columns, rows
    AxisPatches down, across;

    Patches(const UpsampleCrossEntropyArgs& args, int rows_of_a_patch)
        : down(args.grid.rows, args.x.size[2], args.grid.clamp, 8), across(args.grid.columns, args.x.size[3], args.grid.clamp, 8) {
        k = patch_columns(down, across);
        // Progressions from pixel to pixel that are more than half a cell apart may overflow, and gain nothing.
        if (down.slope > 0.5f || across.slope > 0.5f) k = 1;
        r = k;
        if (k == 8) r = rows_of_a_patch > 0 ? rows_of_a_patch : rows_for(args.x.size[0] * down.units * down.pieces * across.units * across.pieces);
        down = AxisPatches(args.grid.rows, args.x.size[2], args.grid.clamp, r);
        across = AxisPatches(args.grid.columns, args.x.size[3], args.grid.clamp, k);
    }

private:
    // Patches of all 8 rows do the least work; smaller ones give more threads where there are few. A GPU of 130
    // multiprocessors holds 67000 threads of 128 registers at a time. Not measured.
    static int rows_for(int64_t patches) { return patches >= 32000 ? 8 : patches >= 8000 ? 4 : 2; }
};

struct Plan : Patches, Tiling {
    Plan(const UpsampleCrossEntropyArgs& args, int rows_of_a_patch)
        : Patches(args, rows_of_a_patch), Tiling(down, across, args.x.size[0]) {}

    int64_t corner_floats(int64_t classes) const { return blocks * classes * rows.slots * columns.slots; }
};

}  // namespace fcn
