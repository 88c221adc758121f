// The loss's label term. loss = sum of weighted log-sum-exp - <scores, T>, with T the labels' bilinear-weighted histogram
// on the coarse grid; the gradient is the softmax part less T. Only pixels' labels are read here, no exponentials.
#pragma once

#include "../common/kernels.h"
#include "block.h"

namespace fcn::FCN_ISA {

// What the labels of a band add up to.
template <class T>
struct LabelSums {
    double score = 0, weight = 0;  // <scores, T> and the sum of class weight x pixel weight
    int64_t bad_pixel = -1;
};

template <class T>
struct LabelOptions {
    const T* class_weight;   // [C] or null
    const T* smoothing;      // [C] label_smoothing / C * class weight, or null
    T hard;                  // 1 - label_smoothing
    T smoothing_total;       // sum of `smoothing`
    int64_t ignore_index;
};

// The pixels of one cell (or piece of one) and where its sums go.
template <class T>
struct Cell {
    const Run *row, *column;
    T *smooth_left, *smooth_slope;  // at its upper left corner: the smoothing term's sums, which all classes share
};

// Adds pixels of one label: `n` of them, with sums `column`, `row`, `both` of their positions between the corners and of
// the positions' product. i: the upper left corner, for class `label`.
template <class T>
inline void add_label(const Block<T>& b, int64_t i, T scale, T n, T column, T row, T both, double& score) {
    const T left_up = n - row, slope_up = column - both;
    const auto sum = [&](auto times) {
        return times(left_up, b.left[i]) + times(slope_up, b.slope[i]) + times(row, b.left[i + b.below]) + times(both, b.slope[i + b.below]);
    };
    if (b.finite) {
        score += double(scale) * double(sum(times<true, T>));
    } else {
        score += times(double(scale), double(sum(times<false, T>)));
    }
    if (b.grad_left) {
        b.grad_left[i] -= scale * left_up;
        b.grad_slope[i] -= scale * slope_up;
        b.grad_left[i + b.below] -= scale * row;
        b.grad_slope[i + b.below] -= scale * both;
    }
}

template <class T>
inline void add_smoothing(const Block<T>& b, const Cell<T>& cell, T scale, T n, T column, T row, T both) {
    cell.smooth_left[0] += scale * (n - row);
    cell.smooth_slope[0] += scale * (column - both);
    cell.smooth_left[b.below] += scale * row;
    cell.smooth_slope[b.below] += scale * both;
}

// Whether all labels of the cell are the same. The full-width loop has a constant trip count, so it becomes vectors.
template <class S>
inline bool one_label(const S* labels, int64_t row_stride, int rows, int columns) {
    const S first = labels[0];
    S differ = 0;
    for (int y = 0; y < rows; ++y, labels += row_stride) {
        if (columns == kMaxRun) {
            for (int x = 0; x < kMaxRun; ++x) differ |= S(labels[x] ^ first);
        } else {
            for (int x = 0; x < columns; ++x) differ |= S(labels[x] ^ first);
        }
    }
    return differ == 0;
}

// The label term of one cell. Returns whether some pixel is left out, so that the block needs coefficients.
// labels and pixel_weight (or null) point at the cell's first pixel.
template <class T, class S>
bool add_cell(const Block<T>& b, int lane, const Cell<T>& cell, const LabelOptions<T>& o, const S* labels, int64_t row_stride,
              int64_t column_stride, const T* pixel_weight, const int64_t* weight_stride, int64_t first_pixel,
              int64_t image_width, LabelSums<T>& sums) {
    const int rows = cell.row->count, columns = cell.column->count;
    const T column_t = T(cell.column->t), row_t = T(cell.row->t);
    const auto add = [&](int64_t label, T pixel, T n, T column, T row, T both) {
        const T w = pixel * (o.class_weight ? o.class_weight[label] : T(1));
        add_label(b, label * b.class_stride + lane, o.hard * w, n, column, row, both, sums.score);
        if (o.smoothing) add_smoothing(b, cell, pixel, n, column, row, both);
        sums.weight += double(w) * double(n);
    };
    if (!pixel_weight && column_stride == 1 && one_label(labels, row_stride, rows, columns)) {
        const int64_t label = int64_t(labels[0]);
        if (label != o.ignore_index && label >= 0 && label < b.classes) {
            const T n_c = T(columns), n_r = T(rows);
            const T column = n_c * column_t + b.column_step * (n_c * (n_c - 1) / 2);
            const T row = n_r * row_t + b.row_step * (n_r * (n_r - 1) / 2);
            add(label, T(1), n_c * n_r, n_r * column, n_c * row, column * row);
            return false;
        }
    }
    bool left_out = false;
    for (int y = 0; y < rows; ++y) {
        const T here = row_t + T(y) * b.row_step;
        for (int x = 0; x < columns;) {
            const int64_t label = int64_t(labels[y * row_stride + x * column_stride]);
            int end = x + 1;
            if (!pixel_weight) {  // a run of equal labels at once
                while (end < columns && int64_t(labels[y * row_stride + end * column_stride]) == label) ++end;
            }
            if (label == o.ignore_index) {
                left_out = true;
            } else if (label < 0 || label >= b.classes) {
                left_out = true;
                const int64_t pixel = first_pixel + y * image_width + x;
                if (sums.bad_pixel < 0 || pixel < sums.bad_pixel) sums.bad_pixel = pixel;
            } else {
                const T pixel = pixel_weight ? pixel_weight[y * weight_stride[0] + x * weight_stride[1]] : T(1);
                const T n = T(end - x);
                const T column = n * column_t + b.column_step * (n * T(x + end - 1) / 2);
                if (pixel != T(0)) add(label, pixel, n, column, n * here, column * here);
            }
            x = end;
        }
    }
    return left_out;
}

// One cell's column of the block's coefficients: the weight of each pixel's log-sum-exp.
template <class T, class S>
void fill_coefficients(const Block<T>& b, const Cell<T>& cell, const LabelOptions<T>& o, const S* labels, int64_t row_stride,
                       int64_t column_stride, const T* pixel_weight, const int64_t* weight_stride, T* coefficient) {
    for (int y = 0; y < cell.row->count; ++y) {
        for (int x = 0; x < cell.column->count; ++x) {
            const int64_t label = int64_t(labels[y * row_stride + x * column_stride]);
            T w = 0;
            if (label != o.ignore_index && label >= 0 && label < b.classes) {
                w = o.hard * (o.class_weight ? o.class_weight[label] : T(1)) + o.smoothing_total;
                if (pixel_weight) w *= pixel_weight[y * weight_stride[0] + x * weight_stride[1]];
            }
            coefficient[(y * b.columns + x) * kLanes<T>] = w;
        }
    }
}

}  // namespace fcn::FCN_ISA
