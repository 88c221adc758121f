// The gradient of the filters by Winograd's algorithm, which is the adjoint of the forward pass: at each point the product
// of all tiles of the map with the gradients of their outputs, summed over the tiles, and one transform of the sums.
#pragma once

#include "cpu_filters.h"

namespace fcn::FCN_ISA {

template <class T>
class WinogradWeightGradient {
public:
    static constexpr int L = kLanes<T>, P = kPanel<T>;
    // Rows of a register tile: a chunk of channels or a part of it, so that tiles lie as the transform stores them.
    static constexpr int kRows = L < kBlockRows / 2 + 1 ? L : kBlockRows >= 12 ? 8 : 4;

    // `maps.out` is the gradient of the output.
    WinogradWeightGradient(const Maps& maps, const Tensor& grad_weight, int threads)
        : m(maps),
          grad_weight(grad_weight),
          reader(m.x, m.dilation),
          grad_reader(m.out, m.dilation),
          threads(threads),
          inputs(m.x.size[1]),
          outputs(m.out.size[1]),
          chunks(ceil_div(inputs, L)),
          panels(panels_of<T>(outputs)) {}

    // Whether all is finite, as in WinogradForward.
    bool run() {
        const Memory axes([&](Arena& arena) { tiles.allocate(arena, m.out); });
        tiles.cut(m.out, m.dilation);
        const int64_t total = tiles.count();
        const Memory memory([&](Arena& arena) {
            x = arena.take<T>(kSquare * x_step());
            grad = arena.take<T>(kSquare * grad_step());
            sums = arena.take<T>(kSquare * sums_step());
        });
        // Lanes past the last output are never written.
        if (outputs % P != 0) std::memset(grad, 0, kSquare * grad_step() * sizeof(T));
        for (int64_t first = 0; first < total; first += kBlock) {
            const int64_t count = imin(kBlock, total - first);
            parallel_for(ceil_div(count, kShare), threads, [&](int64_t share, int) {
                for (int64_t t = share * kShare; t < imin(count, (share + 1) * kShare); ++t) read(first + t, t);
            });
            parallel_for(kSquare * panels, threads, [&](int64_t task, int) { multiply(task / panels, task % panels, count, first > 0); });
        }
        return gather_filters(sums, chunks * L * P, sums_step(), Filters<T>(grad_weight, false), threads);
    }

private:
    // Tiles between two visits of the sums, and how many of them a thread transforms at a time. Not a matter of how many
    // threads there are: sums over tiles come out the same bit for bit.
    static constexpr int64_t kBlock = 128, kShare = 8;

    // From point to point; a line more than what lies there, as in WinogradForward.
    static constexpr int64_t kLine = 64 / int64_t(sizeof(T));
    int64_t x_step() const { return chunks * kBlock * L + kLine; }
    int64_t grad_step() const { return panels * kBlock * P + kLine; }
    int64_t sums_step() const { return panels * chunks * L * P; }

    void read(int64_t tile, int64_t t) const {
        const Tiles::Place at = tiles[tile];
        reader.read(at.image, at.row - m.before[0], at.column - m.before[1], [&](int64_t chunk) { return x + (chunk * kBlock + t) * L; }, x_step());
        constexpr int V = kPanelVectors;
        grad_reader.read(at.image, at.row, at.column, [&](int64_t chunk) { return grad + (chunk / V * kBlock + t) * P + chunk % V * L; }, grad_step());
    }

    void multiply(int64_t point, int64_t panel, int64_t count, bool add) const {
        const T* right = grad + point * grad_step() + panel * kBlock * P;
        T* to = sums + point * sums_step() + panel * chunks * L * P;
        for (int64_t row = 0; row < chunks * L; row += kRows) {
            const T* left = x + point * x_step() + row / L * kBlock * L + row % L;
            multiply_block<Left::columns, kRows, T>(left, L, right, P, to + row * P, P, count, add);
        }
    }

    const Maps& m;
    const Tensor& grad_weight;
    const TileReader<T, kPoints> reader;
    const TileReader<T, kOutputs> grad_reader;
    const int threads;
    const int64_t inputs, outputs, chunks, panels;
    Tiles tiles;
    T *x, *grad, *sums;  // [point][chunk][tile][L], [point][panel][tile][P], [point][panel][input][P]
};

}  // namespace fcn::FCN_ISA
