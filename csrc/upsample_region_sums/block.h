// A block of region sums. In forward every class's sums over pixels of [y=c] p, of p (or p^2) and of [y=c] are made, in
// backward the gradient of those that are weighed: with w_c = a_c [y=c] + b_c (or 2 b_c p_c), that of a score at a pixel is
// p_c (w_c - sum over k of p_k w_k).
#pragma once

#include "../common/block.h"

namespace fcn::FCN_ISA {

template <class T>
struct RegionBlock : Block<T> {
    // Labels of the pixels, [pixel][lane]; -1 where a pixel counts nowhere, or is none. `present`: those that occur.
    const Int<T>* label;
    const int32_t* present;
    int presents;
    bool squared;

    // Forward, [class][lane]: sums of [y=c] p, of p or p^2, of [y=c].
    T *intersection, *prediction, *count;

    // Backward, [class]: the incoming gradients a of intersections and b of predictions.
    const T *weight_intersection, *weight_prediction;

    T* other;  // scratch, [pixel][lane]
};

template <class T>
inline Vec<Int<T>> labels_of(const RegionBlock<T>& b, int row, int column) {
    return load(b.label + (row * b.columns + column) * kLanes<T>);
}

// 1 / sum of exponentials, 0 where the pixel counts nowhere.
template <class T>
inline Vec<T> inverse(Vec<Int<T>> label, Vec<T> s) {
    const auto counts = label >= 0;
    return counts ? reciprocal(counts ? s : splat(T(1))) : Vec<T>{};
}

// f(c, known) for each class c; known: whether pixels of the block have this label.
template <class T, class F>
inline void for_each_class(const RegionBlock<T>& b, const F& f) {
    int next = 0;
    for (int c = 0; c < b.classes; ++c) {
        const bool known = next < b.presents && b.present[next] == c;
        next += known;
        f(c, known);
    }
}

}  // namespace fcn::FCN_ISA
