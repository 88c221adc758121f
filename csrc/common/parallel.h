// Parallel loops. They share the OpenMP pool that torch uses (one library, loaded first by torch).
#pragma once

#include <cstdint>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fcn::FCN_ISA {

// f(task, thread) for each task in [0, tasks). Which thread runs a task is left open, so results must not depend on it.
// One thread never enters OpenMP: that keeps the kernels usable after fork(), as in a DataLoader's workers.
template <class F>
inline void parallel_for(int64_t tasks, [[maybe_unused]] int threads, const F& f) {
#if defined(_OPENMP)
    if (threads > 1 && tasks > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (int64_t task = 0; task < tasks; ++task) f(task, omp_get_thread_num());
        return;
    }
#endif
    for (int64_t task = 0; task < tasks; ++task) f(task, 0);
}

// Flushes subnormal numbers to zero on this thread while in scope: tails of softmax products would crawl otherwise.
class FlushSubnormals {
public:
#if defined(__x86_64__)
    FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
    ~FlushSubnormals() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#elif defined(__aarch64__)
    FlushSubnormals() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" : : "r"(saved_ | uint64_t(1) << 24));
    }
    ~FlushSubnormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

private:
    uint64_t saved_;
#else
    FlushSubnormals() {}  // they may crawl
#endif
};

}  // namespace fcn::FCN_ISA
