// What common/mma.h promises, on a CPU. Products are exact and summed in float64, then rounded once to float32; tensor
// cores may differ in the last bits.
#pragma once

namespace fcn {

inline void copy_async_16(void* to, const void* from, bool exists) {
    check_aligned(to, 16);
    if (exists) check_aligned(from, 16);
    emulator::copy_later(to, from, exists ? 16 : 0, exists ? 0 : 16);
}
inline void copy_async_commit() { emulator::commit_copies(); }
template <int kLeft>
void copy_async_wait() { emulator::wait_copies(kLeft); }

namespace emulator {

struct Matrices {
    const unsigned char* row;
    uint32_t* r;
};

template <bool kTransposed>
void load_matrices(void* const* parts, int, unsigned) {
    uint16_t matrix[4][8][8];
    for (int i = 0; i < 32; ++i) std::memcpy(matrix[i / 8][i % 8], static_cast<Matrices*>(parts[i])->row, 16);
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) {
            const uint32_t low = kTransposed ? matrix[i][2 * t][g] : matrix[i][g][2 * t];
            const uint32_t high = kTransposed ? matrix[i][2 * t + 1][g] : matrix[i][g][2 * t + 1];
            static_cast<Matrices*>(parts[lane])->r[i] = low | high << 16;
        }
    }
}

struct Product {
    float* d;
    const uint32_t *a, *b;
};

// Number `e` of a register.
template <class S>
double number(uint32_t bits, int e) {
    if constexpr (sizeof(S) == 4) {
        return FCN_ISA::bit_cast<float>(bits & 0xffffe000u);  // the bits beyond tf32 are not looked at
    } else {
        return to_float(FCN_ISA::bit_cast<S>(uint16_t(bits >> 16 * e)));
    }
}

template <class S>
void multiply_add(void* const* parts, int, unsigned) {
    constexpr int kPerRegister = 4 / int(sizeof(S)), kDepth = 8 * kPerRegister;
    double a[16][kDepth], b[8][kDepth];
    for (int lane = 0; lane < 32; ++lane) {
        const auto& part = *static_cast<Product*>(parts[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int j = 0; j < 2; ++j) {
            for (int e = 0; e < kPerRegister; ++e) {
                const int k = (4 * j + t) * kPerRegister + e;
                for (int h = 0; h < 2; ++h) a[g + 8 * h][k] = number<S>(part.a[2 * j + h], e);
                b[g][k] = number<S>(part.b[j], e);
            }
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        const auto& part = *static_cast<Product*>(parts[lane]);
        for (int i = 0; i < 4; ++i) {
            const double *row = a[lane / 4 + 8 * (i / 2)], *column = b[2 * (lane % 4) + i % 2];
            double sum = part.d[i];
            for (int k = 0; k < kDepth; ++k) sum += row[k] * column[k];
            part.d[i] = float(sum);
        }
    }
}

}  // namespace emulator

inline void load_matrices(uint32_t (&r)[4], const void* row, FCN_SITE) {
    check_aligned(row, 16);
    emulator::Matrices mine{static_cast<const unsigned char*>(row), r};
    emulator::meet_warp(~0u, &mine, emulator::load_matrices<false>, {"load_matrices", file, line});
}

inline void load_matrices_transposed(uint32_t (&r)[4], const void* row, FCN_SITE) {
    check_aligned(row, 16);
    emulator::Matrices mine{static_cast<const unsigned char*>(row), r};
    emulator::meet_warp(~0u, &mine, emulator::load_matrices<true>, {"load_matrices_transposed", file, line});
}

template <class S>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], FCN_SITE) {
    emulator::Product mine{d, a, b};
    emulator::meet_warp(~0u, &mine, emulator::multiply_add<S>, {"multiply_add", file, line});
}

inline uint32_t round_to_tf32(uint32_t bits) {
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

}  // namespace fcn
