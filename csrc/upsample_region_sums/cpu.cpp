// upsample_region_sums on CPUs: bands of cells in parallel, blocks of cells within a band, the gradient gathered.
#include "cpu.h"

#include "../common/walk.h"
#include "exact.h"
#include "geometric.h"
#include "labels.h"

namespace fcn::FCN_ISA {
namespace {

template <class T, int K>
void run_block(const RegionBlock<T>& b) {
    if (b.grad_left) {
        if (b.progressions) return b.squared ? geometric_gradient<T, K, true>(b) : geometric_gradient<T, K, false>(b);
        return b.finite ? exact_gradient<T, K, true>(b) : exact_gradient<T, K, false>(b);
    }
    if (b.progressions) return geometric_sums<T, K>(b);
    return b.finite ? exact_sums<T, K, true>(b) : exact_sums<T, K, false>(b);
}

// A thread's working memory.
template <class T>
struct Scratch {
    WalkScratch<T> walk;
    Present present;
    Int<T>* label;  // [pixel][lane]
    T* other;
    T* sums;  // [3][class][lane], of a band
};

struct BandResult {
    int64_t bad_pixel, exact_blocks, blocks;
};

template <class T>
class RegionSums {
public:
    explicit RegionSums(const UpsampleRegionSumsArgs& args) : a(args), walk(a.x, a.grad, a.grid), classes(walk.classes) {
        walk.exact = a.exact;
        if (a.squared) walk.lowest = T(kLowestSquared);
    }

    UpsampleRegionSumsResult run() {
        Memory plan_memory([&](Arena& arena) { walk.allocate_plan(arena); });
        walk.plan();
        const int64_t tasks = walk.bands();
        const int bands = walk.banded.bands.count, threads = int(imax(1, imin(a.threads, tasks)));
        Memory memory([&](Arena& arena) {
            results = arena.take<BandResult>(tasks);
            sums = arena.take<double>(tasks * 3 * classes);
            walk.allocate(arena);
            scratch = arena.take<Scratch<T>>(threads);
            for (int t = 0; t < threads; ++t) {
                Scratch<T> s;
                allocate(s, arena);
                if (scratch) scratch[t] = s;
            }
        });
        for (int t = 0; t < threads; ++t) scratch[t].present.clear(classes);
        walk.prepare();
        parallel_for(tasks, threads, [&](int64_t task, int thread) {
            with_label_dtype(a.target.dtype, [&](auto* type) {
                using S = std::remove_pointer_t<decltype(type)>;
                results[task] = run_band<S>(scratch[thread], task / bands, int(task % bands));
            });
        });
        if (a.sums.data) write_sums(bands);
        walk.finish(threads, T(1));
        UpsampleRegionSumsResult total{-1, 0, 0};
        for (int64_t task = 0; task < tasks; ++task) {
            if (total.bad_pixel < 0) total.bad_pixel = results[task].bad_pixel;
            total.exact_blocks += results[task].exact_blocks;
            total.blocks += results[task].blocks;
        }
        return total;
    }

private:
    void allocate(Scratch<T>& s, Arena& arena) const {
        constexpr int L = kLanes<T>;
        walk.allocate(s.walk, arena);
        s.present.allocate(arena, classes);
        s.label = arena.take<Int<T>>(kMaxPixels * L);
        s.other = arena.take<T>(kMaxPixels * L);
        s.sums = arena.take<T>(int64_t(3) * classes * L);
    }

    template <class S>
    BandResult run_band(Scratch<T>& s, int64_t n, int band) const {
        constexpr int L = kLanes<T>;
        walk.open_band(s.walk, n, band);
        std::memset(s.sums, 0, sizeof(T) * 3 * classes * L);
        BandResult result{-1, 0, 0};
        {
            const FlushSubnormals flush;
            walk.template for_each_block<RegionBlock<T>>(s.walk, band, [&](RegionBlock<T>& b, const Place& place) {
                const int64_t bad = add_labels<S>(s, b, n, place);
                if (bad >= 0 && (result.bad_pixel < 0 || bad < result.bad_pixel)) result.bad_pixel = bad;
                b.squared = a.squared;
                b.intersection = s.sums;
                b.prediction = s.sums + classes * L;
                b.count = s.sums + 2 * classes * L;
                b.weight_intersection = weight(0, n);
                b.weight_prediction = weight(1, n);
                b.other = s.other;
                if (b.presents > 0) {
                    with_columns(b, [&](auto columns) { run_block<T, decltype(columns)::value>(b); });
                }
                result.exact_blocks += !b.progressions;
                result.blocks += 1;
            });
        }
        double* to = sums + (n * walk.banded.bands.count + band) * 3 * classes;
        for (int i = 0; i < 3 * classes; ++i) to[i] = double(sum<T>(load<T>(s.sums + i * L)));
        walk.close_band(s.walk, n, band);
        return result;
    }

    // Of intersections (0) or predictions (1) of image n.
    const T* weight(int which, int64_t n) const {
        return a.weights.data ? static_cast<const T*>(a.weights.data) + (which * walk.images + n) * classes : nullptr;
    }

    template <class S>
    int64_t add_labels(Scratch<T>& s, RegionBlock<T>& b, int64_t n, const Place& place) const {
        const LabelMap map{a.target, a.ignore_index, classes};
        std::memset(s.label, 0xff, sizeof(Int<T>) * b.rows * b.columns * kLanes<T>);  // -1
        int64_t first_bad = -1;
        walk.for_each_cell(place, [&](const Run& row, const Run& column, int lane) {
            const int64_t bad = fill_labels<T, S>(map, n, row, column, b.columns, s.label + lane, s.present);
            if (bad >= 0 && (first_bad < 0 || bad < first_bad)) first_bad = bad;
        });
        b.label = s.label;
        b.presents = s.present.collect(classes);
        b.present = s.present.list();
        return first_bad;
    }

    // Each image's bands in order, whatever thread made them.
    void write_sums(int bands) const {
        for (int which = 0; which < 3; ++which) {
            for (int64_t n = 0; n < walk.images; ++n) {
                for (int c = 0; c < classes; ++c) {
                    double total = 0;
                    for (int band = 0; band < bands; ++band) total += sums[((n * bands + band) * 3 + which) * classes + c];
                    static_cast<T*>(a.sums.data)[(which * walk.images + n) * classes + c] = T(total);
                }
            }
        }
    }

    const UpsampleRegionSumsArgs& a;
    Walk<T> walk;
    const int classes;
    BandResult* results;
    double* sums;  // [image][band][3][class]
    Scratch<T>* scratch;
};

}  // namespace

UpsampleRegionSumsResult upsample_region_sums(const UpsampleRegionSumsArgs& args) {
    if (args.x.dtype == DType::float64) return RegionSums<double>(args).run();
    return RegionSums<float>(args).run();
}

}  // namespace fcn::FCN_ISA
