// What tiles share of a gradient, added up once all are done.
#pragma once

#include "cuda_block.h"

namespace fcn {

// Gradients of the coarse pixels that several tiles feed, or none. A thread has a pixel and kFinishClasses classes.
constexpr int kFinishClasses = 8;

template <class S>
FCN_D void finish_pixel(const LossArgs<S>& a, int64_t pixel, int first_class) {
    const int h = a.rows.input_size, w = a.columns.input_size;
    const int64_t row = pixel / w;
    const int x = int(pixel - row * w), image = int(row / h), y = int(row - int64_t(image) * h);
    if (image >= a.images || (a.rows.inner(y) && a.columns.inner(x))) return;
    const int64_t first_tile = int64_t(image) * a.rows.tiles * a.columns.tiles;
    const int stride = a.rows.slots * a.columns.slots;
    float sum[kFinishClasses] = {};
    a.rows.for_each_slot(y, [&](int tile_row, int slot_row) {
        a.columns.for_each_slot(x, [&](int tile_column, int slot_column) {
            const int64_t tile = first_tile + int64_t(tile_row) * a.columns.tiles + tile_column;
            const float* part = a.corner_parts + (tile * a.classes + first_class) * stride + slot_row * a.columns.slots + slot_column;
#pragma unroll
            for (int c = 0; c < kFinishClasses; ++c) sum[c] += first_class + c < a.classes ? part[c * stride] : 0.0f;
        });
    });
    float* grad = a.grad + image * a.grad_stride[0] + y * a.grad_stride[2] + x * a.grad_stride[3];
#pragma unroll
    for (int c = 0; c < kFinishClasses; ++c) {
        if (first_class + c < a.classes) grad[(first_class + c) * a.grad_stride[1]] = sum[c];
    }
}

}  // namespace fcn
