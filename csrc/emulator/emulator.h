// CUDA on a CPU, for tests: kernels run as they are written, compiled by the host compiler, in an order that the tests
// choose. What a kernel includes is common/cuda.h; the language itself (threadIdx, __syncthreads, ...) is in language.h.
//
// Blocks run one after the other. A block's threads are fibers: each runs until it waits for others or ends, then the
// next one runs, in forward, reverse or random order. A kernel that is right gives the same result, bit for bit, in
// every order; one that lacks a barrier does not. Only one launch runs at a time in a process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "../common/tensor.h"

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the thread that runs now.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace fcn::emulator {

// Where in the source a thread waits.
struct Site {
    const char *what, *file;
    int line;
};

// What threads that meet do together. parts[i] is what the i-th of them brought, null where there is no such thread;
// `mask` holds the bits of the lanes that meet in a warp.
using Together = void (*)(void* const* parts, int count, unsigned mask);

// Waits for all threads of the block, or for the lanes `mask` of the warp. The last thing done before all go on is
// `together`, once. A meeting that never comes about ends the launch with an error that names block, thread and line.
void meet_block(void* part, Together together, Site site);
void meet_warp(unsigned mask, void* part, Together together, Site site);

int thread_in_block();
std::string where();  // "block (0, 0, 0), thread (3, 0, 0)"

// Shared memory whose size the launch sets: poisoned before each block, with guard zones that are checked after it.
void* dynamic_shared();

// cp.async: a copy is made no sooner than its group is waited for. Until then its target holds poison.
void copy_later(void* to, const void* from, int bytes, int zeros);
void commit_copies();
void wait_copies(int groups_left);

// The most shared memory that a block may have: as on an H100, or what a test says.
constexpr size_t kMostShared = 227 << 10;
size_t most_shared();
void set_most_shared(size_t bytes);

// How approximations are off (see approximate.h). At first as the environment variable FCN_KERNELS_EMULATE_APPROXIMATE says:
// random, high or low.
enum class Approximation { exact, random, high, low };
Approximation approximation();
void set_approximation(Approximation value);

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

enum class Order { forward, reverse, random };
void set_order(Order order, unsigned seed);

// Tensors of one call, moved into memory with poisoned zones around them. Tensors too large to copy stay where they are.
class Guarded {
public:
    void add(Tensor& tensor, const char* name);
    void finish();  // moves results back; throws if anything outside a tensor was written

private:
    struct Buffer {
        const char* name;
        char* original;
        size_t bytes;
        std::vector<char> memory;
        char* data;
    };
    std::vector<Buffer> buffers_;
};

constexpr unsigned char kPoison = 0xff;  // NaN in every floating-point type

}  // namespace fcn::emulator
