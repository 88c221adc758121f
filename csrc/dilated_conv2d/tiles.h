// Tiles in shared memory and their products. 128 threads, four warps in two rows and two columns, make a tile of the
// result; each stage of the pipeline holds 64 bytes of depth for each row and column of it.
//
// A tile is stored in chunks of 16 bytes, placed so that neither the copies nor the reads meet in a bank. multiply_rows
// takes tiles whose rows of 64 bytes are depth (of a pixel or a filter); multiply_columns takes tiles with a row for each
// step in depth.
#pragma once

#include "../common/mma.h"

namespace fcn {
namespace {

constexpr int kThreads = 128;
constexpr int kStages = 4;
constexpr int kDepthBytes = 64;  // of depth, of a row or column of the result

template <class S>
constexpr int kDepth = kDepthBytes / int(sizeof(S));

// Blocks that a multiprocessor should hold; it says how many registers a thread may have.
template <int kM, int kN, bool kAligned>
constexpr int kBlocksAtOnce = kM * kN > 128 * 64 ? 2 : kM * kN > 64 * 64 || !kAligned ? 3 : 4;

// A warp's part of the result, kRows x kColumns, as multiply_add holds it: v[i][j][2h + e] is row 16i + g + 8h, column
// 8j + 2t + e.
template <int kRows, int kColumns>
struct Accumulators {
    float v[kRows / 16][kColumns / 8][4];
};

FCN_D int row_chunk(int row, int chunk) { return row * kDepthBytes + ((chunk ^ ((row >> 1) & 3)) << 4); }

// Numbers of 32 bits are read one by one, so a pitch that moves each row by 8 banks does, and spares registers.
template <class S, int kTile>
constexpr int kPitch = kTile * int(sizeof(S)) + (sizeof(S) == 4 ? 32 : 0);

template <class S, int kTile>
FCN_D int column_chunk(int depth, int chunk) {
    return depth * kPitch<S, kTile> + ((sizeof(S) == 4 ? chunk : chunk ^ (depth & 7)) << 4);
}

// Copies a chunk of numbers of which the first `count` exist (none if count <= 0); zeros for the rest.
template <class S, bool kAligned>
FCN_D void copy_chunk(char* to, const S* from, int count) {
    if constexpr (kAligned) {
        copy_async_16(to, from, count > 0);
    } else {
        Pack<S, kPack<S>> pack;
#pragma unroll
        for (int i = 0; i < kPack<S>; ++i) pack.v[i] = i < count ? from[i] : from_float<S>(0.0f);
        store_pack(reinterpret_cast<S*>(to), pack);
    }
}

// Products on tensor cores: 16-bit numbers as they are, float as tf32.
template <class S>
struct TensorCores {
    static FCN_D uint32_t operand(uint32_t bits) { return sizeof(S) == 4 ? round_to_tf32(bits) : bits; }

    // `first_row` and `first_column` are where the warp's part begins in the tiles.
    template <int kRows, int kColumns>
    static FCN_D void multiply_rows(Accumulators<kRows, kColumns>& sum, const char* rows, int first_row, const char* columns,
                                    int first_column) {
        const int lane = int(threadIdx.x) % 32;
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            uint32_t b[kColumns / 8][2];
#pragma unroll
            for (int j = 0; j < kColumns / 16; ++j) {
                const int column = first_column + 16 * j + lane % 8 + lane / 16 * 8, chunk = 2 * step + lane / 8 % 2;
                uint32_t pair[4];
                load_matrices(pair, columns + row_chunk(column, chunk));
#pragma unroll
                for (int r = 0; r < 4; ++r) b[2 * j + r / 2][r % 2] = operand(pair[r]);
            }
#pragma unroll
            for (int i = 0; i < kRows / 16; ++i) {
                uint32_t a[4];
                load_matrices(a, rows + row_chunk(first_row + 16 * i + lane % 16, 2 * step + lane / 16));
#pragma unroll
                for (int r = 0; r < 4; ++r) a[r] = operand(a[r]);
#pragma unroll
                for (int j = 0; j < kColumns / 8; ++j) multiply_add<S>(sum.v[i][j], a, b[j]);
            }
        }
    }

    // kTile is the width of both tiles.
    template <int kTile, int kRows, int kColumns>
    static FCN_D void multiply_columns(Accumulators<kRows, kColumns>& sum, const char* rows, int first_row, const char* columns,
                                       int first_column) {
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            uint32_t b[kColumns / 8][2];
#pragma unroll
            for (int j = 0; j < kColumns / 16; ++j) {
                load_columns<kTile>(b[2 * j], b[2 * j + 1], columns, step, first_column + 16 * j);
            }
#pragma unroll
            for (int i = 0; i < kRows / 16; ++i) {
                uint32_t a[4];
                load_rows<kTile>(a, rows, step, first_row + 16 * i);
#pragma unroll
                for (int j = 0; j < kColumns / 8; ++j) multiply_add<S>(sum.v[i][j], a, b[j]);
            }
        }
    }

private:
    // 16 rows of a product's left side, or 16 columns of its right side, from a tile whose slow axis is depth.
    template <int kTile>
    static FCN_D void load_rows(uint32_t (&a)[4], const char* tile, int step, int row) {
        const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
        if constexpr (sizeof(S) == 2) {
            const int depth = 16 * step + lane % 8 + lane / 16 * 8;
            load_matrices_transposed(a, tile + column_chunk<S, kTile>(depth, row / 8 + lane / 8 % 2));
        } else {
#pragma unroll
            for (int r = 0; r < 4; ++r) a[r] = tf32_at<kTile>(tile, 8 * step + t + r / 2 * 4, row + g + r % 2 * 8);
        }
    }

    template <int kTile>
    static FCN_D void load_columns(uint32_t (&left)[2], uint32_t (&right)[2], const char* tile, int step, int column) {
        const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
        if constexpr (sizeof(S) == 2) {
            uint32_t pair[4];
            load_matrices_transposed(pair, tile + column_chunk<S, kTile>(16 * step + lane % 16, column / 8 + lane / 16));
            left[0] = pair[0], left[1] = pair[1], right[0] = pair[2], right[1] = pair[3];
        } else {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                left[r] = tf32_at<kTile>(tile, 8 * step + t + 4 * r, column + g);
                right[r] = tf32_at<kTile>(tile, 8 * step + t + 4 * r, column + g + 8);
            }
        }
    }

    template <int kTile>
    static FCN_D uint32_t tf32_at(const char* tile, int depth, int column) {
        const char* chunk = tile + column_chunk<float, kTile>(depth, column / 4);
        return operand(__float_as_uint(reinterpret_cast<const float*>(chunk)[column % 4]));
    }
};

// Products of float32 by fused multiply-adds: every bit counts.
struct Fma {
    template <int kRows, int kColumns>
    static FCN_D void multiply_rows(Accumulators<kRows, kColumns>& sum, const char* rows, int first_row, const char* columns,
                                    int first_column) {
        const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1  // or loads are moved ahead until registers run out
        for (int chunk = 0; chunk < 4; ++chunk) {
            Pack<float, 4> a[kRows / 8];
#pragma unroll
            for (int i = 0; i < kRows / 8; ++i) a[i] = chunk_at(rows, row_chunk(first_row + 8 * i + g, chunk));
#pragma unroll
            for (int j = 0; j < kColumns / 4; ++j) {
                const Pack<float, 4> b = chunk_at(columns, row_chunk(first_column + j / 2 * 8 + 2 * t + j % 2, chunk));
#pragma unroll
                for (int i = 0; i < kRows / 8; ++i) {
                    float& d = sum.v[i / 2][j / 2][i % 2 * 2 + j % 2];
#pragma unroll
                    for (int k = 0; k < 4; ++k) d = fmaf(a[i].v[k], b.v[k], d);
                }
            }
        }
    }

    template <int kTile, int kRows, int kColumns>
    static FCN_D void multiply_columns(Accumulators<kRows, kColumns>& sum, const char* rows, int first_row, const char* columns,
                                       int first_column) {
        const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int k = 0; k < kDepth<float>; ++k) {
            float a[kRows / 8], b[kColumns / 8][2];
#pragma unroll
            for (int i = 0; i < kRows / 8; ++i) a[i] = at<kTile>(rows, k, first_row + 8 * i + g);
#pragma unroll
            for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
                for (int e = 0; e < 2; ++e) b[j][e] = at<kTile>(columns, k, first_column + 8 * j + 2 * t + e);
            }
#pragma unroll
            for (int i = 0; i < kRows / 8; ++i) {
#pragma unroll
                for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        float& d = sum.v[i / 2][j][2 * (i % 2) + e];
                        d = fmaf(a[i], b[j][e], d);
                    }
                }
            }
        }
    }

private:
    static FCN_D Pack<float, 4> chunk_at(const char* tile, int offset) {
        return load_pack<4>(reinterpret_cast<const float*>(tile + offset));
    }

    template <int kTile>
    static FCN_D float at(const char* tile, int depth, int column) {
        return reinterpret_cast<const float*>(tile + column_chunk<float, kTile>(depth, column / 4))[column % 4];
    }
};

// Gathers a block's result in shared memory, so that it leaves in chunks of 16 bytes. `addend(column)` is added to a column,
// `destination(row)` is where a row of the tile goes (null: nowhere). Only the first `columns` of a row exist.
template <class Out, int kM, int kN, class Addend, class Destination>
FCN_D void store_tile(const Accumulators<kM / 2, kN / 2>& sum, char* shared, int columns, bool aligned, bool relu,
                      const Addend& addend, const Destination& destination) {
    constexpr int kRow = kN + kPack<Out>;  // one more chunk: rows of a column lie in different banks
    const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
    Out* const tile = reinterpret_cast<Out*>(shared);
    __syncthreads();  // all products are done
#pragma unroll
    for (int j = 0; j < kN / 16; ++j) {
        const int column = warp % 2 * (kN / 2) + 8 * j + 2 * t;
        const float added[2] = {addend(column), addend(column + 1)};
#pragma unroll
        for (int i = 0; i < kM / 32; ++i) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int row = warp / 2 * (kM / 2) + 16 * i + g + 8 * h;
                Pack<Out, 2> pair;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const float value = sum.v[i][j][2 * h + e] + added[e];
                    pair.v[e] = from_float<Out>(relu && value < 0 ? 0.0f : value);
                }
                store_pack(tile + row * kRow + column, pair);
            }
        }
    }
    __syncthreads();
    constexpr int kChunks = kN / kPack<Out>;
    for (int at = thread; at < kM * kChunks; at += kThreads) {
        const int row = at / kChunks, column = at % kChunks * kPack<Out>;
        Out* const to = destination(row);
        if (!to || column >= columns) continue;
        const Pack<Out, kPack<Out>> pack = load_pack<kPack<Out>>(tile + row * kRow + column);
        if (aligned) {
            write_pack(to + column, pack);
        } else {
#pragma unroll
            for (int i = 0; i < kPack<Out>; ++i) {
                if (column + i < columns) to[column + i] = pack.v[i];
            }
        }
    }
}

// Shared memory of a block whose result is kM x kN: the pipeline's, reused for the result.
template <class Out, int kM, int kN>
constexpr int shared_bytes(int stage_bytes) {
    const int pipeline = kStages * stage_bytes, result = kM * (kN + kPack<Out>) * int(sizeof(Out));
    return pipeline > result ? pipeline : result;
}

}  // namespace
}  // namespace fcn
