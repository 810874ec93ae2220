/* Mamba-2's scan over a forest of chunks, forward and backward, in the chunked form of https://arxiv.org/abs/2405.21060, section 6; the same
   function as ssd.py. A chunk is one pass: its scores, decays and scaled inputs stay in the cache, and states alone are passed on. */

#ifndef SWANNERY_SCAN_H
#define SWANNERY_SCAN_H

#include "linear.h"

/* Chunks of Q tokens, each after its parent; H heads of P channels, in G groups with N states each. A state is [N][P]. Rows of x, B and C are
   ldx, ldb and ldc apart. Trees of chunks that belong to one part are one thread's. */
typedef struct {
    int64_t num_chunks, Q, H, P, G, N, ldx, ldb, ldc;
    const int64_t *parents, *parts, *goes_on; /* parents: of `initial` below 0, -1 - row; goes_on: whether a state after it is wanted */
    const float *x, *dt, *A, *B, *C;          /* dt: [chunks][Q][H] */
    const float *initial;                     /* [rows][H][N][P], or NULL for zeros */
    float *y, *after;                         /* [chunks][Q][H][P], [chunks][H][N][P] */
    const float *grad;
    float *grad_after, *grad_x, *grad_dt, *grad_decay, *grad_B, *grad_C; /* grad_decay: of each token's log-decay from the start */
} Scan;

/* What is made of one chunk, in a thread's room. */
typedef struct {
    float *scores, *between, *mixing, *products, *grad_scores; /* [Q][Q] */
    float *turned, *scaled, *partial;                          /* [N][Q] or [P][N] or [P][Q]; [Q][N]; [Q][N] */
    float *inputs, *grad_inputs;                               /* [Q][P]: x dt, and its gradient */
    float *decay, *from_start, *to_end;                        /* [Q] */
} Chunk;

static int64_t turned_size(const Scan *s) {
    const int64_t wide = s->Q > s->P ? s->Q : s->P, other = s->N > s->P ? s->N : s->P;
    return wide * other;
}

static int64_t scan_scratch(const Scan *s) {
    return 5 * s->Q * s->Q + turned_size(s) + 2 * s->Q * (s->N + s->P) + 3 * (s->Q + LANES);
}

static Chunk chunk_in(const Scan *s, float *room) {
    const int64_t square = s->Q * s->Q;
    Chunk k = {room, room + square, room + 2 * square, room + 3 * square, room + 4 * square, room + 5 * square, 0, 0, 0, 0, 0, 0, 0};
    k.scaled = k.turned + turned_size(s);
    k.partial = k.scaled + s->Q * s->N;
    k.inputs = k.partial + s->Q * s->N;
    k.grad_inputs = k.inputs + s->Q * s->P;
    k.decay = k.grad_inputs + s->Q * s->P;
    k.from_start = k.decay + s->Q + LANES;
    k.to_end = k.from_start + s->Q + LANES;
    return k;
}

/* to [M][n] = scale_m * from, whose rows are ld apart; or that added. */
INLINE void scale_rows(const float *from, int64_t ld, const float *scales, int64_t M, int64_t n, float *to, int64_t ldt, const int add) {
    for (int64_t m = 0; m < M; m++)
        for (int64_t i = 0; i < n; i += LANES) {
            vec value = load_n(from + m * ld + i, n - i) * scales[m];
            if (add) value += load_n(to + m * ldt + i, n - i);
            store_n(to + m * ldt + i, value, n - i);
        }
}

static void find_decays(const Scan *s, const Chunk *k, int64_t c, int64_t h) {
    const float *dt = s->dt + c * s->Q * s->H + h;
    float total = 0;
    for (int64_t i = 0; i < s->Q; i++) k->decay[i] = total += dt[i * s->H] * s->A[h];
    for (int64_t i = 0; i < s->Q; i += LANES) {
        const vec decay = load_n(k->decay + i, s->Q - i);
        store_n(k->from_start + i, vexp(decay), s->Q - i);
        store_n(k->to_end + i, vexp(total - decay), s->Q - i);
    }
}

/* between[i][j] = e^(decay_i - decay_j) for tokens j <= i, else 0; mixing is that times the scores. */
static void find_mixing(const Scan *s, const Chunk *k) {
    const int64_t Q = s->Q;
    for (int64_t i = 0; i < Q; i++)
        for (int64_t j = 0; j < Q; j += LANES) {
            float *between = k->between + i * Q + j, *mixing = k->mixing + i * Q + j;
            vec value = {0}, mixed = {0};
            if (j <= i) {
                value = vexp(k->decay[i] - load_n(k->decay + j, Q - j));
                mixed = value * load_n(k->scores + i * Q + j, Q - j);
            }
            for (int64_t lane = i + 1 - j; lane < LANES && j <= i; lane++) value[lane] = mixed[lane] = 0;
            store_n(between, value, Q - j);
            store_n(mixing, mixed, Q - j);
        }
}

/* The state before a chunk, or NULL where it is zero. */
static const float *state_before(const Scan *s, int64_t c, int64_t h) {
    const int64_t parent = s->parents[c], size = s->N * s->P;
    if (parent >= 0) return s->after + (parent * s->H + h) * size;
    return s->initial ? s->initial + ((-1 - parent) * s->H + h) * size : NULL;
}

/* x dt of one head, and C_i . B_j of its group. */
static void find_inputs(const Scan *s, const Chunk *k, int64_t c, int64_t h) {
    const float *x = s->x + c * s->Q * s->ldx + h * s->P, *dt = s->dt + c * s->Q * s->H + h;
    for (int64_t i = 0; i < s->Q; i++) scale_rows(x + i * s->ldx, s->ldx, dt + i * s->H, 1, s->P, k->inputs + i * s->P, s->P, 0);
}

static void find_scores(const Scan *s, const Chunk *k, const float *B, const float *C) {
    turn(B, s->ldb, s->Q, s->N, k->turned, s->Q);
    times_rows(C, s->ldc, 1, k->turned, s->Q, s->Q, s->N, s->Q, k->scores, s->Q, 0);
}

static void head_forward(const Scan *s, const Chunk *k, int64_t c, int64_t h, const float *B, const float *C) {
    const int64_t Q = s->Q, P = s->P, N = s->N, ldy = s->H * P;
    const float *before = state_before(s, c, h);
    float *y = s->y + c * Q * ldy + h * P;
    find_decays(s, k, c, h);
    find_mixing(s, k);
    find_inputs(s, k, c, h);
    times_rows(k->mixing, Q, 1, k->inputs, P, Q, Q, P, y, ldy, 0);
    if (before) {
        scale_rows(C, s->ldc, k->from_start, Q, N, k->scaled, N, 0);
        times_rows(k->scaled, N, 1, before, P, Q, N, P, y, ldy, 1);
    }
    if (!s->goes_on[c]) return;
    float *after = s->after + (c * s->H + h) * N * P;
    for (int64_t i = 0; before && i < N * P; i += LANES)
        store_n(after + i, load_n(before + i, N * P - i) * k->from_start[Q - 1], N * P - i);
    scale_rows(B, s->ldb, k->to_end, Q, N, k->scaled, N, 0);
    times_rows(k->scaled, 1, N, k->inputs, P, N, Q, P, after, P, before != NULL);
}

static void scan_forward(const Scan *s, int64_t part, float *scratch) {
    const Chunk k = chunk_in(s, scratch);
    for (int64_t c = 0; c < s->num_chunks; c++)
        for (int64_t g = 0; g < s->G && s->parts[c] == part; g++) {
            const float *B = s->B + c * s->Q * s->ldb + g * s->N, *C = s->C + c * s->Q * s->ldc + g * s->N;
            find_scores(s, &k, B, C);
            for (int64_t h = g * (s->H / s->G); h < (g + 1) * (s->H / s->G); h++) head_forward(s, &k, c, h, B, C);
        }
}

/* The gradients that come by way of the states: into B and the inputs from that after the chunk, into C and the parent from that before. */
static void states_backward(
    const Scan *s, const Chunk *k, int64_t c, int64_t h, const float *B, const float *C, const float *dy, float *dB, float *dC
) {
    const int64_t Q = s->Q, P = s->P, N = s->N, ldy = s->H * P, ldg = s->G * N, size = N * P;
    const float *before = state_before(s, c, h), *dafter = s->grad_after + (c * s->H + h) * size;
    float *dparent = s->parents[c] >= 0 ? s->grad_after + (s->parents[c] * s->H + h) * size : NULL;
    if (s->goes_on[c]) {
        scale_rows(B, s->ldb, k->to_end, Q, N, k->scaled, N, 0);
        times_rows(k->scaled, N, 1, dafter, P, Q, N, P, k->grad_inputs, P, 1);
        turn(dafter, P, N, P, k->turned, N);
        times_rows(k->inputs, P, 1, k->turned, N, Q, P, N, k->partial, N, 0);
        scale_rows(k->partial, N, k->to_end, Q, N, dB, ldg, 1);
        for (int64_t i = 0; dparent && i < size; i += LANES)
            store_n(dparent + i, load_n(dparent + i, size - i) + load_n(dafter + i, size - i) * k->from_start[Q - 1], size - i);
    }
    if (before) {
        turn(before, P, N, P, k->turned, N);
        times_rows(dy, ldy, 1, k->turned, N, Q, P, N, k->partial, N, 0);
        scale_rows(k->partial, N, k->from_start, Q, N, dC, ldg, 1);
    }
    if (dparent) {
        scale_rows(C, s->ldc, k->from_start, Q, N, k->scaled, N, 0);
        times_rows(k->scaled, 1, N, dy, ldy, N, Q, P, dparent, P, 1);
    }
}

/* A decay up to token i scales its output up, its input down; that of the whole chunk scales the state after it. */
static void tokens_backward(const Scan *s, const Chunk *k, int64_t c, int64_t h, const float *dy) {
    const int64_t Q = s->Q, P = s->P, H = s->H, size = s->N * P, at = (c * H + h) * size;
    for (int64_t i = 0; i < Q; i++) {
        const int64_t token = (c * Q + i) * H + h;
        const float *grad = k->grad_inputs + i * P, dt = s->dt[token];
        const float ddt = dot(grad, s->x + (c * Q + i) * s->ldx + h * P, P);
        s->grad_dt[token] = ddt;
        s->grad_decay[token] = dot(s->y + token * P, dy + i * H * P, P) - ddt * dt;
        scale_rows(grad, P, &dt, 1, P, s->grad_x + token * P, P, 0);
    }
    if (s->goes_on[c]) s->grad_decay[(c * Q + Q - 1) * H + h] += dot(s->grad_after + at, s->after + at, size);
}

static void head_backward(const Scan *s, const Chunk *k, int64_t c, int64_t h, const float *B, const float *C, float *dB, float *dC) {
    const int64_t Q = s->Q, P = s->P, ldy = s->H * P;
    const float *dy = s->grad + c * Q * ldy + h * P;
    find_decays(s, k, c, h);
    find_mixing(s, k);
    find_inputs(s, k, c, h);
    times_rows(k->mixing, 1, Q, dy, ldy, Q, Q, P, k->grad_inputs, P, 0);
    turn(k->inputs, P, Q, P, k->turned, Q);
    times_rows(dy, ldy, 1, k->turned, Q, Q, P, Q, k->products, Q, 0);
    for (int64_t i = 0; i < Q * Q; i += LANES) {
        const int64_t n = Q * Q - i;
        store_n(k->grad_scores + i, load_n(k->grad_scores + i, n) + load_n(k->products + i, n) * load_n(k->between + i, n), n);
    }
    states_backward(s, k, c, h, B, C, dy, dB, dC);
    tokens_backward(s, k, c, h, dy);
}

static void scan_backward(const Scan *s, int64_t part, float *scratch) {
    const Chunk k = chunk_in(s, scratch);
    const int64_t Q = s->Q, N = s->N, ldg = s->G * N;
    for (int64_t c = s->num_chunks - 1; c >= 0; c--)
        for (int64_t g = 0; g < s->G && s->parts[c] == part; g++) {
            const float *B = s->B + c * Q * s->ldb + g * N, *C = s->C + c * Q * s->ldc + g * N;
            float *dB = s->grad_B + c * Q * ldg + g * N, *dC = s->grad_C + c * Q * ldg + g * N;
            for (int64_t i = 0; i < Q; i++) {
                memset(dB + i * ldg, 0, 4 * N);
                memset(dC + i * ldg, 0, 4 * N);
            }
            find_scores(s, &k, B, C);
            memset(k.grad_scores, 0, 4 * Q * Q);
            for (int64_t h = g * (s->H / s->G); h < (g + 1) * (s->H / s->G); h++) head_backward(s, &k, c, h, B, C, dB, dC);
            times_rows(k.grad_scores, Q, 1, B, s->ldb, Q, Q, N, dC, ldg, 1);
            times_rows(k.grad_scores, 1, Q, C, s->ldc, Q, Q, N, dB, ldg, 1);
        }
}

#endif
