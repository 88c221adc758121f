// Which classes can win.
//
// Inside a cell a class's score lies between its least and its greatest corner, so a class whose greatest corner is below
// another's least corner never wins there. The same holds for a tile of cells. A margin covers the rounding of interpolated
// scores, so no winner is lost, ties included. A block lists the classes that can win in its tile; a thread goes through
// the list and keeps those that can win in its cell.
#pragma once

#include "cuda_block.h"

namespace fcn {

constexpr int kMostListed = 2048;   // with more classes a block does without the list
constexpr float kRounding = 2e-6f;  // of the largest magnitude: 16 units in the last place

// The range of some scores; `greatest` is NaN if one of them is not finite.
struct Range {
    float least, greatest;

    FCN_D void add(float v) { add({v, v - v == 0 ? v : NAN}); }
    FCN_D void add(const Range& r) {
        least = fminf(least, r.least);
        greatest = r.greatest > greatest || r.greatest != r.greatest ? r.greatest : greatest;
    }
};

// The least score that some class reaches everywhere, and the largest magnitude.
struct Bound {
    float least, magnitude;

    FCN_D void add(const Range& r) { least = fmaxf(least, r.least), magnitude = fmaxf(magnitude, fmaxf(r.greatest, -r.least)); }
    FCN_D bool beats(const Range& r) const { return r.greatest < least - kRounding * magnitude; }
};

FCN_D Range range_of(const float (&v)[4]) {
    return {fminf(fminf(v[0], v[1]), fminf(v[2], v[3])), fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3]))};
}

// A block's shared memory.
struct BlockMemory {
    int count, finite;
    // Behind it: the list, int[classes]; ranges of the classes in the tile, Range[classes].

    FCN_D static BlockMemory& here() { return *dynamic_shared<BlockMemory>(); }
    FCN_D int* list() { return reinterpret_cast<int*>(this + 1); }
    FCN_D Range* ranges(int classes) { return reinterpret_cast<Range*>(list() + (classes + 1) / 2 * 2); }
    static size_t bytes(int classes) {
        const size_t listed = classes <= kMostListed ? size_t(classes + 1) / 2 * 2 : 0;
        return sizeof(BlockMemory) + listed * (sizeof(int) + sizeof(Range));
    }
};

// The classes that can win in the tile, ascending, into the block's memory; and whether all scores are finite.
template <class S>
FCN_D void list_candidates(const ArgmaxArgs<S>& a, const Place& p) {
    BlockMemory& memory = BlockMemory::here();
    Range* const ranges = memory.ranges(a.classes);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
    const int columns = a.columns.slots_in(p.tile_column), slots = a.rows.slots_in(p.tile_row) * columns;
    const S* const image = a.x + p.image * a.x_stride[0];
    for (int first = warp * 4; first < a.classes; first += warps * 4) {  // a warp has four classes at a time
        Range range[4];
#pragma unroll
        for (int g = 0; g < 4; ++g) range[g] = {INFINITY, -INFINITY};
        for (int slot = lane; slot < slots; slot += 32) {
            const int y = a.rows.corner(a.rows.cell_of_slot(p.tile_row, slot / columns));
            const int x = a.columns.corner(a.columns.cell_of_slot(p.tile_column, slot % columns));
            const S* at = image + y * a.x_stride[2] + x * a.x_stride[3] + first * a.x_stride[1];
#pragma unroll
            for (int g = 0; g < 4; ++g) {
                const float v = y >= 0 && x >= 0 && first + g < a.classes ? to_float(at[g * a.x_stride[1]]) : 0.0f;
                range[g].add(v);
            }
        }
#pragma unroll
        for (int g = 0; g < 4; ++g) {
            for (int distance = 16; distance > 0; distance /= 2) {
                range[g].add({__shfl_xor_sync(~0u, range[g].least, distance), __shfl_xor_sync(~0u, range[g].greatest, distance)});
            }
            if (lane == 0 && first + g < a.classes) ranges[first + g] = range[g];
        }
    }
    __syncthreads();
    if (warp == 0) {
        Bound bound{-INFINITY, 0};
        bool finite = true;
        for (int c = lane; c < a.classes; c += 32) {
            bound.add(ranges[c]);
            finite &= ranges[c].greatest == ranges[c].greatest;
        }
        for (int distance = 16; distance > 0; distance /= 2) {
            bound.least = fmaxf(bound.least, __shfl_xor_sync(~0u, bound.least, distance));
            bound.magnitude = fmaxf(bound.magnitude, __shfl_xor_sync(~0u, bound.magnitude, distance));
        }
        finite = __all_sync(~0u, finite);
        int count = 0;
        for (int first = 0; first < a.classes; first += 32) {
            const int c = first + lane;
            const bool listed = c < a.classes && !(finite && bound.beats(ranges[c]));
            const unsigned lanes = __ballot_sync(~0u, listed);
            if (listed) memory.list()[count + __popc(lanes & ((1u << lane) - 1))] = c;
            count += __popc(lanes);
        }
        if (lane == 0) memory.count = count, memory.finite = finite;
    }
    __syncthreads();
}

// The classes among which a thread's winners are.
struct Candidates {
    const int* list;  // null: all
    int count;
    bool finite;

    FCN_D int at(int i) const { return list ? list[i] : i; }
};

template <class S>
FCN_D Candidates find_candidates(const ArgmaxArgs<S>& a, const Place& p) {
    if (a.classes > kMostListed) return {nullptr, a.classes, false};
    list_candidates(a, p);
    return {BlockMemory::here().list(), BlockMemory::here().count, BlockMemory::here().finite != 0};
}

}  // namespace fcn
