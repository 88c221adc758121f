// conv_transpose_add on CPUs. Output pixel X (counted before the crop) of one axis sums input j times tap kx where
// j * stride + kx = X: with q = X / stride, taps X % stride + t * stride meet input q - t, t < ceil(k / stride).
//
// Forward needs no shuffles, whatever the stride and the layout: each pixel of an input row is repeated `stride` times, so
// that all numbers of an output row find their t-th input at one distance, and the taps repeat periodically beside it.
// Backward, without channels_last, does the opposite: a row of the output's gradient is split into its `stride` phases,
// and every tap then reads consecutive numbers.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"
#include "../common/rows.h"

namespace fcn::FCN_ISA {
namespace {

constexpr int64_t kChunk = 32 << 10;       // numbers of a task
constexpr int64_t kPiece = 2 << 10;        // numbers of a row that are finished while still in the nearest cache
constexpr int64_t kWeightBand = 4 << 10;   // pixels whose products are summed on their own: short sums round less
constexpr int kBlock = 4;                  // vectors (or taps) whose sums are kept in registers

// The last rows of one plane that were made ready: a row stays until another takes its place.
template <class T>
struct Ring {
    T* rows;
    int64_t* held;  // the row in each place, or -1
    int64_t places, row_size;

    static Ring take(Arena& arena, int64_t places, int64_t row_size) {
        return {arena.take<T>(places * row_size), arena.take<int64_t>(places), places, row_size};
    }

    void clear() const {
        for (int64_t i = 0; i < places; ++i) held[i] = -1;
    }

    template <class F>
    const T* get(int64_t row, const F& make) const {
        const int64_t place = row % places;
        T* at = rows + place * row_size;
        if (held[place] != row) make(at), held[place] = row;
        return at;
    }
};

// Calls f with the stride as a constant where that lets the compiler vectorize.
template <class F>
inline void with_stride(int64_t stride, const F& f) {
    if (stride == 1) return f(std::integral_constant<int64_t, 1>());
    if (stride == 2) return f(std::integral_constant<int64_t, 2>());
    f(stride);
}

template <class T, class S>
class ConvTransposeAdd {
    static constexpr int L = kLanes<T>;

public:
    explicit ConvTransposeAdd(const ConvTransposeAddArgs& args)
        : a(args),
          last(args.channels_last),
          x(args.x, last),
          out(args.out, last),
          channels(args.x.size[1]),
          inner(last ? channels : 1),
          planes(args.x.size[0] * (last ? 1 : channels)),
          h(args.x.size[2]),
          w(args.x.size[3]),
          height(args.out.size[2]),
          width(args.out.size[3]),
          k(args.weight.size[2]),
          stride(args.stride),
          taps(ceil_div(k, stride)) {}

    void forward() {
        const Planes<const S> skip(a.skip, last);
        const int64_t first = a.crop / stride - (taps - 1), items = (a.crop + width - 1) / stride - first + 1;
        panel_row = stride * inner + L;
        const int64_t count = width * inner, start = (a.crop - first * stride) * inner;
        const int64_t chunk = imax(1, kChunk / (width * inner)), chunks = ceil_div(height, chunk);
        const int64_t total = planes * height * width * inner;
        const int threads = int(imax(1, imin(a.threads, total / 8192)));
        struct Scratch {
            Ring<T> ring;
            T *row, *panel;
            const T **inputs, **weights;
        };
        Scratch* scratch;
        const Memory memory([&](Arena& arena) {
            scratch = arena.take<Scratch>(threads);
            for (int i = 0; i < threads; ++i) {
                Scratch s;
                s.ring = Ring<T>::take(arena, taps, items * stride * inner + L);
                s.row = arena.take<T>(kPiece);
                s.panel = arena.take<T>(k * taps * panel_row);
                s.inputs = arena.take<const T*>(taps);
                s.weights = arena.take<const T*>(taps);
                if (scratch) scratch[i] = s;
            }
        });
        if (last) {
            for (int i = 0; i < threads; ++i) lay_out_panel(scratch[i].panel, 0);
        }
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, begin = task % chunks * chunk;
            const Scratch& s = scratch[thread];
            s.ring.clear();
            if (!last) lay_out_panel(s.panel, plane % channels);
            for (int64_t y = begin; y < imin(begin + chunk, height); ++y) {
                const int64_t q = (y + a.crop) / stride;
                int64_t rows = 0;
                for (int64_t i = q, ky = (y + a.crop) % stride; ky < k; --i, ky += stride) {
                    if (i < 0 || i >= h) continue;
                    s.inputs[rows] = s.ring.get(i, [&](T* to) { repeat_row(to, x.row(plane, i), first, items); });
                    s.weights[rows++] = s.panel + ky * taps * panel_row;
                }
                S* to = out.row(plane, y);
                const S* added = a.skip.data ? skip.row(plane, y) : nullptr;
                for (int64_t i = 0; i < count; i += kPiece) {
                    const int64_t size = imin(kPiece, count - i);
                    if (rows == 2 && taps == 2) {  // FCN's filters are twice the stride
                        expand<2>(s.row, size, start + i, s.inputs, s.weights, rows);
                    } else {
                        expand<0>(s.row, size, start + i, s.inputs, s.weights, rows);
                    }
                    finish_row<T, S>(to + i, s.row, added ? added + i : nullptr, size, total);
                }
            }
        });
    }

    void backward_x() {
        const int64_t row_size = w * inner + kBlock * L;
        const int64_t chunk = imax(1, kChunk / (w * stride * stride * inner)), chunks = ceil_div(h, chunk);
        const int threads = int(imax(1, imin(a.threads, planes * chunks)));
        struct Scratch {
            Ring<T> ring;
            T *row, *weight;
        };
        Scratch* scratch;
        int64_t* offset;
        const Memory memory([&](Arena& arena) {
            scratch = arena.take<Scratch>(threads);
            offset = arena.take<int64_t>(k);
            for (int i = 0; i < threads; ++i) {
                Scratch s;
                s.ring = Ring<T>::take(arena, last ? 0 : k, split_size());
                s.row = arena.take<T>(row_size);
                s.weight = arena.take<T>(k * k * inner);
                if (scratch) scratch[i] = s;
            }
        });
        find_offsets(offset);
        if (last) {
            for (int i = 0; i < threads; ++i) copy_weight(scratch[i].weight, 0);
        }
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, begin = task % chunks * chunk;
            const Scratch& s = scratch[thread];
            s.ring.clear();
            if (!last) copy_weight(s.weight, plane % channels);
            for (int64_t i = begin; i < imin(begin + chunk, h); ++i) {
                std::memset(s.row, 0, sizeof(T) * row_size);
                each_tap_row(i, [&](int64_t ky, int64_t y) {
                    const S* grad = out.row(plane, y);
                    const T* weight = s.weight + ky * k * inner;
                    if (last) return gather_pixels(s.row, grad, weight);
                    gather_row(s.row, s.ring.get(y, [&](T* to) { split_row(to, grad); }), weight, offset);
                });
                finish_row<T, S>(x.row(plane, i), s.row, nullptr, w * inner, 0);
            }
        });
    }

    void backward_weight() {
        // Bands depend on the shape alone, and so does the order of all sums, whatever the threads.
        const int64_t band = imax(1, kWeightBand / w), bands = ceil_div(h, band), padded = ceil_div(w, L) * L;
        const int threads = int(imax(1, imin(a.threads, planes * bands)));
        struct Scratch {
            Ring<T> ring;
            T *row, *sums;
        };
        Scratch* scratch;
        int64_t* offset;
        T* partial;
        const int64_t count = k * k * inner;
        const Memory memory([&](Arena& arena) {
            scratch = arena.take<Scratch>(threads);
            offset = arena.take<int64_t>(k);
            partial = arena.take<T>(planes * bands * count);
            for (int i = 0; i < threads; ++i) {
                Scratch s;
                s.ring = Ring<T>::take(arena, last ? 0 : k, split_size());
                s.row = arena.take<T>(padded);
                s.sums = arena.take<T>(k * k * L);
                if (scratch) scratch[i] = s;
            }
        });
        find_offsets(offset);
        parallel_for(planes * bands, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / bands, begin = task % bands * band;
            const Scratch& s = scratch[thread];
            T* to = partial + task * count;
            std::memset(to, 0, sizeof(T) * count);
            // Lanes beyond the row multiply what they find by zero, so it must be numbers.
            std::memset(s.ring.rows, 0, sizeof(T) * s.ring.places * s.ring.row_size);
            std::memset(s.sums, 0, sizeof(T) * k * k * L);
            s.ring.clear();
            for (int64_t i = begin; i < imin(begin + band, h); ++i) {
                const S* input = x.row(plane, i);
                if (!last) {
                    for (int64_t j = 0; j < padded; ++j) s.row[j] = j < w ? T(to_number(input[j])) : T(0);
                }
                each_tap_row(i, [&](int64_t ky, int64_t y) {
                    const S* grad = out.row(plane, y);
                    if (last) return correlate_pixels(to + ky * k * inner, input, grad);
                    const T* split = s.ring.get(y, [&](T* at) { split_row(at, grad); });
                    correlate_row(s.sums + ky * k * L, s.row, split, offset, padded);
                });
            }
            if (last) return;
            for (int64_t tap = 0; tap < k * k; ++tap) to[tap] = sum<T>(load(s.sums + tap * L));
        });
        const int64_t parts = a.x.size[0] * bands, groups = last ? 1 : channels;
        for (int64_t c = 0; c < channels; ++c) {
            for (int64_t tap = 0; tap < k * k; ++tap) {
                T total = 0;
                for (int64_t part = 0; part < parts; ++part) {
                    const int64_t n = part / bands, plane = n * groups + (last ? 0 : c);
                    total += partial[(plane * bands + part % bands) * count + tap * inner + (last ? c : 0)];
                }
                from_number(total, *weight_at(c, tap / k, tap % k));
            }
        }
    }

private:
    S* weight_at(int64_t c, int64_t ky, int64_t kx) const {
        return static_cast<S*>(a.weight.data) + c * a.weight.stride[0] + ky * a.weight.stride[2] + kx * a.weight.stride[3];
    }

    // [ky][t][phase, channel]: tap phase + t * stride, zero where there is none; periodic, so that vectors can run over.
    void lay_out_panel(T* panel, int64_t channel) const {
        const int64_t period = stride * inner;
        for (int64_t ky = 0; ky < k; ++ky) {
            for (int64_t t = 0; t < taps; ++t, panel += panel_row) {
                for (int64_t e = 0; e < period; ++e) {
                    const int64_t kx = t * stride + e / inner;
                    panel[e] = kx < k ? T(to_number(*weight_at(channel + e % inner, ky, kx))) : T(0);
                }
                for (int64_t e = period; e < panel_row; ++e) panel[e] = panel[e - period];
            }
        }
    }

    // [ky][kx][channel]
    void copy_weight(T* to, int64_t channel) const {
        for (int64_t tap = 0; tap < k * k; ++tap) {
            for (int64_t c = 0; c < inner; ++c) *to++ = T(to_number(*weight_at(channel + c, tap / k, tap % k)));
        }
    }

    // Input columns first, first + 1, ... (zeros outside the input), each repeated `stride` times.
    void repeat_row(T* to, const S* row, int64_t first, int64_t items) const {
        const int64_t period = stride * inner, begin = imax(0, -first), end = imin(items, w - first);
        std::memset(to, 0, sizeof(T) * begin * period);
        std::memset(to + end * period, 0, sizeof(T) * (items - end) * period);
        const S* from = row + (begin + first) * inner;
        T* at = to + begin * period;
        if (last) {
            for (int64_t i = begin; i < end; ++i, from += inner) {
                for (int64_t r = 0; r < stride; ++r, at += inner) {
                    for (int64_t c = 0; c < inner; ++c) at[c] = T(to_number(from[c]));
                }
            }
            return;
        }
        with_stride(stride, [&](auto n) {
            for (int64_t i = 0; i < end - begin; ++i) {
                const T value = T(to_number(from[i]));
                for (int64_t r = 0; r < n; ++r) at[i * n + r] = value;
            }
        });
    }

    // `size` numbers of an output row, from place `start` of the repeated rows on (a vector may run over, in both). kTaps
    // is the number of rows and of taps along a row, or 0 where they are read at run time.
    template <int kTaps>
    void expand(T* row, int64_t size, int64_t start, const T* const* inputs, const T* const* weights, int64_t rows) const {
        const int64_t period = stride * inner, turn = L % period;
        int64_t phase = start % period;
        const T *from[kTaps + 1], *times[kTaps + 1];
        for (int r = 0; r < kTaps; ++r) from[r] = inputs[r] + start, times[r] = weights[r];
        for (int64_t i = 0; i < size; i += L) {
            Vec<T> total{};
            if constexpr (kTaps > 0) {
                for (int r = 0; r < kTaps; ++r) {
                    for (int t = 0; t < kTaps; ++t) total += load(from[r] + i - t * period) * load(times[r] + phase + t * panel_row);
                }
            } else {
                for (int64_t r = 0; r < rows; ++r) {
                    const T *in = inputs[r] + start + i, *by = weights[r] + phase;
                    for (int64_t t = 0; t < taps; ++t) total += load(in - t * period) * load(by + t * panel_row);
                }
            }
            store(row + i, total);
            phase += turn;
            if (phase >= period) phase -= period;
        }
    }

    // f(ky, y) for the rows y of the output that input row i feeds.
    template <class F>
    void each_tap_row(int64_t i, const F& f) const {
        const int64_t top = i * stride - a.crop;
        for (int64_t ky = imax(0, -top); ky < imin(k, height - top); ++ky) f(ky, top + ky);
    }

    // f(kx, column) for the columns of the output that input column j feeds.
    template <class F>
    void each_tap(int64_t j, const F& f) const {
        const int64_t left = j * stride - a.crop;
        for (int64_t kx = imax(0, -left); kx < imin(k, width - left); ++kx) f(kx, left + kx);
    }

    int64_t phase_size() const { return w + taps - 1; }
    int64_t split_size() const { return stride * phase_size() + kBlock * L; }

    // Where, in a split row, the pixel begins that tap kx of input column 0 feeds.
    void find_offsets(int64_t* offset) const {
        for (int64_t kx = 0; kx < k; ++kx) offset[kx] = kx % stride * phase_size() + kx / stride;
    }

    // [phase][m] = pixel m * stride + phase - crop of the row, zero outside it.
    void split_row(T* to, const S* row) const {
        const int64_t size = phase_size();
        for (int64_t phase = 0; phase < stride; ++phase, to += size) {
            const int64_t shift = a.crop - phase;
            const int64_t begin = imin(size, shift > 0 ? ceil_div(shift, stride) : 0);
            const int64_t end = imax(begin, imin(size, width + shift > 0 ? ceil_div(width + shift, stride) : 0));
            for (int64_t m = 0; m < begin; ++m) to[m] = 0;
            with_stride(stride, [&](auto n) {
                for (int64_t m = begin; m < end; ++m) to[m] = T(to_number(row[m * n - shift]));
            });
            for (int64_t m = end; m < size; ++m) to[m] = 0;
        }
    }

    void gather_row(T* sums, const T* split, const T* weight, const int64_t* offset) const {
        int64_t j = 0;
        for (; j + (kBlock - 1) * L < w; j += kBlock * L) gather_vectors<kBlock>(sums + j, split + j, weight, offset);
        for (; j < w; j += L) gather_vectors<1>(sums + j, split + j, weight, offset);
    }

    template <int kVectors>
    void gather_vectors(T* sums, const T* split, const T* weight, const int64_t* offset) const {
        Vec<T> total[kVectors];
        for (int v = 0; v < kVectors; ++v) total[v] = load(sums + v * L);
        for (int64_t kx = 0; kx < k; ++kx) {
            const Vec<T> times = splat(weight[kx]);
            for (int v = 0; v < kVectors; ++v) total[v] += times * load(split + offset[kx] + v * L);
        }
        for (int v = 0; v < kVectors; ++v) store(sums + v * L, total[v]);
    }

    void gather_pixels(T* __restrict sums, const S* grad, const T* weight) const {
        for (int64_t j = 0; j < w; ++j, sums += inner) {
            each_tap(j, [&](int64_t kx, int64_t column) {
                const S* pixel = grad + column * inner;
                const T* times = weight + kx * inner;
                for (int64_t c = 0; c < inner; ++c) sums[c] += times[c] * T(to_number(pixel[c]));
            });
        }
    }

    void correlate_row(T* sums, const T* input, const T* split, const int64_t* offset, int64_t padded) const {
        int64_t kx = 0;
        for (; kx + kBlock <= k; kx += kBlock) {
            Vec<T> total[kBlock] = {};
            for (int64_t j = 0; j < padded; j += L) {
                const Vec<T> v = load(input + j);
                for (int b = 0; b < kBlock; ++b) total[b] += v * load(split + offset[kx + b] + j);
            }
            for (int b = 0; b < kBlock; ++b) store(sums + (kx + b) * L, load(sums + (kx + b) * L) + total[b]);
        }
        for (; kx < k; ++kx) {
            Vec<T> total{};
            for (int64_t j = 0; j < padded; j += L) total += load(input + j) * load(split + offset[kx] + j);
            store(sums + kx * L, load(sums + kx * L) + total);
        }
    }

    void correlate_pixels(T* __restrict sums, const S* input, const S* grad) const {
        for (int64_t j = 0; j < w; ++j, input += inner) {
            each_tap(j, [&](int64_t kx, int64_t column) {
                const S* pixel = grad + column * inner;
                T* __restrict to = sums + kx * inner;
                for (int64_t c = 0; c < inner; ++c) to[c] += T(to_number(input[c])) * T(to_number(pixel[c]));
            });
        }
    }

    const ConvTransposeAddArgs& a;
    const bool last;  // channels_last
    const Planes<S> x, out;
    const int64_t channels, inner, planes, h, w, height, width, k, stride;
    const int64_t taps;  // of one axis that meet in an output pixel
    int64_t panel_row = 0;
};

template <class F>
void with_kernel(const ConvTransposeAddArgs& args, const F& run) {
    with_types(args.out.dtype, [&](auto* number, auto* storage) {
        run(ConvTransposeAdd<std::remove_pointer_t<decltype(number)>, std::remove_pointer_t<decltype(storage)>>(args));
    });
}

}  // namespace

void conv_transpose_add(const ConvTransposeAddArgs& args) {
    with_kernel(args, [](auto&& kernel) { kernel.forward(); });
}

void conv_transpose_add_backward_x(const ConvTransposeAddArgs& args) {
    with_kernel(args, [](auto&& kernel) { kernel.backward_x(); });
}

void conv_transpose_add_backward_weight(const ConvTransposeAddArgs& args) {
    with_kernel(args, [](auto&& kernel) { kernel.backward_weight(); });
}

}  // namespace fcn::FCN_ISA
