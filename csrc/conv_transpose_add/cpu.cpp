// conv_transpose_add on CPUs. Output pixel X (counted before the crop) of one axis sums input j times tap kx where
// j * stride + kx = X: with q = X / stride, taps X % stride + t * stride meet input q - t, t < ceil(k / stride).
//
// Forward needs no shuffles: an input row is repeated `stride` times, so that all pixels of a row read their t-th input at
// one distance, and the taps are laid out periodically beside it. Backward does the opposite: a row of the output's
// gradient is split into its `stride` phases, and every tap then reads consecutive numbers.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"
#include "../common/rows.h"

namespace fcn::FCN_ISA {
namespace {

constexpr int64_t kChunk = 32 << 10;       // numbers of a task
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
        const int64_t panel_size = k * taps * panel_row, row_size = width * inner + L;
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
                s.ring = Ring<T>::take(arena, taps, items * (last ? inner : stride) + L);
                s.row = arena.take<T>(row_size);
                s.panel = arena.take<T>(panel_size);
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
                if (rows == 2 && taps == 2) {  // FCN's filters are twice the stride
                    expand_row<2>(s.row, s.inputs, s.weights, rows, first);
                } else {
                    expand_row<0>(s.row, s.inputs, s.weights, rows, first);
                }
                finish_row<T, S>(out.row(plane, y), s.row, a.skip.data ? skip.row(plane, y) : nullptr, width * inner, total);
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

    // Input columns first, first + 1, ... (zeros outside the input), each repeated `stride` times if they are numbers.
    void repeat_row(T* to, const S* row, int64_t first, int64_t items) const {
        const int64_t copies = last ? 1 : stride;
        const int64_t begin = imin(items, imax(0, -first)), end = imax(begin, imin(items, w - first));
        std::memset(to, 0, sizeof(T) * begin * copies * inner);
        std::memset(to + end * copies * inner, 0, sizeof(T) * (items - end) * copies * inner);
        const S* from = row + (begin + first) * inner;
        T* at = to + begin * copies * inner;
        with_stride(copies, [&](auto n) {
            for (int64_t i = 0; i < (end - begin) * inner; ++i) {
                const T value = T(to_number(from[i]));
                for (int64_t r = 0; r < n; ++r) at[i * n + r] = value;
            }
        });
    }

    // kTaps is the number of rows and of taps along the row, or 0 to read them at run time.
    template <int kTaps>
    void expand_row(T* row, const T* const* inputs, const T* const* weights, int64_t rows, int64_t first) const {
        const int64_t step = last ? inner : stride;
        const auto sum_taps = [&](int64_t input, int64_t weight) {
            Vec<T> total{};
            const int64_t r_end = kTaps ? kTaps : rows, t_end = kTaps ? kTaps : taps;
            for (int64_t r = 0; r < r_end; ++r) {
                const T *from = inputs[r] + input, *times = weights[r] + weight;
                for (int64_t t = 0; t < t_end; ++t) total += load(from - t * step) * load(times + t * panel_row);
            }
            return total;
        };
        int64_t phase = a.crop % stride;
        if (!last) {
            const int64_t start = a.crop - first * stride, turn = L % stride;
            for (int64_t i = 0; i < width; i += L) {
                store(row + i, sum_taps(start + i, phase));
                phase += turn;
                if (phase >= stride) phase -= stride;
            }
            return;
        }
        int64_t item = a.crop / stride - first;
        for (int64_t i = 0; i < width; ++i) {
            // The last vector of a pixel may run over; the next pixel comes after it.
            for (int64_t c = 0; c < inner; c += L) store(row + i * inner + c, sum_taps(item * inner + c, phase * inner + c));
            if (++phase == stride) phase = 0, ++item;
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
        for (int64_t j = 0; j < w; j += kBlock * L) {
            Vec<T> total[kBlock];
            for (int b = 0; b < kBlock; ++b) total[b] = load(sums + j + b * L);
            for (int64_t kx = 0; kx < k; ++kx) {
                const Vec<T> times = splat(weight[kx]);
                for (int b = 0; b < kBlock; ++b) total[b] += times * load(split + offset[kx] + j + b * L);
            }
            for (int b = 0; b < kBlock; ++b) store(sums + j + b * L, total[b]);
        }
    }

    void gather_pixels(T* sums, const S* grad, const T* weight) const {
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

    void correlate_pixels(T* sums, const S* input, const S* grad) const {
        for (int64_t j = 0; j < w; ++j, input += inner) {
            each_tap(j, [&](int64_t kx, int64_t column) {
                const S* pixel = grad + column * inner;
                T* to = sums + kx * inner;
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
