// conv_transpose_add on CPUs. Output pixel X (counted before the crop) of one axis sums input j times tap kx where
// j * stride + kx = X: with q = X / stride, taps X % stride + t * stride meet input q - t, t < ceil(k / stride).
//
// Nothing is shuffled, whatever the stride and the layout. Each pixel of an input row is repeated `stride` times, so that
// all numbers of an output row find their t-th input at one distance, t periods back, and the taps are laid out once per
// period beside it. Forward sums products over taps. For x, products of gradient and taps are summed over rows, then over
// the period; for the weight, products of gradient and input over everything of one phase.
#include "cpu.h"

#include "../common/cells.h"
#include "../common/parallel.h"
#include "../common/rows.h"

namespace fcn::FCN_ISA {
namespace {

constexpr int64_t kChunk = 32 << 10;  // numbers of a task
constexpr int64_t kPiece = 2 << 10;   // numbers of a row that are finished while still in the nearest cache
constexpr int64_t kBand = 4 << 10;    // pixels whose products are summed on their own: short sums round less

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

    struct Scratch {
        Ring<T> ring;
        T *row, *sums, *panel;
        const T **rows, **panels;  // what the rows that meet in one row are made of
    };

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
          count(width * inner),
          k(args.weight.size[2]),
          stride(args.stride),
          taps(ceil_div(k, stride)),
          period(stride * inner),
          panel_row(period + L),
          first(a.crop / stride - (taps - 1)),
          items((a.crop + width - 1) / stride - first + 1),
          start((a.crop - first * stride) * inner) {}

    void forward() {
        const Planes<const S> skip(a.skip, last);
        const int64_t chunk = imax(1, kChunk / count), chunks = ceil_div(height, chunk), total = planes * height * count;
        const int threads = int(imax(1, imin(a.threads, total / 8192)));
        Scratch* scratch;
        const Memory memory([&](Arena& arena) { take(arena, scratch, threads, taps, items * period + L, kPiece, 0); });
        for (int i = 0; last && i < threads; ++i) lay_out_panel(scratch[i].panel, 0);
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, begin = task % chunks * chunk;
            const Scratch& s = scratch[thread];
            s.ring.clear();
            if (!last) lay_out_panel(s.panel, plane % channels);  // with channels_last all planes share one
            for (int64_t y = begin; y < imin(begin + chunk, height); ++y) {
                int64_t rows = 0;
                each_input_row(y, [&](int64_t i, int64_t ky) {
                    s.rows[rows] = s.ring.get(i, [&](T* to) { repeat_row(to, x.row(plane, i)); }) + start;
                    s.panels[rows++] = s.panel + ky * taps * panel_row;
                });
                S* to = out.row(plane, y);
                const S* added = a.skip.data ? skip.row(plane, y) : nullptr;
                for (int64_t i = 0; i < count; i += kPiece) {
                    const int64_t size = imin(kPiece, count - i);
                    if (rows == 2 && taps == 2) {  // FCN's filters are twice the stride
                        expand<2>(s, rows, i, size);
                    } else {
                        expand<0>(s, rows, i, size);
                    }
                    finish_row<T, S>(to + i, s.row, added ? added + i : nullptr, size, total);
                }
            }
        });
    }

    void backward_x() {
        // Rows of the gradient are placed so that they begin with a whole period.
        const int64_t begins = a.crop / stride, periods = (a.crop + width - 1) / stride - begins + 1;
        const int64_t lead = a.crop % stride * inner, piece = imax(1, kPiece / period), sums_row = piece * period + L;
        const int64_t chunk = imax(1, kChunk / (w * stride * period)), chunks = ceil_div(h, chunk);
        const int threads = int(imax(1, imin(a.threads, planes * chunks)));
        Scratch* scratch;
        const Memory memory([&](Arena& arena) {
            take(arena, scratch, threads, k, periods * period + L, w * inner, taps * sums_row);
        });
        for (int i = 0; last && i < threads; ++i) lay_out_panel(scratch[i].panel, 0);
        parallel_for(planes * chunks, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / chunks, begin = task % chunks * chunk;
            const Scratch& s = scratch[thread];
            s.ring.clear();
            if (!last) lay_out_panel(s.panel, plane % channels);
            for (int64_t i = begin; i < imin(begin + chunk, h); ++i) {
                const int64_t top = i * stride - a.crop;
                int64_t rows = 0;
                for (int64_t ky = imax(0, -top); ky < imin(k, height - top); ++ky) {
                    const S* grad = out.row(plane, top + ky);
                    s.rows[rows] = s.ring.get(top + ky, [&](T* to) { place_row(to, grad, lead, periods * period + L); });
                    s.panels[rows++] = s.panel + ky * taps * panel_row;
                }
                std::memset(s.row, 0, sizeof(T) * w * inner);
                for (int64_t p = 0; p < periods; p += piece) {
                    const int64_t size = imin(piece, periods - p);
                    int64_t t = 0;
                    for (; t + 2 <= taps; t += 2) weigh<2>(s, rows, t, sums_row, p * period, size * period);
                    if (t < taps) weigh<1>(s, rows, t, sums_row, p * period, size * period);
                    for (t = 0; t < taps; ++t) fold(s.row, s.sums + t * sums_row, begins + p - t, size);
                }
                finish_row<T, S>(x.row(plane, i), s.row, nullptr, w * inner, 0);
            }
        });
    }

    void backward_weight() {
        // Bands depend on the shape alone, and so does the order of all sums, whatever the threads.
        const int64_t band = imax(1, kBand / width), bands = ceil_div(height, band), size = k * k * inner;
        const int threads = int(imax(1, imin(a.threads, planes * bands)));
        Scratch* scratch;
        T* partial;
        const Memory memory([&](Arena& arena) {
            take(arena, scratch, threads, taps, items * period + L, count + L, 0);
            partial = arena.take<T>(planes * bands * size);
        });
        parallel_for(planes * bands, threads, [&](int64_t task, int thread) {
            const int64_t plane = task / bands, begin = task % bands * band;
            const Scratch& s = scratch[thread];
            s.ring.clear();
            std::memset(s.panel, 0, sizeof(T) * k * taps * panel_row);
            for (int64_t y = begin; y < imin(begin + band, height); ++y) {
                place_row(s.row, out.row(plane, y), 0, count + L);
                each_input_row(y, [&](int64_t i, int64_t ky) {
                    const T* input = s.ring.get(i, [&](T* to) { repeat_row(to, x.row(plane, i)); }) + start;
                    T* sums = s.panel + ky * taps * panel_row;
                    int64_t t = 0;
                    for (; t + 2 <= taps; t += 2) correlate<2>(sums + t * panel_row, s.row, input - t * period);
                    if (t < taps) correlate<1>(sums + t * panel_row, s.row, input - t * period);
                });
            }
            collect_panel(partial + task * size, s.panel);
        });
        const int64_t parts = a.x.size[0] * bands, groups = last ? 1 : channels;
        for (int64_t c = 0; c < channels; ++c) {
            for (int64_t tap = 0; tap < k * k; ++tap) {
                T total = 0;
                for (int64_t part = 0; part < parts; ++part) {
                    const int64_t plane = part / bands * groups + (last ? 0 : c);
                    total += partial[(plane * bands + part % bands) * size + tap * inner + (last ? c : 0)];
                }
                from_number(total, *weight_at(c, tap / k, tap % k));
            }
        }
    }

private:
    void take(Arena& arena, Scratch*& scratch, int threads, int64_t places, int64_t place, int64_t row, int64_t sums) const {
        scratch = arena.take<Scratch>(threads);
        for (int i = 0; i < threads; ++i) {
            Scratch s;
            s.ring = Ring<T>::take(arena, places, place);
            s.row = arena.take<T>(row);
            s.sums = arena.take<T>(sums);
            s.panel = arena.take<T>(k * taps * panel_row);
            s.rows = arena.take<const T*>(k);
            s.panels = arena.take<const T*>(k);
            if (scratch) scratch[i] = s;
        }
    }

    S* weight_at(int64_t c, int64_t ky, int64_t kx) const {
        return static_cast<S*>(a.weight.data) + c * a.weight.stride[0] + ky * a.weight.stride[2] + kx * a.weight.stride[3];
    }

    // [ky][t][phase, channel]: tap phase + t * stride, zero where there is none; periodic, so that vectors can run over.
    void lay_out_panel(T* panel, int64_t channel) const {
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

    // The opposite of lay_out_panel: [ky][kx][channel] from sums laid out as a panel.
    void collect_panel(T* to, T* panel) const {
        for (int64_t ky = 0; ky < k; ++ky) {
            for (int64_t t = 0; t < taps; ++t, panel += panel_row) {
                for (int64_t e = period; e < panel_row; ++e) panel[e % period] += panel[e];
                const int64_t size = imin(period, k * inner - t * period);
                for (int64_t e = 0; e < size; ++e) *to++ = panel[e];
            }
        }
    }

    // f(i, ky) for the input rows i that feed output row y.
    template <class F>
    void each_input_row(int64_t y, const F& f) const {
        for (int64_t i = (y + a.crop) / stride, ky = (y + a.crop) % stride; ky < k; --i, ky += stride) {
            if (i >= 0 && i < h) f(i, ky);
        }
    }

    // Input columns first, first + 1, ... (zeros outside the input), each repeated `stride` times.
    void repeat_row(T* to, const S* row) const {
        const int64_t begin = imax(0, -first), end = imin(items, w - first);
        std::memset(to, 0, sizeof(T) * begin * period);
        std::memset(to + end * period, 0, sizeof(T) * ((items - end) * period + L));
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

    // A row of the output's gradient after `lead` zeros, with zeros up to `size` behind it.
    void place_row(T* to, const S* row, int64_t lead, int64_t size) const {
        std::memset(to, 0, sizeof(T) * lead);
        for (int64_t i = 0; i < count; ++i) to[lead + i] = T(to_number(row[i]));
        std::memset(to + lead + count, 0, sizeof(T) * (size - lead - count));
    }

    // row[e] = sum over rows and taps t of input[at + e - t periods] * tap, for `size` numbers e (a vector may run over).
    // kTaps is the number of rows and of taps along a row, or 0 where they are read at run time.
    template <int kTaps>
    void expand(const Scratch& s, int64_t rows, int64_t at, int64_t size) const {
        const int64_t turn = L % period;
        int64_t phase = (start + at) % period;
        const T *from[kTaps + 1], *times[kTaps + 1];
        for (int r = 0; r < kTaps; ++r) from[r] = s.rows[r] + at, times[r] = s.panels[r];
        for (int64_t e = 0; e < size; e += L) {
            Vec<T> total{};
            if constexpr (kTaps > 0) {
                for (int r = 0; r < kTaps; ++r) {
                    for (int t = 0; t < kTaps; ++t) total += load(from[r] + e - t * period) * load(times[r] + phase + t * panel_row);
                }
            } else {
                for (int64_t r = 0; r < rows; ++r) {
                    const T *in = s.rows[r] + at + e, *by = s.panels[r] + phase;
                    for (int64_t t = 0; t < taps; ++t) total += load(in - t * period) * load(by + t * panel_row);
                }
            }
            store(s.row + e, total);
            phase += turn;
            if (phase >= period) phase -= period;
        }
    }

    // sums[t][e] = sum over rows of gradient[at + e] * tap t, for kTaps taps from `tap` on.
    template <int kTaps>
    void weigh(const Scratch& s, int64_t rows, int64_t tap, int64_t sums_row, int64_t at, int64_t size) const {
        const int64_t turn = L % period;
        int64_t phase = 0;
        for (int64_t e = 0; e < size; e += L) {
            Vec<T> total[kTaps] = {};
            for (int64_t r = 0; r < rows; ++r) {
                const Vec<T> v = load(s.rows[r] + at + e);
                const T* by = s.panels[r] + tap * panel_row + phase;
                for (int t = 0; t < kTaps; ++t) total[t] += v * load(by + t * panel_row);
            }
            for (int t = 0; t < kTaps; ++t) store(s.sums + (tap + t) * sums_row + e, total[t]);
            phase += turn;
            if (phase >= period) phase -= period;
        }
    }

    // Adds the sum of each period to pixels column, column + 1, ... of the row, where there are such.
    void fold(T* __restrict row, const T* __restrict sums, int64_t column, int64_t size) const {
        const int64_t begin = imax(0, -column), end = imin(size, w - column);
        if (last) {
            for (int64_t p = begin; p < end; ++p) {
                for (int64_t r = 0; r < stride; ++r) {
                    for (int64_t c = 0; c < inner; ++c) row[(column + p) * inner + c] += sums[p * period + r * inner + c];
                }
            }
            return;
        }
        with_stride(stride, [&](auto n) {
            for (int64_t p = begin; p < end; ++p) {
                T total = 0;
                for (int64_t r = 0; r < n; ++r) total += sums[p * n + r];
                row[column + p] += total;
            }
        });
    }

    // Adds products of the gradient's row and an input row to the sums of their phases; kTaps taps, a period apart.
    template <int kTaps>
    void correlate(T* sums, const T* grad, const T* input) const {
        const int64_t turn = L % period;
        int64_t phase = start % period;
        if (turn == 0) {  // a lane never changes its phase
            Vec<T> total[kTaps] = {};
            for (int64_t e = 0; e < count; e += L) {
                const Vec<T> v = load(grad + e);
                for (int t = 0; t < kTaps; ++t) total[t] += v * load(input + e - t * period);
            }
            for (int t = 0; t < kTaps; ++t) store(sums + t * panel_row + phase, load(sums + t * panel_row + phase) + total[t]);
            return;
        }
        for (int64_t e = 0; e < count; e += L) {
            const Vec<T> v = load(grad + e);
            for (int t = 0; t < kTaps; ++t) {
                T* to = sums + t * panel_row + phase;
                store(to, load(to) + v * load(input + e - t * period));
            }
            phase += turn;
            if (phase >= period) phase -= period;
        }
    }

    const ConvTransposeAddArgs& a;
    const bool last;  // channels_last
    const Planes<S> x, out;
    const int64_t channels, inner, planes, h, w, height, width;
    const int64_t count;  // numbers of an output row
    const int64_t k, stride;
    const int64_t taps;    // of one axis that meet in an output pixel
    const int64_t period;  // numbers of `stride` output pixels
    const int64_t panel_row;
    const int64_t first, items, start;  // input columns in a repeated row, and where in it the output row begins
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
