// Where the tiles of a convolution lie. A filter of dilation d sees every d-th pixel, so its output is d x d maps side by
// side, the phases, of which each is a convolution without dilation; tiles are cut from phases.
#pragma once

#include <cstdint>

#include "../common/arguments.h"
#include "../common/cells.h"
#include "cpu_transforms.h"

namespace fcn::FCN_ISA {

// The maps of a convolution as it is computed. The gradient of its input is one too, of filters turned round.
struct Maps {
    Tensor x, out;           // [N, I, H, W] with any strides; [N, O, H', W'], channels next to each other
    int64_t dilation[2];
    int64_t before[2];       // zeros above and left of x; less than none: rows and columns that are not looked at
};

// Large results are mostly memory that is fresh from the system.
template <class T>
inline void want_large_pages(const Tensor& out) {
    const int64_t bytes = out.size[0] * out.size[1] * out.size[2] * out.size[3] * int64_t(sizeof(T));
    if (bytes >= (8 << 20)) want_large_pages(out.data, bytes);
}

// Along one axis: the first output of each tile. They are a dilation apart inside it.
struct TileAxis {
    int32_t* first;
    int64_t count;

    static int64_t most(int64_t size) { return size; }

    void cut(int64_t size, int64_t dilation) {
        count = 0;
        for (int64_t phase = 0; phase < imin(dilation, size); ++phase) {
            for (int64_t y = phase; y < size; y += kOutputs * dilation) first[count++] = int32_t(y);
        }
    }
};

struct Tiles {
    TileAxis rows, columns;
    int64_t images;

    void allocate(Arena& arena, const Tensor& out) {
        rows.first = arena.take<int32_t>(TileAxis::most(out.size[2]));
        columns.first = arena.take<int32_t>(TileAxis::most(out.size[3]));
    }

    void cut(const Tensor& out, const int64_t* dilation) {
        images = out.size[0];
        rows.cut(out.size[2], dilation[0]);
        columns.cut(out.size[3], dilation[1]);
    }

    int64_t count() const { return images * rows.count * columns.count; }

    struct Place {
        int64_t image, row, column;  // of the first output
    };

    Place operator[](int64_t tile) const {
        const int64_t line = tile / columns.count;
        return {line / rows.count, rows.first[line % rows.count], columns.first[tile % columns.count]};
    }
};

}  // namespace fcn::FCN_ISA
