// The gradient's sums at corners, from the threads of a block to memory.
//
// A coarse pixel's gradient is the sum over the cells around it, and over the pieces of each. Threads lay the sums of
// a few classes into shared memory, meet, and each adds what belongs to the upper left corner of its cell, for one of
// the classes; cells at the right and lower edge of the tile have more corners to add up. Always in the same order.
// A coarse pixel that is `inner` on both axes is written here. To the others several tiles add, or none: each tile keeps
// its part in a workspace, and a second kernel adds the parts.
#pragma once

#include "cuda_block.h"

namespace fcn {

template <class S>
class CornerSums {
public:
    static constexpr int kClasses = BlockMemory::kClasses;

    FCN_D CornerSums(const LossArgs<S>& args, const Place& p) : a(args) {
        const bool join_rows = a.rows.shared(), join_columns = a.columns.shared();
        const int slot_row = join_rows ? p.row : 2 * p.row, slot_column = join_columns ? p.column : 2 * p.column;
        int place = p.cell | p.piece << 8 | p.row << kRow;
        if (p.active) place |= kActive;
        if (join_columns && p.column > 0) place |= kLeft;
        if (join_rows && p.row > 0) place |= kUp;
        if (!join_columns || p.column == p.width - 1) place |= kRightEdge;
        if (!join_rows || p.row == p.height - 1) place |= kLowerEdge;
        float* out = nullptr;
        if (p.active && a.grad) {
            const int y = a.rows.corner(a.rows.cell_of_slot(p.tile_row, slot_row));
            const int x = a.columns.corner(a.columns.cell_of_slot(p.tile_column, slot_column));
            if (y >= 0 && x >= 0 && a.rows.inner(y) && a.columns.inner(x)) {
                out = a.grad + p.image * a.grad_stride[0] + y * a.grad_stride[2] + x * a.grad_stride[3];
            }
        }
        BlockMemory::here().place[threadIdx.x] = place;
        BlockMemory::here().out[threadIdx.x] = out;
    }

    // g: which of the kClasses classes.
    FCN_D void put(int g, const float (&sum)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) BlockMemory::here().corner_sums[odd_][g][i][threadIdx.x] = sum[i];
    }

    // Writes the `count` classes that begin with `first`, or adds them to what is there. All threads of the block call it.
    FCN_D void flush(int first, int count, bool add) {
        __syncthreads();
        const int place = BlockMemory::here().place[threadIdx.x];
        if (place & kActive) {
#pragma unroll 1
            for (int g = place >> 8 & 255; g < count; g += a.pieces) gather(BlockMemory::here().corner_sums[odd_][g], place, first + g, add);
        }
        odd_ ^= 1;
    }

private:
    static constexpr int kActive = 1 << 16, kLeft = 1 << 17, kUp = 1 << 18, kRightEdge = 1 << 19, kLowerEdge = 1 << 20, kRow = 21;

    FCN_D void gather(const float (&sums)[4][kThreads], int place, int c, bool add) const {
        const bool left = place & kLeft, up = place & kUp, right_edge = place & kRightEdge, lower_edge = place & kLowerEdge;
        const int cell = place & 255, width = a.columns.tile;
        float here = 0, right = 0, below = 0, across = 0;
#pragma unroll 1
        for (int i = cell; i < cell + a.pieces * a.cells; i += a.cells) {
            here += sums[0][i];
            if (left) here += sums[1][i - 1];
            if (up) here += sums[2][i - width];
            if (left && up) here += sums[3][i - width - 1];
            if (right_edge) {
                right += sums[1][i];
                if (up) right += sums[3][i - width];
            }
            if (lower_edge) {
                below += sums[2][i];
                if (left) below += sums[3][i - 1];
                if (right_edge) across += sums[3][i];
            }
        }
        float* const out = BlockMemory::here().out[threadIdx.x];
        if (out) write(out + c * a.grad_stride[1], here, add);
        if (out && !right_edge && !lower_edge) return;
        const int row = place >> kRow, column = cell - row * width;
        float* const part = a.corner_parts + (int64_t(blockIdx.x) * a.classes + c) * (a.rows.slots * a.columns.slots) +
                            (a.rows.shared() ? row : 2 * row) * a.columns.slots + (a.columns.shared() ? column : 2 * column);
        if (!out) write(part, here, add);
        if (right_edge) write(part + 1, right, add);
        if (lower_edge) write(part + a.columns.slots, below, add);
        if (right_edge && lower_edge) write(part + a.columns.slots + 1, across, add);
    }

    FCN_D static void write(float* at, float value, bool add) { *at = add ? *at + value : value; }

    const LossArgs<S>& a;
    int odd_ = 0;
};

}  // namespace fcn
