// The gradient's way home: from sums at lanes to rows of the coarse grid, and rows that bands share.
#pragma once

#include "cells.h"

namespace fcn::FCN_ISA {

// Bands of runs of rows, and the corner rows that each touches.
struct BandedRows {
    Runs rows;
    Bands bands;

    int last_run(int band) const { return int(imin(int64_t(band + 1) * bands.runs, rows.count)) - 1; }
    int first_corner(int band) const { return rows.run[band * bands.runs].top; }
    int corner_rows(int band) const { return rows.run[last_run(band)].top + 2 - first_corner(band); }
};

// A thread's buffers for one row.
template <class T>
struct RowScratch {
    T *corner, *folded;  // at the column corners, one class; [C][w]
};

// Writes the gradient. Rows that one band touches are written by it; of the others each band keeps its part, and a
// second phase adds the parts in the bands' order, so that sums do not depend on threads.
template <class T>
class GradientRows {
public:
    void allocate_plan(Arena& arena, int64_t height) {
        first_band = arena.take<int32_t>(height);
        last_band = arena.take<int32_t>(height);
    }

    void allocate(Arena& arena, const BandedRows& r, const Tensor& grad) {
        shared = arena.take<T>(grad.size[0] * r.bands.count * r.bands.corners * grad.size[1] * grad.size[3]);
    }

    static void allocate(RowScratch<T>& s, Arena& arena, const Runs& columns, const Tensor& grad) {
        s.corner = arena.take<T>(columns.corners);
        s.folded = arena.take<T>(grad.size[1] * grad.size[3]);
    }

    void prepare(const BandedRows* banded_rows, const Runs* column_runs, const Tensor& gradient) {
        banded = banded_rows, columns = column_runs, grad = gradient;
        classes = int(grad.size[1]), height = grad.size[2], width = grad.size[3];
        for (int64_t y = 0; y < height; ++y) first_band[y] = last_band[y] = -1;
        for (int band = 0; band < banded->bands.count; ++band) {
            for (int r = 0; r < banded->corner_rows(band); ++r) {
                const int y = corner_row(band, r);
                if (y < 0) continue;
                if (first_band[y] < 0) first_band[y] = band;
                last_band[y] = band;
            }
        }
    }

    // From sums at lanes to rows of the gradient: slopes go to both corners, clamped corners to the edge.
    void fold(RowScratch<T>& s, const T* left, const T* slope, const Packed<T>& packed, int64_t n, int band) const {
        int open = -1;
        for (int r = 0; r < banded->corner_rows(band); ++r) {
            const int y = corner_row(band, r);
            if (y < 0) continue;
            if (y != open) {
                if (open >= 0) flush(s.folded, n, band, open);
                open = y;
                std::memset(s.folded, 0, sizeof(T) * classes * width);
            }
            for (int c = 0; c < classes; ++c) {
                fold_row(s.corner, left + packed.at(c, r), slope + packed.at(c, r), packed.lanes, s.folded + c * width);
            }
        }
        if (open >= 0) flush(s.folded, n, band, open);
    }

    // Rows that several bands add to, in the bands' order; rows that none touches are zero; all times a factor.
    void finish_row(int64_t n, int64_t y, T factor) const {
        const int first = first_band[y], last = last_band[y];
        if (first < 0) return write_row(n, y, [](int64_t) { return T(0); });
        if (first == last) {
            if (factor != 1) scale_row(n, y, factor);
            return;
        }
        T* sum = shared_row(n, first, int(y));
        for (int band = first + 1; band <= last; ++band) {
            const T* other = shared_row(n, band, int(y));
            for (int64_t i = 0; i < classes * width; ++i) sum[i] += other[i];
        }
        write_row(n, y, [&](int64_t i) { return factor * sum[i]; });
    }

private:
    int corner_row(int band, int r) const { return banded->rows.corner[banded->first_corner(band) + r]; }

    // Where band `band` of image n keeps its part of gradient row y, which other bands add to as well.
    T* shared_row(int64_t n, int band, int y) const {
        int slot = -1, last = -1;
        for (int r = 0; r < banded->corner_rows(band) && last != y; ++r) {
            const int here = corner_row(band, r);
            if (here >= 0 && here != last) ++slot, last = here;
        }
        return shared + ((n * banded->bands.count + band) * banded->bands.corners + slot) * classes * width;
    }

    void fold_row(T* corner, const T* left, const T* slope, int lanes, T* out) const {
        if (columns->one_per_cell) {
            corner[0] = left[0] - slope[0];
            for (int p = 1; p < lanes; ++p) corner[p] = (left[p] - slope[p]) + slope[p - 1];
            corner[lanes] = slope[lanes - 1];
        } else {
            std::memset(corner, 0, sizeof(T) * columns->corners);
            for (int p = 0; p < lanes; ++p) {
                const int top = columns->run[p].top;
                corner[top] += left[p] - slope[p];
                corner[top + 1] += slope[p];
            }
        }
        for (int i = 0; i < columns->corners; ++i) {
            if (columns->corner[i] >= 0) out[columns->corner[i]] += corner[i];
        }
    }

    void flush(const T* row, int64_t n, int band, int y) const {
        if (first_band[y] == last_band[y]) {
            write_row(n, y, [&](int64_t i) { return row[i]; });
        } else {
            std::memcpy(shared_row(n, band, y), row, sizeof(T) * classes * width);
        }
    }

    // at(i): number i of the row's [C][w].
    template <class F>
    void write_row(int64_t n, int64_t y, const F& at) const {
        T* out = row(n, y);
        for (int c = 0; c < classes; ++c, out += grad.stride[1]) {
            for (int64_t x = 0; x < width; ++x) out[x * grad.stride[3]] = at(c * width + x);
        }
    }

    void scale_row(int64_t n, int64_t y, T factor) const {
        T* out = row(n, y);
        for (int c = 0; c < classes; ++c, out += grad.stride[1]) {
            for (int64_t x = 0; x < width; ++x) out[x * grad.stride[3]] *= factor;
        }
    }

    T* row(int64_t n, int64_t y) const { return static_cast<T*>(grad.data) + n * grad.stride[0] + y * grad.stride[2]; }

    const BandedRows* banded;
    const Runs* columns;
    Tensor grad;
    int classes;
    int64_t height, width;
    int32_t *first_band, *last_band;  // [h]: the bands that touch a row of the gradient, or -1
    T* shared;
};

}  // namespace fcn::FCN_ISA
