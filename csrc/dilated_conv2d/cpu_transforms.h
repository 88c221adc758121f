// Winograd's algorithm F(4x4, 3x3): what is done to tiles of a map, of an output and of a filter, one axis at a time.
//
// A tile of 6 numbers and a filter of 3 are polynomials; their product is known from its values at 6 points, here 0, 1, -1,
// 2, -1/2 and infinity, which round less than the usual 0, 1, -1, 2, -2 do. With one matrix each,
//   output = A' [(G filter) * (B' input)],   gradient of the filter = G' [(A gradient) * (B' input)],
// and, for two axes, the same of the rows and then of the columns.
#pragma once

namespace fcn::FCN_ISA {

constexpr int kPoints = 6;   // of a tile along an axis
constexpr int kOutputs = 4;  // outputs of a tile
constexpr int kTaps = 3;

// B': numbers of a map -> values at the points, `step` apart.
template <class V>
inline void input_to_points(const V* d, V* points, int step) {
    const V even = d[4] - d[2], odd = d[3] - d[1];
    points[0] = (d[0] - d[2]) + even - 1.5f * odd;
    points[step] = (d[4] - d[1]) - 0.5f * d[3] - 2.5f * d[2];
    points[2 * step] = (d[4] + d[1]) - 2.5f * d[3] + 0.5f * d[2];
    points[3 * step] = even + 0.5f * odd;
    points[4 * step] = even - 2.f * odd;
    points[5 * step] = (d[5] - d[3]) - odd - 1.5f * even;
}

// A': values at the points -> outputs, `step` apart.
template <class V>
inline void points_to_output(const V* m, V* y, int step) {
    const V even = m[1] + m[2], odd = m[1] - m[2];
    y[0] = (m[0] + even) + (m[3] + m[4]);
    y[step] = odd + 2.f * m[3] - 0.5f * m[4];
    y[2 * step] = even + 4.f * m[3] + 0.25f * m[4];
    y[3 * step] = (odd + m[5]) + 8.f * m[3] - 0.125f * m[4];
}

// A: gradients of the outputs -> values at the points, `step` apart.
template <class V>
inline void gradient_to_points(const V* g, V* points, int step) {
    const V even = g[0] + g[2], odd = g[1] + g[3];
    points[0] = g[0];
    points[step] = even + odd;
    points[2 * step] = even - odd;
    points[3 * step] = (g[0] + 4.f * g[2]) + 2.f * (g[1] + 4.f * g[3]);
    points[4 * step] = (g[0] + 0.25f * g[2]) - 0.5f * (g[1] + 0.25f * g[3]);
    points[5 * step] = g[3];
}

// G: a filter -> values at the points, `step` apart.
template <class V>
inline void filter_to_points(const V* g, V* points, int step) {
    const V ends = g[0] + g[2];
    points[0] = g[0];
    points[step] = (-1. / 3) * (ends + g[1]);
    points[2 * step] = (1. / 3) * (ends - g[1]);
    points[3 * step] = (1. / 15) * (g[0] + 2. * g[1] + 4. * g[2]);
    points[4 * step] = (-4. / 15) * (4. * g[0] - 2. * g[1] + g[2]);
    points[5 * step] = g[2];
}

// G': values at the points -> gradient of a filter, `step` apart.
template <class V>
inline void points_to_filter(const V* m, V* g, int step) {
    const V even = (1. / 3) * (m[2] - m[1]), odd = (1. / 3) * (m[1] + m[2]), a = (1. / 15) * m[3], b = (4. / 15) * m[4];
    g[0] = (m[0] + even) + a - 4. * b;
    g[step] = 2. * a + 2. * b - odd;
    g[2 * step] = (m[5] + even) + 4. * a - b;
}

}  // namespace fcn::FCN_ISA
