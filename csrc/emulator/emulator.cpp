#include "emulator.h"

#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>

#include "fibers.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace fcn::emulator {
namespace {

constexpr int kWarp = 32;
constexpr size_t kZone = 256;  // bytes on either side of dynamic shared memory, and 16 times that around tensors

enum class State { fresh, ready, at_block, at_warp, ended };

struct Copy {
    int group;
    void* to;
    std::vector<char> bytes;
};

struct Thread {
    State state;
    dim3 index;
    Fiber* fiber;
    void* part;
    Together together;
    Site site;
    unsigned mask;
    int group;  // of copies, that is open
    std::vector<Copy> copies;
};

std::mutex launching;
size_t shared_limit = kMostShared;
Approximation approximate = [] {
    const char* const set = std::getenv("FCN_KERNELS_EMULATE_APPROXIMATE");
    const std::string value = set ? set : "";
    return value == "random" ? Approximation::random
           : value == "high" ? Approximation::high
           : value == "low"  ? Approximation::low
                             : Approximation::exact;
}();
Order order = Order::forward;
std::mt19937 generator;

// The block that runs.
std::vector<Thread> threads;
std::vector<int> turns;  // thread indices in the order of this round
size_t turn;
int current = -1;
const std::function<void()>* body;
std::exception_ptr error;
std::vector<char> shared;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber*> idle;

std::string text(const dim3& v) {
    return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

std::string text(const Site& site) {
    const char* name = std::strrchr(site.file, '/');
    const char* folder = name;
    while (folder && folder > site.file && folder[-1] != '/') --folder;
    return std::string(site.what) + " in " + (folder ? folder : site.file) + ":" + std::to_string(site.line);
}

bool same(const Site& a, const Site& b) { return a.line == b.line && !std::strcmp(a.file, b.file); }

bool all_poison(const char* from, const char* to) {
    return std::all_of(from, to, [](char c) { return static_cast<unsigned char>(c) == kPoison; });
}

void enter(int id) {
    current = id;
    threadIdx = threads[id].index;
}

// What a fiber does all its life: whole threads, one after the other, while they need not wait.
void work() {
    for (;;) {
        Thread& thread = threads[current];
        try {
            (*body)();
        } catch (...) {
            error = std::current_exception();
        }
        thread.state = State::ended;
        Fiber* fiber = thread.fiber;
        if (!error && turn + 1 < turns.size() && threads[turns[turn + 1]].state == State::fresh) {
            enter(turns[++turn]);
            threads[current].fiber = fiber;
            continue;
        }
        idle.push_back(fiber);
        fiber->pause();
    }
}

void give_turns() {
    turns.resize(threads.size());
    std::iota(turns.begin(), turns.end(), 0);
    if (order == Order::reverse) std::reverse(turns.begin(), turns.end());
    if (order == Order::random) std::shuffle(turns.begin(), turns.end(), generator);
    for (turn = 0; turn < turns.size(); ++turn) {
        Thread& thread = threads[turns[turn]];
        if (thread.state != State::fresh && thread.state != State::ready) continue;
        if (thread.state == State::fresh) {
            if (idle.empty()) {
                fibers.push_back(std::make_unique<Fiber>(work));
                idle.push_back(fibers.back().get());
            }
            thread.fiber = idle.back();
            idle.pop_back();
        }
        enter(turns[turn]);
        thread.fiber->resume();
        if (error) return;
    }
}

// Calls `together` and lets threads first, first + 1, ... go on, those of `mask` if they are a warp's.
void go_on(size_t first, size_t count, unsigned mask, State from) {
    void* parts[1024] = {};
    for (size_t i = 0; i < count; ++i) {
        if (from == State::at_block || (mask >> i & 1)) parts[i] = threads[first + i].part;
    }
    const size_t speaker = from == State::at_block ? first : first + size_t(__builtin_ctz(mask));
    if (threads[speaker].together) threads[speaker].together(parts, int(count), mask);
    for (size_t i = 0; i < count; ++i) {
        if (from == State::at_block || (mask >> i & 1)) threads[first + i].state = State::ready;
    }
}

// Lets those go on whose meeting is complete; returns whether there were any.
bool open_meetings() {
    bool opened = false;
    for (size_t first = 0; first < threads.size(); first += kWarp) {
        const size_t lanes = std::min<size_t>(kWarp, threads.size() - first);
        for (size_t i = 0; i < lanes; ++i) {
            const Thread& one = threads[first + i];
            if (one.state != State::at_warp) continue;
            bool complete = true;
            for (size_t j = 0; j < lanes; ++j) {
                const Thread& other = threads[first + j];
                if (!(one.mask >> j & 1)) continue;
                complete &= other.state == State::at_warp && other.mask == one.mask && same(other.site, one.site);
            }
            if (complete) go_on(first, lanes, one.mask, State::at_warp), opened = true;
        }
    }
    const auto at_same = [](const Thread& t) { return t.state == State::at_block && same(t.site, threads[0].site); };
    if (!opened && std::all_of(threads.begin(), threads.end(), at_same)) {
        go_on(0, threads.size(), ~0u, State::at_block), opened = true;
    }
    return opened;
}

// Nobody can go on: names a thread that waits and one that does not come.
[[noreturn]] void report_divergence() {
    const auto waits = [](const Thread& t) { return t.state == State::at_block || t.state == State::at_warp; };
    const auto one = std::find_if(threads.begin(), threads.end(), waits);
    const size_t first = one->state == State::at_warp ? size_t(one - threads.begin()) / kWarp * kWarp : 0;
    const auto absent = std::find_if(threads.begin() + long(first), threads.end(), [&](const Thread& other) {
        const size_t lane = size_t(&other - threads.data()) - first;
        if (one->state == State::at_warp && (lane >= kWarp || !(one->mask >> lane & 1))) return false;
        return other.state != one->state || !same(other.site, one->site) ||
               (one->state == State::at_warp && other.mask != one->mask);
    });
    std::string message = "block " + text(blockIdx) + ", thread " + text(one->index) + " waits at " + text(one->site) +
                          ", which thread " + text(absent->index) + " does not reach: ";
    if (absent->state == State::ended) {
        message += "it has ended";
    } else if (same(absent->site, one->site) && absent->state == one->state) {
        message += "it waits there for other lanes";
    } else {
        message += "it waits at " + text(absent->site);
    }
    throw std::runtime_error(message);
}

// `__shared__` variables are thread-local ones of this module, and a launch has a thread of the system for itself, in which
// nobody else uses such. A kernel that reads one before it is written gets poison, not what the block before left there.
void poison_static_shared() {
    static thread_local char anchor;
    anchor = 0;  // the storage exists once it is touched
    const auto poison = [](dl_phdr_info* module, size_t, void* inside) {
        for (int i = 0; i < module->dlpi_phnum; ++i) {
            if (module->dlpi_phdr[i].p_type != PT_TLS || !module->dlpi_tls_data) continue;
            char* const begin = static_cast<char*>(module->dlpi_tls_data);
            if (inside < begin || inside >= begin + module->dlpi_phdr[i].p_memsz) continue;
            std::memset(begin, kPoison, module->dlpi_phdr[i].p_memsz);
            return 1;
        }
        return 0;
    };
    if (!dl_iterate_phdr(poison, &anchor)) throw std::runtime_error("the emulator does not find its shared memory");
}

void run_block(dim3 block, size_t shared_bytes) {
    poison_static_shared();
    threads.assign(size_t(block.x) * block.y * block.z, Thread{});
    for (size_t i = 0; i < threads.size(); ++i) {
        threads[i].index = dim3(unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y));
    }
    shared.assign(shared_bytes + 2 * kZone, char(kPoison));
    const auto ended = [](const Thread& t) { return t.state == State::ended; };
    while (!std::all_of(threads.begin(), threads.end(), ended)) {
        give_turns();
        if (error) std::rethrow_exception(error);
        if (!open_meetings() && !std::all_of(threads.begin(), threads.end(), ended)) report_divergence();
    }
    const char* end = shared.data() + shared.size();
    if (!all_poison(shared.data(), shared.data() + kZone) || !all_poison(end - kZone, end)) {
        throw std::runtime_error("block " + text(blockIdx) + " wrote outside its dynamic shared memory");
    }
}

void meet(State state, unsigned mask, void* part, Together together, Site site) {
    Thread& thread = threads[current];
    thread.state = state, thread.mask = mask, thread.part = part, thread.together = together, thread.site = site;
    thread.fiber->pause();
}

// Where a tensor's numbers lie in memory: from its data to so many bytes behind.
size_t span_bytes(const Tensor& t) {
    static constexpr size_t kSize[] = {4, 8, 2, 2, 1, 2, 4, 8};
    int64_t last = 0;
    for (int i = 0; i < t.dims; ++i) {
        if (t.size[i] == 0) return 0;
        last += (t.size[i] - 1) * t.stride[i];
    }
    return size_t(last + 1) * kSize[int(t.dtype)];
}

}  // namespace

void meet_block(void* part, Together together, Site site) { meet(State::at_block, 0, part, together, site); }

void meet_warp(unsigned mask, void* part, Together together, Site site) {
    const size_t first = size_t(current) / kWarp * kWarp, lanes = std::min<size_t>(kWarp, threads.size() - first);
    if (lanes < kWarp) mask &= (1u << lanes) - 1;  // a block's last warp may lack lanes
    if (!(mask >> (size_t(current) - first) & 1)) {
        throw std::runtime_error(where() + ": is not in the mask that it gives at " + text(site));
    }
    meet(State::at_warp, mask, part, together, site);
}

int thread_in_block() { return current; }

std::string where() { return "block " + text(blockIdx) + ", thread " + text(threadIdx); }

void* dynamic_shared() { return shared.data() + kZone; }

void copy_later(void* to, const void* from, int bytes, int zeros) {
    Copy copy{threads[current].group, to, std::vector<char>(size_t(bytes + zeros), 0)};
    if (bytes > 0) std::memcpy(copy.bytes.data(), from, size_t(bytes));
    std::memset(to, kPoison, copy.bytes.size());
    threads[current].copies.push_back(std::move(copy));
}

void commit_copies() { ++threads[current].group; }

void wait_copies(int groups_left) {
    Thread& thread = threads[current];
    const auto done = [&](const Copy& copy) { return copy.group < thread.group - groups_left; };
    for (const Copy& copy : thread.copies) {
        if (done(copy)) std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
    }
    thread.copies.erase(std::remove_if(thread.copies.begin(), thread.copies.end(), done), thread.copies.end());
}

void set_order(Order value, unsigned seed) {
    const std::lock_guard<std::mutex> lock(launching);
    order = value;
    generator.seed(seed);
}

size_t most_shared() { return shared_limit; }

Approximation approximation() { return approximate; }

void set_approximation(Approximation value) {
    const std::lock_guard<std::mutex> lock(launching);
    approximate = value;
}

void set_most_shared(size_t bytes) {
    const std::lock_guard<std::mutex> lock(launching);
    shared_limit = bytes;
}

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
    const std::lock_guard<std::mutex> lock(launching);
    const auto limit = [](unsigned value, unsigned most) { return value >= 1 && value <= most; };
    if (!limit(grid.x, 0x7fffffffu) || !limit(grid.y, 65535) || !limit(grid.z, 65535) || !limit(block.x, 1024) ||
        !limit(block.y, 1024) || !limit(block.z, 64) || block.x * block.y * block.z > 1024 || shared_bytes > shared_limit) {
        throw std::runtime_error("a GPU cannot launch grid " + text(grid) + ", block " + text(block) + ", " +
                                 std::to_string(shared_bytes) + " bytes of shared memory");
    }
    gridDim = grid, blockDim = block, body = &thread, error = nullptr;
    std::exception_ptr failure;
    std::thread([&] {
        try {
            for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
                for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
                    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block(block, shared_bytes);
                }
            }
        } catch (...) {
            failure = std::current_exception();
            idle.clear();  // what was running on the fibers is given up
            fibers.clear();
        }
    }).join();
    if (failure) std::rethrow_exception(failure);
}

void Guarded::add(Tensor& tensor, const char* name) {
    constexpr size_t kZoneOutside = 16 * kZone, kLargest = size_t(256) << 20;
    const size_t bytes = tensor.data ? span_bytes(tensor) : 0;
    if (bytes == 0 || bytes > kLargest) return;
    Buffer buffer{name, static_cast<char*>(tensor.data), bytes, std::vector<char>(bytes + 2 * kZoneOutside + 64, char(kPoison)), nullptr};
    // As far from a multiple of 64 as the original is, so that alignment is what it was.
    const auto remainder = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 64; };
    buffer.data = buffer.memory.data() + kZoneOutside;
    buffer.data += (64 + remainder(buffer.original) - remainder(buffer.data)) % 64;
    std::memcpy(buffer.data, buffer.original, bytes);
    tensor.data = buffer.data;
    buffers_.push_back(std::move(buffer));
}

void Guarded::finish() {
    for (const Buffer& buffer : buffers_) {
        const char *begin = buffer.memory.data(), *end = begin + buffer.memory.size(), *behind = buffer.data + buffer.bytes;
        if (!all_poison(begin, buffer.data)) throw std::runtime_error(std::string("wrote in front of ") + buffer.name);
        if (!all_poison(behind, end)) throw std::runtime_error(std::string("wrote behind the end of ") + buffer.name);
    }
    for (const Buffer& buffer : buffers_) std::memcpy(buffer.original, buffer.data, buffer.bytes);
}

}  // namespace fcn::emulator
