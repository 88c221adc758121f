// upsample_argmax on a GPU: a thread keeps the best score and class of each of its pixels in registers and goes through the
// classes that can win in its cell.
#include "cuda.h"

#include <type_traits>

#include "../common/infinite.h"
#include "cuda_candidates.h"

namespace fcn {
namespace {

// Scores of a class at the pixels of a patch: at pixel (row, k), first + row * down + k * (step + row * twist).
struct PatchScores {
    float first, down, step, twist;

    FCN_D PatchScores(const float (&v)[4], float t_row, float t_column, float row_step, float column_step) {
        const float upper = v[1] - v[0], lower = v[3] - v[2];
        const float upper_first = fmaf(t_column, upper, v[0]), lower_first = fmaf(t_column, lower, v[2]);
        const float difference = lower_first - upper_first, turn = (lower - upper) * column_step;
        first = fmaf(t_row, difference, upper_first), down = difference * row_step;
        step = fmaf(t_row, turn, upper * column_step), twist = turn * row_step;
    }

    FCN_D float at(int row, int k) const {
        return fmaf(float(k), fmaf(float(row), twist, step), fmaf(float(row), down, first));
    }
};

// The same of scores that need not be finite.
struct AnyPatchScores {
    const float (&v)[4];
    float t_row, t_column, row_step, column_step;

    FCN_D float at(int row, int k) const {
        const float t = fmaf(float(row), row_step, t_row);
        const float left = along(v[0], t, difference(v[0], v[2])), right = along(v[1], t, difference(v[1], v[3]));
        return along(left, fmaf(float(k), column_step, t_column), difference(left, right));
    }
};

// Best scores and winning classes of R x K pixels. Labels of one byte are packed, four to a register.
template <int K, int R, class Label>
struct Winners {
    static constexpr int kPacked = std::is_same_v<Label, uint8_t> && K % 4 == 0 ? 4 : 1;
    float best[R][K];
    unsigned label[R][K / kPacked];

    // The class of the first candidate is taken unless another beats it; c is that one.
    FCN_D void reset(int c) {
#pragma unroll
        for (int row = 0; row < R; ++row) {
#pragma unroll
            for (int k = 0; k < K; ++k) best[row][k] = -INFINITY;
#pragma unroll
            for (int i = 0; i < K / kPacked; ++i) label[row][i] = kPacked == 4 ? unsigned(c) * 0x01010101u : unsigned(c);
        }
    }

    // A NaN wins, the first one.
    template <class Scores>
    FCN_D void meet(int c, const Scores& scores) {
        constexpr bool ordered = std::is_same_v<Scores, PatchScores>;
#pragma unroll
        for (int row = 0; row < R; ++row) {
#pragma unroll
            for (int k = 0; k < K; ++k) {
                const float v = scores.at(row, k);
                const bool wins = ordered ? v > best[row][k] : !(v <= best[row][k]) && best[row][k] == best[row][k];
                if (!wins) continue;
                best[row][k] = v;
                if constexpr (kPacked == 4) {
                    // The byte of pixel k comes from c, the others stay.
                    const unsigned selector = 0x3210u + ((4u - k % 4) << 4 * (k % 4));
                    label[row][k / 4] = __byte_perm(label[row][k / 4], unsigned(c), selector);
                } else {
                    label[row][k] = unsigned(c);
                }
            }
        }
    }
};

// Goes through the candidates 32 at a time: which of them can win in the cell, then those alone.
template <int K, int R, class Label, class S>
FCN_D void find_winners(const ArgmaxArgs<S>& a, const Candidates& candidates, const Corners<S>& corners, const Run& row,
                        const Run& column, bool keep_scores, Winners<K, R, Label>& winners) {
    float v[4];
    winners.reset(candidates.at(0));
    if (!candidates.finite) {
#pragma unroll 1
        for (int i = 0; i < candidates.count; ++i) {
            corners.read(candidates.at(i), v);
            winners.meet(candidates.at(i), AnyPatchScores{v, row.t, column.t, a.rows.slope, a.columns.slope});
        }
        return;
    }
    Bound bound{-INFINITY, 0};
#pragma unroll 1
    for (int i = 0; i < candidates.count; ++i) {
        corners.read(candidates.at(i), v);
        bound.add(range_of(v));
    }
#pragma unroll 1
    for (int first = 0; first < candidates.count; first += 32) {
        unsigned alive = 0;
#pragma unroll 1
        for (int i = 0; i < min(32, candidates.count - first); ++i) {
            corners.read(candidates.at(first + i), v);
            if (!bound.beats(range_of(v))) alive |= 1u << i;
        }
        if (candidates.count <= 32 && !keep_scores && (alive & (alive - 1)) == 0) {
            winners.reset(candidates.at(__ffs(int(alive)) - 1));
            return;
        }
#pragma unroll 1
        for (; alive != 0; alive &= alive - 1) {
            const int c = candidates.at(first + __ffs(int(alive)) - 1);
            corners.read(c, v);
            winners.meet(c, PatchScores(v, row.t, column.t, a.rows.slope, a.columns.slope));
        }
    }
}

template <int K, class Label>
FCN_D void store_row(Label* at, const unsigned (&label)[K], int count) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
        if (k < count) at[k] = Label(label[k]);
    }
}

// Packed labels, in words where they lie on a multiple of 4 or 8 bytes.
template <int kWords>
FCN_D void store_packed_row(uint8_t* at, const unsigned (&words)[kWords], int count) {
    constexpr int K = 4 * kWords;
    const unsigned misaligned = unsigned(reinterpret_cast<uintptr_t>(at));
    if (K == 8 && count == K && misaligned % 8 == 0) {
        *reinterpret_cast<uint2*>(at) = make_uint2(words[0], words[kWords - 1]);
    } else if (misaligned % 4 == 0) {
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
            if (4 * i + 4 <= count) {
                reinterpret_cast<unsigned*>(at)[i] = words[i];
            } else {
#pragma unroll
                for (int k = 0; k < 3; ++k) {
                    if (4 * i + k < count) at[4 * i + k] = uint8_t(words[i] >> 8 * k);
                }
            }
        }
    } else {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (k < count) at[k] = uint8_t(words[k / 4] >> 8 * (k % 4));
        }
    }
}

template <int K, int R, class Scores>
FCN_D void add_exponentials(const Scores& scores, const float (&best)[R][K], float (&sum)[R][K]) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int k = 0; k < K; ++k) sum[r][k] += exp2_approx(kLog2E * (scores.at(r, k) - best[r][k]));
    }
}

// The softmax probability of each pixel's winner.
template <int K, int R, class Label, class S>
FCN_D void write_confidence(const ArgmaxArgs<S>& a, bool finite, const Corners<S>& corners, const Run& row, const Run& column,
                            const Winners<K, R, Label>& winners, int64_t at) {
    float sum[R][K] = {}, v[4];
#pragma unroll 1
    for (int c = 0; c < a.classes; ++c) {
        corners.read(c, v);
        if (finite) {
            add_exponentials(PatchScores(v, row.t, column.t, a.rows.slope, a.columns.slope), winners.best, sum);
        } else {
            add_exponentials(AnyPatchScores{v, row.t, column.t, a.rows.slope, a.columns.slope}, winners.best, sum);
        }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if (r < row.count && k < column.count) a.confidence[at + int64_t(r) * a.columns.size + k] = __fdividef(1, sum[r][k]);
        }
    }
}

// With no word about the number of blocks the assembler saves registers where it need not, and spills.
template <int K, int R, class Label, bool kConfidence, class S>
__global__ void __launch_bounds__(kThreads, 2) argmax_kernel(const ArgmaxArgs<S> a) {
    const Place place(a);
    const Candidates candidates = find_candidates(a, place);
    if (!place.active) return;
    const Corners<S> corners(a, place);
    const Run row = a.rows.run(place.tile_row * a.rows.tile + place.row_unit, place.row_piece);
    const Run column = a.columns.run(place.tile_column * a.columns.tile + place.column_unit, place.column_piece);
    if (row.count == 0 || column.count == 0) return;
    Winners<K, R, Label> winners;
    find_winners(a, candidates, corners, row, column, kConfidence, winners);
    const int64_t at = (int64_t(place.image) * a.rows.size + row.first) * a.columns.size + column.first;
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (r >= row.count) continue;
        Label* const labels = static_cast<Label*>(a.labels) + at + int64_t(r) * a.columns.size;
        if constexpr (Winners<K, R, Label>::kPacked == 4) {
            store_packed_row(labels, winners.label[r], column.count);
        } else {
            store_row(labels, winners.label[r], column.count);
        }
    }
    if constexpr (kConfidence) write_confidence(a, candidates.finite, corners, row, column, winners, at);
}

// K x K pixels for a thread; of 8 columns 4 rows, or 2 where labels are not packed. Not fewer with confidence: scores are
// rounded the same way with it and without, so labels are the same.
template <class Label, bool kConfidence, class S>
void launch_argmax(ArgmaxArgs<S>& a, const UpsampleArgmaxArgs& args, cudaStream_t stream) {
    const Tensor& x = args.x;
    const auto axis = [&](bool rows, int longest) {
        return AxisPatches(rows ? args.grid.rows : args.grid.columns, x.size[rows ? 2 : 3], args.grid.clamp, longest);
    };
    const int k = patch_columns(axis(true, 8), axis(false, 8));
    constexpr int kRows = sizeof(Label) == 1 ? 4 : 2;
    const Tiling tiling(axis(true, k == 8 ? kRows : k), axis(false, k), x.size[0]);
    a.rows = tiling.rows, a.columns = tiling.columns;
    a.by_runs = Divisor(a.columns.tile * a.columns.pieces);
    const auto with = [&](auto* kernel) {
        launch(kernel, unsigned(tiling.blocks), unsigned(tiling.threads), BlockMemory::bytes(a.classes), stream, a);
    };
    if (k == 8) return with(argmax_kernel<8, kRows, Label, kConfidence, S>);
    if (k == 4) return with(argmax_kernel<4, 4, Label, kConfidence, S>);
    if (k == 2) return with(argmax_kernel<2, 2, Label, kConfidence, S>);
    with(argmax_kernel<1, 1, Label, kConfidence, S>);
}

}  // namespace

template <class S>
void upsample_argmax(const UpsampleArgmaxArgs& args, cudaStream_t stream) {
    const Tensor& x = args.x;
    if ((x.size[2] - 1) * x.stride[2] + (x.size[3] - 1) * x.stride[3] >= (int64_t(1) << 31)) {
        throw std::invalid_argument("x: a class of an image spans 2^31 numbers or more");
    }
    ArgmaxArgs<S> a;
    a.x = static_cast<const S*>(x.data);
    for (int i = 0; i < 4; ++i) a.x_stride[i] = x.stride[i];
    a.labels = args.labels.data, a.confidence = static_cast<float*>(args.confidence.data);
    a.classes = int(x.size[1]);
    const bool bytes = args.labels.dtype == DType::uint8;
    if (bytes && !a.confidence) return launch_argmax<uint8_t, false>(a, args, stream);
    if (bytes) return launch_argmax<uint8_t, true>(a, args, stream);
    if (!a.confidence) return launch_argmax<int64_t, false>(a, args, stream);
    launch_argmax<int64_t, true>(a, args, stream);
}

template void upsample_argmax<FCN_NUMBER>(const UpsampleArgmaxArgs&, cudaStream_t);

}  // namespace fcn
