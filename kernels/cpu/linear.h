/* Products of a few rows with a matrix that lies in panels of PANEL columns: a weight that was packed once, [panels][K][PANEL], or rows of
   more columns as they are. A tile of TILE rows by one panel stays in registers; every element is one chain of multiply-adds over k, so
   a row's bits do not depend on how many rows there are. */

#ifndef SWANNERY_LINEAR_H
#define SWANNERY_LINEAR_H

#include "vector.h"

#define PANEL (2 * LANES)
#if defined(__AVX512F__) || defined(__aarch64__)
#define TILE 8 /* rows of two registers each, beside those of the panel; of 32 */
#else
#define TILE 5 /* of 16 */
#endif
#define DEPTH 256

#define PACKED (INT64_C(1) << 48) /* the width of a packed weight: its last panel is whole too */

/* Element (r, k) of x lies at x[r * xr + k * xk], row k of a panel at panel[k * ldp]; `width` columns are left to read. */
typedef struct {
    const float *x;
    int64_t xr, xk;
    const float *panel;
    int64_t ldp, panels_apart, width;
    float *y;
    int64_t ldy;
} Product;

INLINE void tile(const int rows, const int whole, const Product *p, int64_t K, int64_t n, const int add) {
    vec left[TILE] = {{0}}, right[TILE] = {{0}};
    const float *x = p->x, *panel = p->panel;
    for (int64_t k = 0; k < K; k++, x += p->xk, panel += p->ldp) {
        const vec a = whole ? load(panel) : load_n(panel, p->width);
        const vec b = whole ? load(panel + LANES) : p->width > LANES ? load_n(panel + LANES, p->width - LANES) : (vec){0};
        for (int r = 0; r < rows; r++) {
            const vec value = all(x[r * p->xr]);
            left[r] += value * a;
            right[r] += value * b;
        }
    }
    float *y = p->y;
    for (int r = 0; r < rows; r++, y += p->ldy) {
        if (add) {
            left[r] += load_n(y, n);
            if (n > LANES) right[r] += load_n(y + LANES, n - LANES);
        }
        store_n(y, left[r], n);
        if (n > LANES) store_n(y + LANES, right[r], n - LANES);
    }
}

#define ROWS(rows)                                                     \
    case rows:                                                         \
        if (p.width >= PANEL)                                          \
            tile(rows, 1, &p, K, N - n, add);                          \
        else                                                           \
            tile(rows, 0, &p, K, N - n, add);                          \
        break

/* y [M, N] is set to x [M, K] times the matrix [K, N], or has it added. */
static void multiply(Product given, int64_t M, int64_t K, int64_t N, const int add) {
    for (int64_t n = 0; n < N; n += PANEL)
        for (int64_t m = 0; m < M; m += TILE) {
            Product p = given;
            p.x += m * p.xr;
            p.y += m * p.ldy + n;
            p.panel += n / PANEL * p.panels_apart;
            p.width -= n;
            switch (M - m < TILE ? M - m : TILE) {
                ROWS(1);
                ROWS(2);
                ROWS(3);
                ROWS(4);
                ROWS(5);
                ROWS(6);
                ROWS(7);
                ROWS(8);
            }
        }
}

/* y [M, N] is set to x [M, K] times the packed weight, or has it added. */
static void linear(const float *x, int64_t ldx, const float *weight, int64_t M, int64_t K, int64_t N, float *y, int64_t ldy, int add) {
    const Product p = {x, ldx, 1, weight, PANEL, K * PANEL, PACKED, y, ldy};
    multiply(p, M, K, N, add);
}

/* The same with a matrix of K rows of N columns, `ldb` apart; element (m, k) of x lies at x[m * xr + k * xk]. */
static void times_rows(
    const float *x, int64_t xr, int64_t xk, const float *b, int64_t ldb, int64_t M, int64_t K, int64_t N, float *y, int64_t ldy, int add
) {
    const Product p = {x, xr, xk, b, ldb, PANEL, N, y, ldy};
    multiply(p, M, K, N, add);
}

/* The same by stretches of K, whose rows of the matrix stay in the cache for all rows of x; columns that fill no panel are copied to one. */
static void times_deep(
    const float *x, int64_t xr, int64_t xk, const float *b, int64_t ldb, int64_t M, int64_t K, int64_t N, float *y, int64_t ldy, int add
) {
    float panel[DEPTH * PANEL] = {0};
    const int64_t even = N / PANEL * PANEL, rest = N - even;
    for (int64_t k = 0; k < K; k += DEPTH, x += DEPTH * xk, b += DEPTH * ldb) {
        const int64_t depth = K - k < DEPTH ? K - k : DEPTH;
        times_rows(x, xr, xk, b, ldb, M, depth, even, y, ldy, add || k);
        for (int64_t i = 0; i < depth && rest; i++) memcpy(panel + i * PANEL, b + i * ldb + even, 4 * rest);
        if (rest) multiply((Product){x, xr, xk, panel, PANEL, 0, PACKED, y + even, ldy}, M, depth, rest, add || k);
    }
}

/* A weight [N, K] to panels [N / PANEL][K][PANEL], the last filled up with zeros. */
static void pack_panels(const float *weight, int64_t N, int64_t K, float *panels) {
    for (int64_t n = 0; n < N; n += PANEL, panels += K * PANEL) {
        if (N - n < PANEL) memset(panels, 0, 4 * K * PANEL);
        turn(weight + n * K, K, N - n < PANEL ? N - n : PANEL, K, panels, PANEL);
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
