/* Attention of a packed forest, forward and backward: each segment's tokens see their ancestors' and its own up to themselves.

   A segment's path is copied once for each key-value head, keys and values also transposed; blocks of its queries then are products
   with panels. Scores are made again in the backward from their log-sum-exp. Nothing is padded and no mask is stored. */

#ifndef SWANNERY_FOREST_H
#define SWANNERY_FOREST_H

#include "linear.h"

#define QUERIES 32

/* H query heads, J key-value heads of D channels, S segments one after another; window 0 sees all. Tensors are [tokens][heads][D]. */
typedef struct {
    int64_t H, J, D, S, window, longest; /* longest: tokens of the longest path */
    const int64_t *starts, *lengths, *parents, *pasts;
    const float *q, *k, *v;
    float *out, *log_sums; /* log_sums: [tokens][H] */
    const float *grad;
    float *grad_q, *grad_k, *grad_v;
} Forest;

/* Room for one thread, in floats. */
static int64_t forest_scratch(const Forest *f) {
    const int64_t L = (f->longest + PANEL - 1) / PANEL * PANEL;
    return L * (6 * f->D + 2 * QUERIES) + QUERIES;
}

/* What a path looks like to one key-value head: rows [L][D], and panels of PANEL tokens [D][PANEL]. */
typedef struct {
    int64_t L, ld; /* tokens; tokens of whole panels */
    float *k, *v, *k_t, *v_t, *grad_k, *grad_v, *weights, *grads, *deltas;
} Path;

static Path path_of(const Forest *f, int64_t s, float *scratch) {
    Path p = {f->pasts[s] + f->lengths[s], 0, scratch, 0, 0, 0, 0, 0, 0, 0, 0};
    p.ld = (p.L + PANEL - 1) / PANEL * PANEL;
    const int64_t size = p.ld * f->D;
    p.v = p.k + size;
    p.k_t = p.v + size;
    p.v_t = p.k_t + size;
    p.grad_k = p.v_t + size;
    p.grad_v = p.grad_k + size;
    p.weights = p.grad_v + size;
    p.grads = p.weights + QUERIES * p.ld;
    p.deltas = p.grads + QUERIES * p.ld;
    return p;
}

/* Rows of a path from the packed tokens, youngest segment last; or their gradients added back. */
static void read_path(const Forest *f, int64_t s, int64_t j, const float *packed, float *rows) {
    for (; s >= 0; s = f->parents[s])
        for (int64_t t = 0; t < f->lengths[s]; t++)
            memcpy(rows + (f->pasts[s] + t) * f->D, packed + ((f->starts[s] + t) * f->J + j) * f->D, 4 * f->D);
}

static void add_path(const Forest *f, int64_t s, int64_t j, const float *rows, float *packed) {
    for (; s >= 0; s = f->parents[s])
        for (int64_t t = 0; t < f->lengths[s]; t++) {
            const float *from = rows + (f->pasts[s] + t) * f->D;
            float *to = packed + ((f->starts[s] + t) * f->J + j) * f->D;
            for (int64_t i = 0; i < f->D; i += LANES) store_n(to + i, load_n(to + i, f->D - i) + load_n(from + i, f->D - i), f->D - i);
        }
}

static void transpose_path(const Path *p, int64_t D, const float *rows, float *panels) {
    pack_panels(rows, p->L, D, panels);
}

/* The keys that a query sees are [first, last). */
typedef struct {
    int64_t first, last;
} Seen;

INLINE Seen seen_by(const Forest *f, int64_t place) {
    const int64_t last = place + 1;
    return (Seen){f->window && last > f->window ? last - f->window : 0, last};
}

/* e^(x * scale - shift) where a query sees, 0 elsewhere, up to n. */
INLINE void weigh_row(float *row, Seen seen, int64_t n, float scale, float shift) {
    for (int64_t i = 0; i < n; i += LANES) {
        if (i + LANES <= seen.first || i >= seen.last) {
            store(row + i, all(0.0f));
            continue;
        }
        store(row + i, vexp(load(row + i) * scale - shift));
        for (int64_t lane = i; lane < i + LANES && (i < seen.first || i + LANES > seen.last); lane++)
            if (lane < seen.first || lane >= seen.last) row[lane] = 0;
    }
}

/* The largest score that a query sees. */
INLINE float top_of(const float *row, Seen seen) {
    float top = -INFINITY;
    int64_t i = seen.first;
    vec most = all(-INFINITY);
    for (; i + LANES <= seen.last; i += LANES) {
        const vec now = load(row + i);
        most = choose(now > most, now, most);
    }
    for (int lane = 0; lane < LANES; lane++) top = most[lane] > top ? most[lane] : top;
    for (; i < seen.last; i++) top = row[i] > top ? row[i] : top;
    return top;
}

static void forest_forward(const Forest *f, int64_t j, float *scratch) {
    const int64_t H = f->H, D = f->D, g = H / f->J;
    const float scale = 1.0f / sqrtf((float)D);
    for (int64_t s = 0; s < f->S; s++) {
        Path p = path_of(f, s, scratch);
        read_path(f, s, j, f->k, p.k);
        read_path(f, s, j, f->v, p.v);
        transpose_path(&p, D, p.k, p.k_t);
        for (int64_t i0 = 0; i0 < f->lengths[s]; i0 += QUERIES) {
            const int64_t M = f->lengths[s] - i0 < QUERIES ? f->lengths[s] - i0 : QUERIES, L = f->pasts[s] + i0 + M;
            const int64_t wide = (L + LANES - 1) / LANES * LANES;
            for (int64_t h = j * g; h < (j + 1) * g; h++) {
                const int64_t at = (f->starts[s] + i0) * H + h;
                linear(f->q + at * D, H * D, p.k_t, M, D, L, p.weights, p.ld, 0);
                for (int64_t i = 0; i < M; i++) {
                    float *row = p.weights + i * p.ld;
                    const Seen seen = seen_by(f, f->pasts[s] + i0 + i);
                    const float top = top_of(row, seen) * scale;
                    vec total = {0};
                    weigh_row(row, seen, wide, scale, top);
                    for (int64_t n = 0; n < wide; n += LANES) total += load(row + n);
                    const float whole = sum(total);
                    f->log_sums[at + i * H] = top + logf(whole);
                    for (int64_t n = 0; n < wide; n += LANES) store(row + n, load(row + n) * (1.0f / whole));
                }
                times_rows(p.weights, p.ld, 1, p.v, D, M, L, D, f->out + at * D, H * D, 0);
            }
        }
    }
}

static void forest_backward(const Forest *f, int64_t j, float *scratch) {
    const int64_t H = f->H, D = f->D, g = H / f->J;
    const float scale = 1.0f / sqrtf((float)D);
    for (int64_t s = 0; s < f->S; s++) {
        Path p = path_of(f, s, scratch);
        read_path(f, s, j, f->k, p.k);
        read_path(f, s, j, f->v, p.v);
        transpose_path(&p, D, p.k, p.k_t);
        transpose_path(&p, D, p.v, p.v_t);
        memset(p.grad_k, 0, 8 * p.ld * D); /* and grad_v behind it */
        for (int64_t i0 = 0; i0 < f->lengths[s]; i0 += QUERIES) {
            const int64_t M = f->lengths[s] - i0 < QUERIES ? f->lengths[s] - i0 : QUERIES, L = f->pasts[s] + i0 + M;
            const int64_t wide = (L + LANES - 1) / LANES * LANES;
            for (int64_t h = j * g; h < (j + 1) * g; h++) {
                const int64_t at = (f->starts[s] + i0) * H + h;
                const float *q = f->q + at * D, *grad = f->grad + at * D;
                linear(q, H * D, p.k_t, M, D, L, p.weights, p.ld, 0);
                linear(grad, H * D, p.v_t, M, D, L, p.grads, p.ld, 0);
                for (int64_t i = 0; i < M; i++) {
                    float *weights = p.weights + i * p.ld, *grads = p.grads + i * p.ld;
                    const Seen seen = seen_by(f, f->pasts[s] + i0 + i);
                    const float delta = dot(grad + i * H * D, f->out + (at + i * H) * D, D);
                    weigh_row(weights, seen, wide, scale, f->log_sums[at + i * H]);
                    for (int64_t n = 0; n < wide; n += LANES) {
                        const vec weight = load(weights + n);
                        const vec score = weight * (load(grads + n) - delta) * scale;
                        store(grads + n, choose(weight == 0.0f, all(0.0f), score));
                    }
                }
                times_rows(p.grads, p.ld, 1, p.k, D, M, L, D, f->grad_q + at * D, H * D, 0);
                times_rows(p.grads, 1, p.ld, q, H * D, L, M, D, p.grad_k, D, 1);
                times_rows(p.weights, 1, p.ld, grad, H * D, L, M, D, p.grad_v, D, 1);
            }
        }
        add_path(f, s, j, p.grad_k, f->grad_k);
        add_path(f, s, j, p.grad_v, f->grad_v);
    }
}

#endif
