// The CUDA language for kernels, and what all of them share. The only header of its kind that a kernel includes: with
// nvcc it is CUDA, with a host compiler and FCN_EMULATE the emulator of csrc/emulator. Kernels live in an anonymous
// namespace inside `fcn`; a .cu file is compiled once for each dtype, FCN_NUMBER.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "tensor.h"

#if defined(FCN_EMULATE)
#include "../emulator/language.h"
#define FCN_HD inline
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "device.h"
#define FCN_HD __host__ __device__ __forceinline__
#endif
#define FCN_D __device__ __forceinline__

namespace fcn {

#if defined(FCN_EMULATE)

using float16 = FCN_ISA::float16;
using bfloat16 = FCN_ISA::bfloat16;

inline float to_float(float v) { return v; }
inline float to_float(float16 v) { return FCN_ISA::to_number(v); }
inline float to_float(bfloat16 v) { return FCN_ISA::to_number(v); }

template <class T>
inline T from_float(float v) {
    T out;
    FCN_ISA::from_number(v, out);
    return out;
}

// Shared memory whose size the launch sets.
template <class T>
inline T* dynamic_shared() { return static_cast<T*>(emulator::dynamic_shared()); }

// See device.h.
inline size_t most_shared() { return emulator::most_shared(); }

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, A... args) {
    emulator::run(grid, block, shared_bytes, [&] { kernel(args...); });
}

inline void check_aligned(const void* at, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(at) % bytes != 0) {
        throw std::runtime_error(emulator::where() + ": an access of " + std::to_string(bytes) + " bytes is not aligned");
    }
}

#else

using float16 = __half;
using bfloat16 = __nv_bfloat16;

FCN_D float to_float(float v) { return v; }
FCN_D float to_float(float16 v) { return __half2float(v); }
FCN_D float to_float(bfloat16 v) { return __bfloat162float(v); }

template <class T>
FCN_D T from_float(float v) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return v;
    } else if constexpr (std::is_same_v<T, float16>) {
        return __float2half_rn(v);
    } else {
        return __float2bfloat16_rn(v);
    }
}

FCN_D void check_aligned(const void*, size_t) {}

#if defined(__CUDACC__)  // what follows only nvcc can read; the bindings need the rest

// Shared memory whose size the launch sets.
template <class T>
FCN_D T* dynamic_shared() {
    extern __shared__ __align__(16) unsigned char fcn_dynamic_shared[];
    return reinterpret_cast<T*>(fcn_dynamic_shared);
}

#endif
#endif

// kCount numbers that are read and written in one access (of 16 bytes, where kCount is kPack<T>).
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
    T v[kCount];
};

template <class T>
constexpr int kPack = 16 / int(sizeof(T));

template <int kCount, class T>
FCN_D Pack<T, kCount> load_pack(const T* at) {
    check_aligned(at, sizeof(T) * kCount);
    return *reinterpret_cast<const Pack<T, kCount>*>(at);
}

template <int kCount, class T>
FCN_D void store_pack(T* at, const Pack<T, kCount>& pack) {
    check_aligned(at, sizeof(T) * kCount);
    *reinterpret_cast<Pack<T, kCount>*>(at) = pack;
}

// To global memory, in one instruction: a plain assignment the compiler takes apart where the numbers were made one by one.
template <int kCount, class T>
FCN_D void write_pack(T* at, const Pack<T, kCount>& pack) {
    constexpr size_t kBytes = sizeof(T) * kCount;
    check_aligned(at, kBytes);
    if constexpr (kBytes == 16 || kBytes == 8) {
        std::conditional_t<kBytes == 16, uint4, uint2> word;
        memcpy(&word, &pack, kBytes);
        __stwb(reinterpret_cast<decltype(word)*>(at), word);
    } else {
        static_assert(kCount == 1, "a single number, or 8 or 16 bytes");
        *at = pack.v[0];
    }
}

// From global memory that nobody writes while the kernel runs: the compiler may move these loads across stores.
template <class T>
FCN_D T read(const T* at) {
    return __ldg(at);
}

template <int kCount, class T>
FCN_D Pack<T, kCount> read_pack(const T* at) {
    check_aligned(at, sizeof(T) * kCount);
    if constexpr (sizeof(T) * kCount == 16) {
        const uint4 bytes = read(reinterpret_cast<const uint4*>(at));
        Pack<T, kCount> pack;
        memcpy(&pack, &bytes, 16);
        return pack;
    } else {
        static_assert(kCount == 1, "a single number, or 16 bytes");
        return {{read(at)}};
    }
}

}  // namespace fcn
