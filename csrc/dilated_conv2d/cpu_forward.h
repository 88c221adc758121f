// Convolution by Winograd's algorithm: tiles of the map to points, a matrix product at each point, and back.
#pragma once

#include "cpu_filters.h"

namespace fcn::FCN_ISA {

// Tiles are taken in blocks, few enough to leave the second-level cache seldom. At each point the tiles of a block are the
// left factor of a product with the filters.
template <class T>
class WinogradForward {
public:
    static constexpr int L = kLanes<T>, P = kPanel<T>;

    // `filters` transformed; `bias` may be null.
    WinogradForward(const Maps& maps, const T* filters, const T* bias, bool relu, int threads)
        : m(maps),
          reader(m.x, m.dilation),
          filters(filters),
          bias(bias),
          relu(relu),
          threads(threads),
          inputs(m.x.size[1]),
          outputs(m.out.size[1]),
          chunks(ceil_div(inputs, L)),
          panels(panels_of<T>(outputs)) {}

    // Whether all sums were finite. If not, the results are not those of a convolution: a transform spreads what is not
    // finite over its tile, and may overflow where a sum would not.
    bool run() {
        const Memory axes([&](Arena& arena) { tiles.allocate(arena, m.out); });
        tiles.cut(m.out, m.dilation);
        want_large_pages<T>(m.out);
        // Blocks of equal size, a multiple of the threads: results do not depend on how tiles are divided.
        const int64_t total = tiles.count(), rounds = ceil_div(ceil_div(total, block_tiles()), imax(1, threads));
        const int64_t most = ceil_div(total, rounds * imax(1, threads)), blocks = ceil_div(total, most);
        const int workers = int(imax(1, imin(threads, blocks)));
        Scratch* scratch;
        const Memory memory([&](Arena& arena) {
            scratch = arena.take<Scratch>(workers);
            for (int i = 0; i < workers; ++i) {
                const Scratch s = {arena.take<T>(kSquare * point_step(most)), arena.take<T>(panels * most * kSquare * P), true};
                if (scratch) scratch[i] = s;
            }
        });
        parallel_for(blocks, workers, [&](int64_t block, int thread) {
            run_block(block * most, imin(most, total - block * most), scratch[thread]);
        });
        bool finite = true;
        for (int i = 0; i < workers; ++i) finite &= scratch[i].finite;
        return finite;
    }

private:
    struct Scratch {
        T *input, *product;  // [point][block of rows][chunk][kBlockRows][L]; [panel][tile][point][P]
        bool finite;
    };

    // Terms that are added up one after the other: longer chains round more, and filters of this depth fit into the first-level
    // cache.
    static constexpr int64_t kMostTerms = 128;

    // Where all filters fit into the second-level cache, beside them there is room for one block of rows. Those that do not
    // come from further away for each block of tiles: the larger they are, the more tiles they should meet.
    int64_t block_tiles() const {
        const int64_t bytes = kSquare * panels * P * inputs * int64_t(sizeof(T));
        return (bytes <= (640 << 10) ? 1 : bytes <= (16 << 20) ? 2 : 4) * kBlockRows;
    }

    // A line more than what lies there: points a power of two apart would share a few sets of the cache.
    int64_t point_step(int64_t block) const { return ceil_div(block, kBlockRows) * kBlockRows * chunks * L + 64 / int64_t(sizeof(T)); }

    void run_block(int64_t first, int64_t count, Scratch& s) const {
        const int64_t step = point_step(count);
        for (int64_t t = 0; t < count; ++t) {
            const Tiles::Place at = tiles[first + t];
            T* row = s.input + t / kBlockRows * kBlockRows * chunks * L + t % kBlockRows * L;
            reader.read(at.image, at.row - m.before[0], at.column - m.before[1], [&](int64_t chunk) { return row + chunk * kBlockRows * L; }, step);
        }
        for (int point = 0; point < kSquare; ++point) {
            for (int64_t panel = 0; panel < panels; ++panel) multiply(point, panel, count, s);
        }
        for (int64_t t = 0; t < count; ++t) {
            const Tiles::Place at = tiles[first + t];
            for (int64_t panel = 0; panel < panels; ++panel) write(at, panel, s.product + (panel * count + t) * kSquare * P, s);
        }
    }

    void multiply(int point, int64_t panel, int64_t count, const Scratch& s) const {
        const T* right = filters + (point * panels + panel) * inputs * P;
        for (int64_t c = 0; c < inputs; c += kMostTerms, right += kMostTerms * P) {
            const int64_t depth = imin(kMostTerms, inputs - c);
            for (int64_t t = 0; t < count; t += kBlockRows) {
                const T* left = s.input + point * point_step(count) + t * chunks * L + c * kBlockRows;
                T* to = s.product + ((panel * count + t) * kSquare + point) * P;
                multiply_rows<Left::chunks, T>(imin(kBlockRows, count - t))(left, 0, right, P, to, kSquare * P, depth, c > 0);
            }
        }
    }

    void write(const Tiles::Place& at, int64_t panel, const T* product, Scratch& s) const {
        const Tensor& out = m.out;
        const int64_t row_step = m.dilation[0] * out.stride[2], column_step = m.dilation[1] * out.stride[3];
        const int rows = int(imin(kOutputs, ceil_div(out.size[2] - at.row, m.dilation[0])));
        const int columns = int(imin(kOutputs, ceil_div(out.size[3] - at.column, m.dilation[1])));
        T* corner = static_cast<T*>(out.data) + at.image * out.stride[0] + at.row * out.stride[2] + at.column * out.stride[3];
        for (int64_t o = panel * P; o < imin(outputs, (panel + 1) * P); o += L, product += L) {
            const int lanes = int(imin(L, outputs - o));
            const Vec<T> start = bias ? load_some(bias + o, lanes) : Vec<T>{};
            const Vec<T> finite = write_tile<T>(product, P, corner + o, row_step, column_step, rows, columns, lanes, start, relu);
            if (any(finite != finite)) s.finite = false;
        }
    }

    const Maps& m;
    const TileReader<T, kPoints> reader;
    const T *const filters, *const bias;
    const bool relu;
    const int threads;
    const int64_t inputs, outputs, chunks, panels;
    Tiles tiles;
};

}  // namespace fcn::FCN_ISA
