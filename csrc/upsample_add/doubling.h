// The factor 2 of FCN's skip fusion: two pixels to every cell of a row, made a vector of cells at a time.
#pragma once

#include "../common/cells.h"
#include "../common/rows.h"

namespace fcn::FCN_ISA {

// Runs of columns, `count` of them, that hold two pixels each and lie between input pixels that follow one another.
struct Doubling {
    int first = 0, count = 0;

    void find(const Runs& columns) {
        first = count = 0;
        if (columns.slope != 0.5 || !columns.one_per_cell) return;
        const auto whole = [&](int p) {
            const int left = columns.corner[p];
            return columns.run[p].count == 2 && left >= 0 && columns.corner[p + 1] == left + 1;
        };
        while (first < columns.count && !whole(first)) ++first;
        while (first + count < columns.count && whole(first + count)) ++count;
    }
};

// One row expanded. There must be a vector of doubled cells at least.
template <class T, class S>
inline void double_row(T* to, const S* from, const Runs& columns, const Doubling& doubling) {
    constexpr int L = kLanes<T>;
    const T step = T(columns.slope);
    const auto corner = [&](int q) { return columns.corner[q] < 0 ? T(0) : T(to_number(from[columns.corner[q]])); };
    const auto edge = [&](int begin, int end) {
        for (int p = begin; p < end; ++p) {
            const Run& run = columns.run[p];
            const T left = corner(p), slope = corner(p + 1) - left;
            for (int k = 0; k < run.count; ++k) to[run.first + k] = left + (T(run.t) + T(k) * step) * slope;
        }
    };
    edge(0, doubling.first);
    const Run& first = columns.run[doubling.first];
    const S* const corners = from + columns.corner[doubling.first];
    const T even = T(first.t), odd = even + step;
    for (int p = 0; p < doubling.count; p += L) {
        const int at = p < doubling.count - L ? p : doubling.count - L;  // the last vector overlaps the one before
        const Vec<T> left = load_numbers<T>(corners + at), slope = load_numbers<T>(corners + at + 1) - left;
        Vec<T> low, high;
        interleave<T>(left + even * slope, left + odd * slope, low, high);
        store(to + first.first + 2 * at, low);
        store(to + first.first + 2 * at + L, high);
    }
    edge(doubling.first + doubling.count, columns.count);
}

}  // namespace fcn::FCN_ISA
