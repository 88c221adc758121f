// The fast path: exponentials as geometric progressions.
#pragma once

#include "../common/progressions.h"
#include "block.h"

namespace fcn::FCN_ISA {

// Squares of exponentials must not leave float32's range either.
constexpr float kLowestSquared = -40.f;

// f(row, column, e) with the exponentials e of a class, in order.
template <class T, int K, class F>
inline void for_each_exponential(const Block<T>& b, int c, const F& f) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    const T* params = b.params + 4 * L * c;
    V a = load(params), r = load(params + L);
    const V a_ratio = load(params + 2 * L), r_ratio = load(params + 3 * L);
    for (int row = 0; row < b.rows; ++row) {
        V e = a;
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
            f(row, k, e);
            e *= r;
        }
        a *= a_ratio;
        r *= r_ratio;
    }
}

template <class T, int K>
inline Vec<T> total(const Vec<T>* parts) {
    Vec<T> sum = parts[0];
    for (int k = 1; k < K; ++k) sum += parts[k];
    return sum;
}

// Adds the sums over pixels of G classes' probabilities, by Horner's rule. b.pixel: 1 / sum of exponentials.
template <class T, int K, int G>
__attribute__((noinline)) void add_predictions(const RegionBlock<T>& b, int c) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    V a[G], r[G], a_ratio[G], r_ratio[G], sum[G] = {};
    for (int g = 0; g < G; ++g) {
        const T* params = b.params + 4 * L * (c + g);
        a[g] = load(params), r[g] = load(params + L);
        a_ratio[g] = load(params + 2 * L), r_ratio[g] = load(params + 3 * L);
    }
    const T* inverse = b.pixel;
    for (int row = 0; row < b.rows; ++row, inverse += K * L) {
        V p[G];
        for (int g = 0; g < G; ++g) p[g] = load(inverse + (K - 1) * L);
#pragma GCC unroll 8
        for (int k = K - 2; k >= 0; --k) {
            for (int g = 0; g < G; ++g) p[g] = p[g] * r[g] + load(inverse + k * L);
        }
        for (int g = 0; g < G; ++g) {
            sum[g] += a[g] * p[g];
            a[g] *= a_ratio[g];
            r[g] *= r_ratio[g];
        }
    }
    for (int g = 0; g < G; ++g) add_to(b.prediction + (c + g) * L, sum[g]);
}

template <class T, int K>
__attribute__((noinline)) void add_squares(const RegionBlock<T>& b, int c) {
    Vec<T> sum[K] = {};
    for_each_exponential<T, K>(b, c, [&](int row, int k, Vec<T> e) {
        const Vec<T> p = e * load<T>(b.pixel + (row * K + k) * kLanes<T>);
        sum[k] += p * p;
    });
    add_to(b.prediction + c * kLanes<T>, total<T, K>(sum));
}

// Of a class that pixels of the block have.
template <class T, int K>
__attribute__((noinline)) void add_intersection(const RegionBlock<T>& b, int c) {
    Vec<T> sum[K] = {}, count = {};
    for_each_exponential<T, K>(b, c, [&](int row, int k, Vec<T> e) {
        const auto here = labels_of(b, row, k) == Int<T>(c);
        sum[k] += here ? e * load<T>(b.pixel + (row * K + k) * kLanes<T>) : Vec<T>{};
        count += here ? splat(T(1)) : Vec<T>{};
    });
    add_to(b.intersection + c * kLanes<T>, total<T, K>(sum));
    add_to(b.count + c * kLanes<T>, count);
}

template <class T, int K>
void geometric_sums(const RegionBlock<T>& b) {
    make_progressions(b);
    sum_exponentials<T, K>(b);
    for (int row = 0; row < b.rows; ++row) {
        for (int k = 0; k < K; ++k) {
            T* pixel = b.pixel + (row * K + k) * kLanes<T>;
            store(pixel, inverse<T>(labels_of(b, row, k), load<T>(pixel)));
        }
    }
    int c = 0;
    if (b.squared) {
        for (; c < b.classes; ++c) add_squares<T, K>(b, c);
    } else {
        for (; c + 3 <= b.classes; c += 3) add_predictions<T, K, 3>(b, c);
        for (; c < b.classes; ++c) add_predictions<T, K, 1>(b, c);
    }
    for (int i = 0; i < b.presents; ++i) add_intersection<T, K>(b, b.present[i]);
}

// Adds G classes to b.pixel, sums of exponentials, and to b.other, sums of b times exponentials or their squares.
template <class T, int K, int G, bool squared>
__attribute__((noinline)) void accumulate_weighed(const RegionBlock<T>& b, int c) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    V a[G], r[G], a_ratio[G], r_ratio[G], weight[G];
    for (int g = 0; g < G; ++g) {
        const T* params = b.params + 4 * L * (c + g);
        a[g] = load(params), r[g] = load(params + L);
        a_ratio[g] = load(params + 2 * L), r_ratio[g] = load(params + 3 * L);
        weight[g] = splat(b.weight_prediction[c + g]);
    }
    T *pixel = b.pixel, *other = b.other;
    for (int row = 0; row < b.rows; ++row) {
        V e[G];
        for (int g = 0; g < G; ++g) e[g] = a[g];
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k, pixel += L, other += L) {
            V s = load<T>(pixel), weighed = load<T>(other);
            for (int g = 0; g < G; ++g) {
                s += e[g];
                weighed += weight[g] * (squared ? e[g] * e[g] : e[g]);
                e[g] *= r[g];
            }
            store<T>(pixel, s);
            store<T>(other, weighed);
        }
        for (int g = 0; g < G; ++g) a[g] *= a_ratio[g], r[g] *= r_ratio[g];
    }
}

// The gradient of one class; b.pixel: 1 / sum of exponentials; b.other: that times the weighed mean, sum of p_k w_k.
template <class T, int K, bool known, bool squared>
void add_gradient(const RegionBlock<T>& b, int c) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    const V weight = splat(squared ? 2 * b.weight_prediction[c] : b.weight_prediction[c]), own = splat(b.weight_intersection[c]);
    accumulate_gradient<T, K>(b, b.params + 4 * L * c, c * b.class_stride, [&b, c, weight, own](int row, V a, V r, V* f) {
        for (int k = 0; k < K; ++k) {
            const int at = (row * K + k) * L;
            const V inverse = load<T>(b.pixel + at);
            V w = squared ? weight * a * inverse : weight;
            if (known) w += labels_of(b, row, k) == Int<T>(c) ? own : V{};
            f[k] = w * inverse - load<T>(b.other + at);
            if (squared) a *= r;
        }
    });
}

template <class T, int K, bool squared>
void geometric_gradient(const RegionBlock<T>& b) {
    using V = Vec<T>;
    constexpr int L = kLanes<T>;
    make_progressions(b);
    std::memset(b.pixel, 0, sizeof(T) * K * b.rows * L);
    std::memset(b.other, 0, sizeof(T) * K * b.rows * L);
    int c = 0;
    for (; c + 3 <= b.classes; c += 3) accumulate_weighed<T, K, 3, squared>(b, c);
    for (; c < b.classes; ++c) accumulate_weighed<T, K, 1, squared>(b, c);
    for (int at = 0; at < b.rows * K * L; at += L) {
        const V inv = inverse<T>(load(b.label + at), load<T>(b.pixel + at));
        store(b.pixel + at, inv);
        store(b.other + at, (squared ? 2 * load<T>(b.other + at) * inv : load<T>(b.other + at)) * inv);
    }
    for (int i = 0; i < b.presents; ++i) {
        const int c = b.present[i];
        const V own = splat(b.weight_intersection[c]);
        for_each_exponential<T, K>(b, c, [&](int row, int k, V e) {
            const int at = (row * K + k) * L;
            add_to<T>(b.other + at, labels_of(b, row, k) == Int<T>(c) ? own * e * load<T>(b.pixel + at) : V{});
        });
    }
    for (int at = 0; at < b.rows * K * L; at += L) store(b.other + at, load<T>(b.other + at) * load<T>(b.pixel + at));
    for_each_class(b, [&](int c, bool known) {
        known ? add_gradient<T, K, true, squared>(b, c) : add_gradient<T, K, false, squared>(b, c);
    });
}

}  // namespace fcn::FCN_ISA
