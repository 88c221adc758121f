// Matrix products of a warp and copies that do not wait: the instructions of sm_80 and later, or their emulation.
//
// Lane l of a warp is g = l / 4, t = l % 4. In a product of [16, k] by [k, 8] it holds of
//   the result   d[2h + e]: row g + 8h, column 2t + e
//   16-bit, k 16 a[2j + h]: row g + 8h, columns 8j + 2t and + 1;   b[j]: rows 8j + 2t and + 1, column g
//   tf32, k 8    a[2j + h]: row g + 8h, column 4j + t;             b[j]: row 4j + t, column g
#pragma once

#include "cuda.h"

#if defined(FCN_EMULATE)
#include "../emulator/mma.h"
#else

namespace fcn {

FCN_D unsigned shared_address(const void* at) { return unsigned(__cvta_generic_to_shared(at)); }

// Starts to copy 16 bytes into shared memory; writes zeros instead where there is nothing to read.
FCN_D void copy_async_16(void* to, const void* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(exists ? 16 : 0)
                 : "memory");
}

// The copies started since the last commit are a group; waits until at most kLeft groups are under way.
FCN_D void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kLeft>
FCN_D void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Four matrices of 8 rows of 16 bytes. Lane 8i + j gives the address of row j of matrix i and gets of matrix i the four
// bytes at row g, byte 4t in r[i].
FCN_D void load_matrices(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same for matrices of 8 x 8 numbers of 16 bits, each transposed on the way.
FCN_D void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a b for numbers of type S; float is rounded to tf32 before (round_to_tf32).
template <class S>
FCN_D void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#define FCN_MMA(name)                                                                                                       \
    asm volatile("mma.sync.aligned." name " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
    if constexpr (std::is_same_v<S, float>) {
        FCN_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
    } else if constexpr (std::is_same_v<S, float16>) {
        FCN_MMA("m16n8k16.row.col.f32.f16.f16.f32");
    } else {
        FCN_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
    }
#undef FCN_MMA
}

// The bits of a float32 rounded to tf32: 10 bits of mantissa, ties away from zero.
FCN_D uint32_t round_to_tf32(uint32_t bits) {
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
}

}  // namespace fcn

#endif
