// cross_entropy on CPUs, bound by memory. Pixels go in tiles: softmax is done in a buffer that stays in cache, into which
// a tile's class planes are copied first (many strided planes would thrash the cache), and the gradient leaves from there.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"
#include "tile.h"

namespace fcn::FCN_ISA {
namespace {

struct TaskResult {
    double loss, weight;
    int64_t bad_pixel;
};

template <class T>
struct Scratch {
    T* tile;  // [C][kTile]: logits unless they are read where they lie, then exponentials
    T* pixels;  // [kTile][C]: a gradient on its way past the cache
    T *peak, *sum, *target_score, *smooth, *label_weight, *pixel, *excess;
    int32_t* label;  // 0 where the pixel does not count
};

template <class T, class S>
class CrossEntropy {
public:
    explicit CrossEntropy(const CrossEntropyArgs& args)
        : a(args), images(a.logits.size[0]), classes(int(a.logits.size[1])), rows(a.logits.size[2]), columns(a.logits.size[3]) {
        // Rows without gaps between them are one long row.
        const Tensor* maps[] = {&a.logits, &a.target, a.grad.data ? &a.grad : nullptr, a.pixel_weight.data ? &a.pixel_weight : nullptr};
        bool flat = true;
        for (const Tensor* map : maps) {
            if (map) flat &= map->stride[map->dims - 2] == map->stride[map->dims - 1] * columns;
        }
        if (flat) columns *= rows, rows = 1;
        tiles = ceil_div(columns, kTile);
    }

    CrossEntropyResult run() {
        const int64_t strips = images * rows * tiles, tasks = ceil_div(strips, kStripsPerTask);
        const int threads = int(imax(1, imin(a.threads, tasks)));
        Memory memory([&](Arena& arena) {
            results = arena.take<TaskResult>(tasks);
            smoothing = arena.take<T>(classes);
            scratch = arena.take<Scratch<T>>(threads);
            for (int i = 0; i < threads; ++i) {
                Scratch<T> s;
                s.tile = arena.take<T>(int64_t(classes) * kTile);
                s.pixels = arena.take<T>(past_cache() ? int64_t(classes) * kTile : 0);
                T** const pixel_rows[] = {&s.peak, &s.sum, &s.target_score, &s.smooth, &s.label_weight, &s.pixel, &s.excess};
                for (T** row : pixel_rows) *row = arena.take<T>(kTile);
                s.label = arena.take<int32_t>(kTile);
                if (scratch) scratch[i] = s;
            }
        });
        hard = T(1 - a.label_smoothing);
        const T* weight = static_cast<const T*>(a.weight.data);
        double total_smoothing = 0;
        for (int c = 0; c < classes; ++c) {
            const double w = a.label_smoothing / classes * (weight ? double(weight[c]) : 1);
            smoothing[c] = T(w);
            total_smoothing += w;
        }
        smoothing_total = T(total_smoothing);

        CrossEntropyResult total{0, -1};
        scale = 1;
        if (a.mean && a.grad.data) {  // the divisor comes first, so that the gradient is written once, scaled
            run_tasks(tasks, strips, threads, [&](int thread, int64_t strip, TaskResult& result) { count(scratch[thread], strip, result); });
            scale = T(mean_factor(tasks));
        }
        run_tasks(tasks, strips, threads, [&](int thread, int64_t strip, TaskResult& result) {
            tile(scratch[thread], strip, result);
        });
        for (int64_t i = 0; i < tasks; ++i) {
            total.loss += results[i].loss;
            if (total.bad_pixel < 0) total.bad_pixel = results[i].bad_pixel;
        }
        if (a.mean) total.loss *= mean_factor(tasks);
        return total;
    }

private:
    static constexpr int kFewClasses = 32;
    static constexpr int64_t kStripsPerTask = 32;  // fixed, so that sums do not depend on the number of threads

    template <class F>
    void run_tasks(int64_t tasks, int64_t strips, int threads, const F& f) const {
        parallel_for(tasks, threads, [&](int64_t task, int thread) {
            TaskResult result{0, 0, -1};
            for (int64_t strip = task * kStripsPerTask; strip < imin(strips, (task + 1) * kStripsPerTask); ++strip) {
                f(thread, strip, result);
            }
            results[task] = result;
        });
    }

    double mean_factor(int64_t tasks) const {
        double weights = 0;
        for (int64_t i = 0; i < tasks; ++i) weights += results[i].weight;
        return weights != 0 ? 1 / weights : 0;
    }

    struct Strip {
        int64_t n, y, x;
        int count;
    };

    Strip locate(int64_t strip) const {
        const int64_t tile = strip % tiles, row = strip / tiles;
        return {row / rows, row % rows, tile * kTile, int(imin(kTile, columns - tile * kTile))};
    }

    // Asks for what the next strip will read, into the second-level cache: the first one is full. Never faults.
    static void prefetch(const void* from, int64_t bytes) {
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(from) + at, 0, 2);
    }

    // The common case, adjacent labels without weights, as a loop that becomes vectors. False if some label is out of range.
    template <class Label>
    bool read_plain_labels(Scratch<T>& s, const Label* labels, int count) const {
        using Wide = std::conditional_t<sizeof(Label) == 8, int64_t, int32_t>;
        const Wide ignored = Wide(a.ignore_index), end = Wide(classes);
        const Wide none = int64_t(ignored) == a.ignore_index ? 0 : 1;  // no label has that value
        int32_t* const out = s.label;
        T *const weight = s.label_weight, *const pixel = s.pixel;
        Wide bad = 0;
        prefetch(labels + kTile, kTile * sizeof(Label));
        for (int i = 0; i < count; ++i) {
            const Wide label = Wide(labels[i]);
            const Wide valid = Wide(label != ignored) | none;
            bad |= valid & (Wide(label < 0) | Wide(label >= end));
            out[i] = int32_t(label * valid);
            weight[i] = pixel[i] = T(int32_t(valid));
        }
        return !bad;
    }

    // Labels, class weights and pixel weights of a strip.
    void read_labels(Scratch<T>& s, const Strip& at, TaskResult& result) const {
        const T* class_weight = static_cast<const T*>(a.weight.data);
        const T* pixel_weight = static_cast<const T*>(a.pixel_weight.data);
        if (pixel_weight) pixel_weight += at.n * a.pixel_weight.stride[0] + at.y * a.pixel_weight.stride[1] + at.x * a.pixel_weight.stride[2];
        with_label_dtype(a.target.dtype, [&](auto* type) {
            using Label = std::remove_pointer_t<decltype(type)>;
            const Label* labels = static_cast<const Label*>(a.target.data) + at.n * a.target.stride[0] + at.y * a.target.stride[1] + at.x * a.target.stride[2];
            const int64_t stride = a.target.stride[2];
            bool plain = stride == 1 && !class_weight && !pixel_weight && read_plain_labels(s, labels, at.count);
            for (int i = 0; i < at.count && !plain; ++i) {
                const int64_t label = int64_t(labels[i * stride]);
                s.label[i] = 0;
                s.label_weight[i] = s.pixel[i] = 0;
                if (label == a.ignore_index) continue;
                if (label < 0 || label >= classes) {
                    if (result.bad_pixel < 0) result.bad_pixel = (at.n * rows + at.y) * columns + at.x + i;
                    continue;
                }
                const T pixel = pixel_weight ? pixel_weight[i * a.pixel_weight.stride[2]] : T(1);
                if (pixel == 0) continue;
                s.label[i] = int32_t(label);
                s.pixel[i] = pixel;
                s.label_weight[i] = pixel * (class_weight ? class_weight[label] : T(1));
            }
        });
        for (int i = at.count; i < kTile; ++i) s.label[i] = 0, s.label_weight[i] = s.pixel[i] = 0;
        Vec<T> weight = {};
        for (int i = 0; i < kTile; i += kLanes<T>) weight += load(s.label_weight + i);
        result.weight += double(sum<T>(weight));
    }

    void count(Scratch<T>& s, int64_t strip, TaskResult& result) const { read_labels(s, locate(strip), result); }

    const S* logits_at(const Strip& at) const {
        return static_cast<const S*>(a.logits.data) + at.n * a.logits.stride[0] + at.y * a.logits.stride[2] +
               at.x * a.logits.stride[3];
    }

    // Numbers of a strip, class by class.
    template <class Number>
    struct Classes {
        Number* at;
        int64_t stride;
    };

    // The largest of each pixel, and where the logits are. A few planes of whole vectors are read twice where they lie, which
    // costs less than a copy; many would have left the cache in between.
    Classes<const T> read_logits(Scratch<T>& s, const Strip& at) const {
        const int64_t sc = a.logits.stride[1], sx = a.logits.stride[3];
        const S* from = logits_at(at);
        if constexpr (std::is_same_v<S, T>) {
            if (sx == 1 && at.count == kTile && classes <= kFewClasses) {
                find_peaks(s.peak, from, sc, classes);
                return {from, sc};
            }
        }
        if (sx == 1) read_planes(s.tile, s.peak, from, sc, classes, at.count);
        else if (sc == 1) read_pixels(s.tile, s.peak, from, sx, classes, at.count);
        else read_strided(s.tile, s.peak, from, sc, sx, classes, at.count);
        return {s.tile, kTile};
    }

    // The sums of exponentials relative to each pixel's peak; the tile keeps the exponentials if kKeep. Meanwhile the next
    // strip's logits travel.
    template <bool kKeep, bool kSmooth>
    void exponentials(Scratch<T>& s, const Classes<const T>& logits, const S* next, int64_t next_stride) const {
        using V = Vec<T>;
        constexpr int L = kLanes<T>, kGroup = 4, kStep = kGroup * L;
        for (int i = 0; i < kTile; i += kStep) {
            V peak[kGroup], total[kGroup] = {}, smoothed[kGroup] = {};
            for (int j = 0; j < kGroup; ++j) peak[j] = load(s.peak + i + j * L);
            for (int c = 0; c < classes; ++c) {
                const T* const from = logits.at + c * logits.stride + i;
                T* const to = s.tile + c * kTile + i;
                const int64_t ahead = i * classes + c * kStep;  // in the order of memory
                prefetch(next + ahead / kTile * next_stride + ahead % kTile, kStep * sizeof(S));
                for (int j = 0; j < kGroup; ++j) {
                    const V v = load(from + j * L) - peak[j], e = softmax_exp(v);
                    total[j] += e;
                    if (kKeep) store(to + j * L, e);
                    if (kSmooth) smoothed[j] += smoothing[c] * v;
                }
            }
            for (int j = 0; j < kGroup; ++j) {
                store(s.sum + i + j * L, total[j]);
                store(s.smooth + i + j * L, smoothed[j]);
            }
        }
    }

    // one(i, at) for each pixel, `at` being the place of its label's number; all(i, at) for a vector of pixels where they have
    // one label, as most neighbours do.
    template <class Number, class One, class All>
    static void at_labels(const Scratch<T>& s, const Classes<Number>& numbers, const One& one, const All& all) {
        constexpr int kGroup = kLanes<int32_t>;
        for (int i = 0; i < kTile; i += kGroup) {
            const int32_t first = s.label[i];
            if (any(load(s.label + i) != first)) {
                for (int j = i; j < i + kGroup; ++j) one(j, numbers.at + s.label[j] * numbers.stride + j);
            } else {
                for (int j = i; j < i + kGroup; j += kLanes<T>) all(j, numbers.at + first * numbers.stride + j);
            }
        }
    }

    // loss = (hard w + smoothing) (log sum) - hard w (score - peak) - smoothed, where w is the label's weight. What the
    // gradient needs takes the place of the sums.
    Vec<T> weighted_losses(Scratch<T>& s, bool smooth, bool keep) const {
        using V = Vec<T>;
        V losses = {};
        for (int i = 0; i < kTile; i += kLanes<T>) {
            const V pixel = load(s.pixel + i), w = hard * load(s.label_weight + i), total = load(s.sum + i);
            const V a_lse = w + smoothing_total * pixel;
            V loss = a_lse * vlog(total) - w * (load(s.target_score + i) - load(s.peak + i)) - pixel * load(s.smooth + i);
            loss = pixel != T(0) ? loss : V{};  // nothing of a pixel that does not count, NaN included
            losses += loss;
            store(s.smooth + i, loss);
            if (!keep) continue;
            store(s.sum + i, pixel != T(0) ? scale * a_lse * reciprocal(total) : V{});
            // Without smoothing a_lse is w.
            store(s.excess + i, w != T(0) ? (smooth ? w * total / a_lse : total) : V{});
        }
        return losses;
    }

    // The same of pixels that count fully or not at all, in sum only. The sums lie between 1 and C, so that the logarithm
    // of a product of four serves them all.
    Vec<T> plain_losses(Scratch<T>& s, bool keep) const {
        using V = Vec<T>;
        constexpr int L = kLanes<T>, kStep = 4 * L;
        V losses = {};
        for (int i = 0; i < kTile; i += kStep) {
            V product = splat(T(1));
            for (int j = i; j < i + kStep; j += L) {
                const V total = load(s.sum + j);
                const auto counts = load(s.pixel + j) != T(0);
                product *= counts ? total : splat(T(1));
                losses += counts ? load(s.peak + j) - load(s.target_score + j) : V{};
                if (!keep) continue;
                store(s.sum + j, counts ? scale * reciprocal(total) : V{});
                store(s.excess + j, counts ? total : V{});
            }
            losses += vlog(product);
        }
        return losses;
    }

    void tile(Scratch<T>& s, int64_t strip, TaskResult& result) const {
        using V = Vec<T>;
        const Strip at = locate(strip);
        read_labels(s, at, result);
        const Classes<const T> logits = read_logits(s, at);
        const FlushSubnormals flush;  // not before: subnormal float16 logits are read through subnormal float32
        at_labels(
            s, logits, [&](int i, const T* at) { s.target_score[i] = *at; },
            [&](int i, const T* at) { store(s.target_score + i, load(at)); });
        const bool smooth = a.label_smoothing > 0, keep = a.grad.data;
        const S* const next = logits_at(at) + kTile * a.logits.stride[3];
        const int64_t next_stride = a.logits.stride[3] == 1 ? a.logits.stride[1] : kTile;
        if (smooth) keep ? exponentials<true, true>(s, logits, next, next_stride) : exponentials<false, true>(s, logits, next, next_stride);
        else keep ? exponentials<true, false>(s, logits, next, next_stride) : exponentials<false, false>(s, logits, next, next_stride);
        const bool plain = !smooth && !a.weight.data && !a.pixel_weight.data && !a.pixel_loss.data;
        const V losses = plain ? plain_losses(s, keep) : weighted_losses(s, smooth, keep);
        result.loss += double(sum<T>(losses));
        if (a.pixel_loss.data) {
            T* const pixel_loss = static_cast<T*>(a.pixel_loss.data);
            std::memcpy(pixel_loss + (at.n * rows + at.y) * columns + at.x, s.smooth, sizeof(T) * at.count);
        }
        if (a.grad.data) write_gradient(s, at, smooth);
    }

    bool past_cache() const { return std::is_same_v<S, float> && a.grad.data && large(images * classes * rows * columns); }

    // scale (a_lse exp / sum - hard w [at the label] - smoothing pixel), the middle term taken off the exponential.
    void write_gradient(Scratch<T>& s, const Strip& at, bool smooth) const {
        at_labels(
            s, Classes<T>{s.tile, kTile}, [&](int i, T* at) { *at -= s.excess[i]; },
            [&](int i, T* at) { store(at, load(at) - load(s.excess + i)); });
        const auto gradient = [smooth, scale = scale, tile = s.tile, factor = s.sum, counts = s.pixel, smoothing = smoothing](int c, int i) {
            const Vec<T> pixel = load(counts + i);
            Vec<T> g = load(factor + i) * load(tile + c * kTile + i);
            if (smooth) g -= scale * smoothing[c] * pixel;
            return pixel != T(0) ? g : Vec<T>{};
        };
        const int64_t sc = a.grad.stride[1], sx = a.grad.stride[3];
        S* const to = static_cast<S*>(a.grad.data) + at.n * a.grad.stride[0] + at.y * a.grad.stride[2] + at.x * sx;
        if (sx == 1) return write_planes<T>(to, sc, classes, at.count, past_cache(), gradient);
        if (sc != 1) return write_strided<T>(to, sc, sx, classes, at.count, gradient);
        if constexpr (std::is_same_v<S, float>) {
            if (past_cache() && sx == classes) {
                write_pixels<T>(s.pixels, sx, classes, at.count, gradient);
                return stream_all(to, at.count * sx, [&](int64_t i, int n) { return load_numbers<T>(s.pixels + i, n); });
            }
        }
        write_pixels<T>(to, sx, classes, at.count, gradient);
    }

    const CrossEntropyArgs& a;
    const int64_t images;
    const int classes;
    int64_t rows, columns, tiles;
    T hard, smoothing_total, scale;
    T* smoothing;
    TaskResult* results;
    Scratch<T>* scratch;
};

}  // namespace

CrossEntropyResult cross_entropy(const CrossEntropyArgs& args) {
    CrossEntropyResult result{};
    with_float_dtype(args.logits.dtype, [&](auto* type) {
        using S = std::remove_pointer_t<decltype(type)>;
        using T = std::conditional_t<std::is_same_v<S, double>, double, float>;
        result = CrossEntropy<T, S>(args).run();
    });
    return result;
}

}  // namespace fcn::FCN_ISA
