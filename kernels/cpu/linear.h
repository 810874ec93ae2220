/* y = x W^T for few rows and a weight that was packed once: panels of PANEL outputs, each [K][PANEL], so that a product reads its weight
   in one stream. A tile of TILE rows by one panel stays in registers; every element is one chain of multiply-adds over k, so a row's
   bits do not depend on how many rows there are. */

#ifndef SWANNERY_LINEAR_H
#define SWANNERY_LINEAR_H

#include "vector.h"

#define PANEL (2 * LANES)
#define TILE 8

INLINE void tile(const int rows, const float *x, int64_t ldx, const float *panel, int64_t K, float *y, int64_t ldy, int64_t n, int add) {
    vec left[TILE] = {{0}}, right[TILE] = {{0}};
    for (int64_t k = 0; k < K; k++) {
        const vec a = load(panel + k * PANEL), b = load(panel + k * PANEL + LANES);
        for (int r = 0; r < rows; r++) {
            const vec value = all(x[r * ldx + k]);
            left[r] += value * a;
            right[r] += value * b;
        }
    }
    for (int r = 0; r < rows; r++, y += ldy) {
        if (add) {
            left[r] += load_n(y, n);
            if (n > LANES) right[r] += load_n(y + LANES, n - LANES);
        }
        store_n(y, left[r], n);
        if (n > LANES) store_n(y + LANES, right[r], n - LANES);
    }
}

/* y [M, N] is set to x [M, K] times the packed weight, or has it added. */
static void linear(const float *x, int64_t ldx, const float *weight, int64_t M, int64_t K, int64_t N, float *y, int64_t ldy, int add) {
    for (int64_t n = 0; n < N; n += PANEL, weight += K * PANEL)
        for (int64_t m = 0; m < M; m += TILE) {
            const float *at = x + m * ldx;
            float *to = y + m * ldy + n;
            switch (M - m) {
            case 1: tile(1, at, ldx, weight, K, to, ldy, N - n, add); break;
            case 2: tile(2, at, ldx, weight, K, to, ldy, N - n, add); break;
            case 3: tile(3, at, ldx, weight, K, to, ldy, N - n, add); break;
            case 4: tile(4, at, ldx, weight, K, to, ldy, N - n, add); break;
            case 5: tile(5, at, ldx, weight, K, to, ldy, N - n, add); break;
            case 6: tile(6, at, ldx, weight, K, to, ldy, N - n, add); break;
            case 7: tile(7, at, ldx, weight, K, to, ldy, N - n, add); break;
            default: tile(TILE, at, ldx, weight, K, to, ldy, N - n, add);
            }
        }
}

/* relu(x)^2, in place. */
static void relu_squared(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        vec value = load_n(x + i, n - i);
        value = choose(value < 0.0f, all(0.0f), value);
        store_n(x + i, value * value, n - i);
    }
}

/* x / rms(x) * weight of each of M rows of n floats. */
static void rms_norm(const float *x, const float *weight, float eps, int64_t M, int64_t n, float *y) {
    for (int64_t m = 0; m < M; m++, x += n, y += n) {
        const float scale = 1.0f / sqrtf(dot(x, x, n) / n + eps);
        for (int64_t i = 0; i < n; i += LANES)
            store_n(y + i, load_n(x + i, n - i) * scale * load_n(weight + i, n - i), n - i);
    }
}

#endif
