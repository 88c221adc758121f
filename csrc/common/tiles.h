// Tiles of cells, one for each block of threads.
#pragma once

#include "patches.h"

namespace fcn {

constexpr int kThreads = 256;  // of a block, at most

// One axis cut into tiles of units. A tile's corners are its slots. In a sum over pixels, a corner whose input pixel one
// slot of the axis alone feeds, from both sides, is `inner`: its block has the whole sum.
struct TiledAxis : AxisPatches {
    int tile, tiles, slots;  // units of a tile; tiles; corners of a tile
    Divisor by_tile;

    TiledAxis() = default;
    TiledAxis(const AxisPatches& patches, int units_of_a_tile)
        : AxisPatches(patches),
          tile(units_of_a_tile),
          tiles(int(ceil_div(units, units_of_a_tile))),
          slots(shared() ? tile + 1 : 2 * tile),
          by_tile(units_of_a_tile) {}

    FCN_HD int units_in(int t) const { return units - t * tile < tile ? units - t * tile : tile; }
    FCN_HD int slots_in(int t) const { return shared() ? units_in(t) + 1 : 2 * units_in(t); }

    // The corner of the axis at a slot.
    FCN_HD int64_t cell_of_slot(int t, int slot) const {
        if (shared()) return first_cell + t * tile + slot;
        return cell_of_unit(t * tile + slot / 2) + slot % 2;
    }

    FCN_HD bool inner(int pixel) const {
        if (!shared()) return false;
        const int64_t corner = pixel - first_cell;
        if (corner <= 0 || corner >= units) return false;
        if (clamp && ((pixel == 0 && first_cell < 0) || (pixel == input_size - 1 && last_cell >= input_size - 1))) return false;
        return int(corner) != int(by_tile.divide(uint32_t(corner))) * tile;
    }

    // f(tile, slot) for each slot whose corner is `pixel`, in order.
    template <class F>
    FCN_D void for_each_slot(int pixel, const F& f) const {
        const bool from_start = clamp && pixel == 0, to_end = clamp && pixel == input_size - 1;
        const int64_t last_corner = last_cell + 1;
        const int64_t from = from_start || pixel < first_cell ? first_cell : pixel;
        const int64_t to = to_end || pixel > last_corner ? last_corner : pixel;
        if (shared()) {
            for (int64_t cell = from; cell <= to; ++cell) {
                if (corner(cell) != pixel) continue;
                const int at = int(cell - first_cell), t = int(by_tile.divide(uint32_t(at)));
                if (at == t * tile && t > 0) f(t - 1, tile);
                if (at < units || at > t * tile) f(t, at - t * tile);
            }
        } else {
            int64_t unit, end;
            if (per_cell > 0) {
                unit = from - 1 > first_cell ? (from - 1 - first_cell) * per_cell : 0;
                end = to < last_cell ? (to - first_cell + 1) * per_cell : units;
            } else {
                unit = begin_of_cell(from - 1), end = begin_of_cell(to + 1);
            }
            for (; unit < end; ++unit) {
                const int64_t cell = cell_of_unit(int(unit));
                const int t = int(by_tile.divide(uint32_t(unit))), slot = 2 * (int(unit) - t * tile);
                if (corner(cell) == pixel) f(t, slot);
                if (corner(cell + 1) == pixel) f(t, slot + 1);
            }
        }
    }
};

// Both axes: the tile shape that costs the fewest threads, with something for the corners at its edges.
struct Tiling {
    TiledAxis rows, columns;
    int threads;  // of a block
    int64_t blocks;

    Tiling(const AxisPatches& down, const AxisPatches& across, int64_t images) {
        const int pieces = down.pieces * across.pieces;
        const int64_t patches = images * down.units * across.units * pieces;
        int capacity = kThreads;  // smaller blocks where there are few
        while (capacity > 64 && capacity / 2 >= pieces && patches / capacity < 264) capacity /= 2;
        const int cells = capacity / pieces;
        double best = 0;
        int height = 0, width = 0;
        for (int wide = 1; wide <= cells && wide <= across.units; ++wide) {
            const int w = int(ceil_div(across.units, ceil_div(across.units, wide)));
            const int tall = cells / w < down.units ? cells / w : down.units;
            const int h = int(ceil_div(down.units, ceil_div(down.units, tall)));
            const double tiles = double(ceil_div(across.units, w)) * double(ceil_div(down.units, h));
            const double cost = tiles * double(ceil_div(int64_t(w) * h * pieces, 32) * 32 + 4 * (w + h));
            if (height == 0 || cost < best) best = cost, height = h, width = w;
        }
        rows = TiledAxis(down, height), columns = TiledAxis(across, width);
        threads = int(ceil_div(int64_t(height) * width * pieces, 32) * 32);
        blocks = images * rows.tiles * columns.tiles;
        if (blocks >= (int64_t(1) << 31)) throw std::invalid_argument("too many pixels for one launch");
    }
};

// The power of two that covers the runs of both axes.
inline int patch_columns(const AxisPatches& down, const AxisPatches& across) {
    int result = 1;
    while (result < across.length || result < down.length) result *= 2;
    return result;
}

}  // namespace fcn
