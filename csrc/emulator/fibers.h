// Fibers: stacks of their own in one thread of the machine.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <new>

namespace fcn::emulator {

// Runs `body`, which never returns, on a stack of its own, in turns with the one who resumes it.
// A context is made by ucontext and switched by _setjmp and _longjmp, which spare two system calls each time.
class Fiber {
public:
    explicit Fiber(void (*body)()) : body_(body) {
        // A page that nobody may touch lies below: running out of stack ends the process rather than going on.
        memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
        mprotect(memory_, size_t(sysconf(_SC_PAGESIZE)), PROT_NONE);
    }
    ~Fiber() { munmap(memory_, kBytes); }
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    void resume() {
        if (_setjmp(outside_)) return;
        if (started_) _longjmp(inside_, 1);
        started_ = true;
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = memory_;
        context.uc_stack.ss_size = kBytes;
        context.uc_link = nullptr;
        makecontext(&context, body_, 0);
        setcontext(&context);
    }

    // Called on the fiber: back to the one who resumed it.
    void pause() {
        if (!_setjmp(inside_)) _longjmp(outside_, 1);
    }

private:
    static constexpr size_t kBytes = 256 << 10;
    void (*body_)();
    void* memory_;
    bool started_ = false;
    jmp_buf inside_, outside_;
};

}  // namespace fcn::emulator
