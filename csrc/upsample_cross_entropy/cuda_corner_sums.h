// The gradient's sums at corners, from the threads of a block to memory.
//
// A coarse pixel's gradient is the sum over the cells around it, and over the pieces of each. Threads lay the sums of
// kClasses classes into shared memory, meet, and each adds what belongs to the upper left corner of its cell, for one of
// the classes; cells at the right and lower edge of the tile have more corners to add up. Always in the same order.
#pragma once

#include "cuda_block.h"

namespace fcn {

class CornerSums {
public:
    static constexpr int kClasses = 4;
    static constexpr int kFloats = 2 * kClasses * 4 * kThreads;  // shared memory; two halves take turns: one barrier a time

    template <class S>
    FCN_D CornerSums(const LossArgs<S>& a, const Place& p, float* memory)
        : shared_(memory), cells_(p.cells), pieces_(p.pieces), piece_(p.piece), cell_(p.cell), width_(a.columns.tile) {
        const bool join_rows = a.rows.shared(), join_columns = a.columns.shared();
        left_ = join_columns && p.column > 0;
        up_ = join_rows && p.row > 0;
        right_edge_ = !join_columns || p.column == p.width - 1;
        lower_edge_ = !join_rows || p.row == p.height - 1;
        gathers_ = p.active;
        const int slot_row = join_rows ? p.row : 2 * p.row, slot_column = join_columns ? p.column : 2 * p.column;
        part_row_ = a.columns.slots;
        part_stride_ = a.rows.slots * a.columns.slots;
        part_ = a.corner_parts + int64_t(blockIdx.x) * a.classes * part_stride_ + slot_row * part_row_ + slot_column;
        out_ = part_, out_stride_ = part_stride_;
        if (!p.active) return;
        const int y = a.rows.corner(a.rows.cell_of_slot(p.tile_row, slot_row));
        const int x = a.columns.corner(a.columns.cell_of_slot(p.tile_column, slot_column));
        if (y >= 0 && x >= 0 && a.rows.inner(y) && a.columns.inner(x)) {
            out_ = a.grad + p.image * a.grad_stride[0] + y * a.grad_stride[2] + x * a.grad_stride[3];
            out_stride_ = a.grad_stride[1];
        }
    }

    // g: which of the kClasses classes.
    FCN_D void put(int g, const float (&sum)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) half()[(g * 4 + i) * kThreads + int(threadIdx.x)] = sum[i];
    }

    // Writes the `count` classes that begin with `first`, or adds them to what is there. All threads of the block call it.
    FCN_D void flush(int first, int count, bool add) {
        __syncthreads();
        if (gathers_) {
            for (int g = piece_; g < count; g += pieces_) gather(half() + g * 4 * kThreads, first + g, add);
        }
        odd_ = !odd_;
    }

private:
    FCN_D float* half() const { return shared_ + (odd_ ? kFloats / 2 : 0); }

    FCN_D void gather(const float* sums, int c, bool add) const {
        const float *upper_left = sums, *upper_right = sums + kThreads, *lower_left = sums + 2 * kThreads;
        const float* lower_right = sums + 3 * kThreads;
        float here = 0, right = 0, below = 0, across = 0;
        for (int i = cell_; i < cell_ + pieces_ * cells_; i += cells_) {
            here += upper_left[i];
            if (left_) here += upper_right[i - 1];
            if (up_) here += lower_left[i - width_];
            if (left_ && up_) here += lower_right[i - width_ - 1];
            if (right_edge_) {
                right += upper_right[i];
                if (up_) right += lower_right[i - width_];
            }
            if (lower_edge_) {
                below += lower_left[i];
                if (left_) below += lower_right[i - 1];
                if (right_edge_) across += lower_right[i];
            }
        }
        write(out_ + c * out_stride_, here, add);
        float* part = part_ + int64_t(c) * part_stride_;
        if (right_edge_) write(part + 1, right, add);
        if (lower_edge_) write(part + part_row_, below, add);
        if (right_edge_ && lower_edge_) write(part + part_row_ + 1, across, add);
    }

    FCN_D static void write(float* at, float value, bool add) { *at = add ? *at + value : value; }

    float *shared_, *out_, *part_;
    int64_t out_stride_;
    int cells_, pieces_, piece_, cell_, width_, part_row_, part_stride_;
    bool left_, up_, right_edge_, lower_edge_, gathers_, odd_ = false;
};

}  // namespace fcn
