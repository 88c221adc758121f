// Convolution of a few input channels, as of an image: the taps of some pixels side by side, and one matrix product.
#pragma once

#include "../common/parallel.h"
#include "cpu_geometry.h"
#include "cpu_product.h"

namespace fcn::FCN_ISA {

template <class T>
class FewInputs {
public:
    static constexpr int L = kLanes<T>, P = kPanel<T>;

    FewInputs(const Maps& maps, const Tensor& weight, const T* bias, bool relu, int threads)
        : m(maps),
          weight(weight),
          bias(bias),
          relu(relu),
          threads(threads),
          depth(weight.size[1] * weight.size[2] * weight.size[3]),
          panels(ceil_div(weight.size[0], P)) {}

    void run() {
        const Tensor& out = m.out;
        const int64_t lines = out.size[0] * out.size[2], share = ceil_div(2048, out.size[3]), shares = ceil_div(lines, share);
        const int workers = int(imax(1, imin(threads, shares)));
        Scratch* scratch;
        const Memory memory([&](Arena& arena) {
            filters = arena.take<T>(panels * depth * P);
            taps = arena.take<Tap>(depth);
            offset = arena.take<int64_t>(depth);
            place = arena.take<int32_t>(depth);
            scratch = arena.take<Scratch>(workers);
            for (int i = 0; i < workers; ++i) {
                const Scratch s = {arena.take<T>(ceil_div(depth, L) * kBlockRows * L), arena.take<T>(kBlockRows * P)};
                if (scratch) scratch[i] = s;
            }
        });
        arrange();
        want_large_pages<T>(out);
        parallel_for(shares, workers, [&](int64_t task, int thread) {
            for (int64_t line = task * share; line < imin(lines, (task + 1) * share); ++line) {
                for (int64_t x = 0; x < out.size[3]; x += kBlockRows) run_block(line / out.size[2], line % out.size[2], x, scratch[thread]);
            }
        });
    }

private:
    struct Tap {
        int64_t row, column;  // from the first
    };
    struct Scratch {
        T *left, *sums;
    };

    // Depth runs over rows, columns and channels, as pixels lie in memory.
    void arrange() {
        const int64_t channels = weight.size[1], width = weight.size[3];
        for (int64_t k = 0; k < depth; ++k) {
            const int64_t i = k / (width * channels), j = k / channels % width, c = k % channels;
            const int64_t row = i * m.dilation[0], column = j * m.dilation[1];
            taps[k] = {row, column};
            offset[k] = row * m.x.stride[2] + column * m.x.stride[3] + c * m.x.stride[1];
            place[k] = int32_t(k / L * kBlockRows * L + k % L);
            const T* from = static_cast<const T*>(weight.data) + c * weight.stride[1] + i * weight.stride[2] + j * weight.stride[3];
            for (int64_t o = 0; o < panels * P; ++o) {
                filters[(o / P * depth + k) * P + o % P] = o < weight.size[0] ? from[o * weight.stride[0]] : T(0);
            }
        }
    }

    void run_block(int64_t image, int64_t y, int64_t first, const Scratch& s) const {
        const Tensor& out = m.out;
        const int64_t count = imin(kBlockRows, out.size[3] - first), top = y - m.before[0];
        const T* line = static_cast<const T*>(m.x.data) + image * m.x.stride[0] + top * m.x.stride[2];
        const bool rows_inside = top >= 0 && top + taps[depth - 1].row < m.x.size[2];
        for (int64_t p = 0; p < count; ++p) {
            const int64_t left = first + p - m.before[1];
            const bool inside = rows_inside && left >= 0 && left + taps[depth - 1].column < m.x.size[3];
            const T* from = line + left * m.x.stride[3];
            T* to = s.left + p * L;
            if (inside) {
                for (int64_t k = 0; k < depth; ++k) to[place[k]] = from[offset[k]];
                continue;
            }
            for (int64_t k = 0; k < depth; ++k) {
                const int64_t row = top + taps[k].row, column = left + taps[k].column;
                const bool seen = row >= 0 && row < m.x.size[2] && column >= 0 && column < m.x.size[3];
                to[place[k]] = seen ? from[offset[k]] : T(0);
            }
        }
        T* pixels = static_cast<T*>(out.data) + image * out.stride[0] + y * out.stride[2] + first * out.stride[3];
        for (int64_t panel = 0; panel < panels; ++panel) {
            const T* right = filters + panel * depth * P;
            multiply_rows<Left::chunks, T>(count)(s.left, 0, right, P, s.sums, P, depth, false);
            for (int64_t o = 0; o < imin(P, out.size[1] - panel * P); o += L) {
                const int lanes = int(imin(L, out.size[1] - panel * P - o));
                const Vec<T> start = bias ? load_some(bias + panel * P + o, lanes) : Vec<T>{};
                for (int64_t p = 0; p < count; ++p) {
                    Vec<T> v = load(s.sums + p * P + o) + start;
                    if (relu) v = Vec<T>{} > v ? Vec<T>{} : v;
                    T* to = pixels + p * out.stride[3] + panel * P + o;
                    lanes == L ? store(to, v) : store_some(to, v, lanes);
                }
            }
        }
    }

    const Maps& m;
    const Tensor& weight;
    const T* const bias;
    const bool relu;
    const int threads;
    const int64_t depth, panels;
    T* filters;  // [panel][tap][P]
    Tap* taps;
    int64_t* offset;  // of a tap's number in the map from that of the first
    int32_t* place;   // in the left factor, of the first pixel of a block
};

}  // namespace fcn::FCN_ISA
