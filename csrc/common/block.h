// One block: a vector of cells, all classes, up to 8 x 8 pixels a cell.
#pragma once

#include "cells.h"

namespace fcn::FCN_ISA {

constexpr int kMaxPixels = kMaxRun * kMaxRun;

template <class T>
struct Block {
    using V = Vec<T>;

    // Scores of the cells' upper corners for class 0, as Packed lays them out; the lower corners lie `below` further on.
    const T *left, *slope;
    T *grad_left, *grad_slope;  // the gradient's sums, alike; null when no gradient is wanted
    int64_t class_stride, below;
    int classes;
    bool finite;       // all scores are
    bool progressions;  // exponentials may be made as geometric progressions (progressions.h)

    V t_column, t_row;          // where each cell's first pixel lies between its corners
    V n_column, n_row;          // how many pixels each lane really has
    T column_step, row_step;    // from pixel to pixel, in cells
    int columns, rows;          // pixels looped over: the most that any lane has

    // Scratch.
    T* pixel;    // [pixel][lane]
    T* params;   // [class][4][lane]
    T* exps;     // [class][kMaxRun][lane]: exact path
};

// Adds a vector of column sums for one class to the corners' gradients.
template <class T>
inline void add_to(T* p, Vec<T> v) {
    store(p, load<T>(p) + v);
}

// Adds one class's sums over pixels of the gradient g, column * g, row * g and row * column * g, with positions in cells.
template <class T>
inline void add_to_corners(const Block<T>& b, int64_t at, Vec<T> s, Vec<T> column, Vec<T> row, Vec<T> both) {
    add_to(b.grad_left + at, s - row);
    add_to(b.grad_left + at + b.below, row);
    add_to(b.grad_slope + at, column - both);
    add_to(b.grad_slope + at + b.below, both);
}

// Mask of the lanes that have pixel (row, column).
template <class T>
inline auto has_pixel(const Block<T>& b, int row, int column) {
    return (splat(T(column)) < b.n_column) & (splat(T(row)) < b.n_row);
}

// f<K>() for K = b.columns: the loop along a row of pixels has a constant trip count.
template <class T, class F>
inline auto with_columns(const Block<T>& b, const F& f) {
    switch (b.columns) {
        case 1: return f(std::integral_constant<int, 1>{});
        case 2: return f(std::integral_constant<int, 2>{});
        case 3: return f(std::integral_constant<int, 3>{});
        case 4: return f(std::integral_constant<int, 4>{});
        case 5: return f(std::integral_constant<int, 5>{});
        case 6: return f(std::integral_constant<int, 6>{});
        case 7: return f(std::integral_constant<int, 7>{});
        default: return f(std::integral_constant<int, 8>{});
    }
}

}  // namespace fcn::FCN_ISA
