// The labels of a block, by pixel and lane.
#pragma once

#include "block.h"

namespace fcn::FCN_ISA {

// Which labels occur in a block, in order.
class Present {
public:
    void allocate(Arena& arena, int classes) {
        seen_ = arena.take<uint8_t>(classes);
        list_ = arena.take<int32_t>(classes);
    }
    void clear(int classes) { std::memset(seen_, 0, classes); }
    void add(int64_t label) { seen_[label] = 1; }

    // Makes the list, forgets what was seen, and returns how many there are.
    int collect(int classes) {
        int count = 0;
        for (int c = 0; c < classes; ++c) {
            if (seen_[c]) list_[count++] = c, seen_[c] = 0;
        }
        return count;
    }
    const int32_t* list() const { return list_; }

private:
    uint8_t* seen_;
    int32_t* list_;
};

struct LabelMap {
    const Tensor& target;
    int64_t ignore_index;
    int classes;
};

// One cell's column of the block's labels. Returns the first pixel (flat index) with a label out of range, or -1.
template <class T, class S>
int64_t fill_labels(const LabelMap& map, int64_t n, const Run& row, const Run& column, int columns, Int<T>* to, Present& present) {
    const Tensor& t = map.target;
    const S* from = static_cast<const S*>(t.data) + n * t.stride[0] + row.first * t.stride[1] + column.first * t.stride[2];
    int64_t bad = -1;
    for (int y = 0; y < row.count; ++y, from += t.stride[1], to += columns * kLanes<T>) {
        for (int x = 0; x < column.count; ++x) {
            const int64_t label = int64_t(from[x * t.stride[2]]);
            if (label == map.ignore_index) continue;
            if (label < 0 || label >= map.classes) {
                if (bad < 0) bad = (n * t.size[1] + row.first + y) * t.size[2] + column.first + x;
                continue;
            }
            to[x * kLanes<T>] = Int<T>(label);
            present.add(label);
        }
    }
    return bad;
}

}  // namespace fcn::FCN_ISA
