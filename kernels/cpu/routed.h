/* Experts over many tokens, forward and backward: an expert's tokens are read a block at a time, and what is between its two products stays
   in the cache. The same function as experts.py. */

#ifndef SWANNERY_ROUTED_H
#define SWANNERY_ROUTED_H

#include "linear.h"

#define BLOCK 128

/* N tokens of d channels, each with K choices among E experts of width f. Choice n * K + k is token n's; `order` sorts them by expert, those
   of expert e before ends[e], and `places` is its inverse. */
typedef struct {
    int64_t N, d, f, E, K;
    const int64_t *order, *places, *ends;
    const float *x, *gates, *up, *down; /* [N][d], [N * K], [E][f][d], [E][d][f] */
    float *before, *rows;               /* by sorted choice: what relu is given [f]; outputs or gradients of inputs [d] */
    const float *grad;                  /* [N][d] */
    float *grad_gates, *grad_up, *grad_down;
} Routed;

static int64_t panels_size(int64_t N, int64_t K) { return (N + PANEL - 1) / PANEL * PANEL * K; }

/* Room for one thread, in floats. */
static int64_t routed_scratch(const Routed *r) {
    const int64_t weights = panels_size(r->f, r->d) + panels_size(r->d, r->f);
    return weights + 2 * BLOCK * (r->d + r->f);
}

/* The tokens of m sorted choices, one row a choice. */
static void read_tokens(const Routed *r, const float *from, int64_t first, int64_t m, float *rows) {
    for (int64_t i = 0; i < m; i++) memcpy(rows + i * r->d, from + r->order[first + i] / r->K * r->d, 4 * r->d);
}

static void routed_forward(const Routed *r, int64_t e, float *scratch) {
    const int64_t d = r->d, f = r->f, first = e ? r->ends[e - 1] : 0, last = r->ends[e];
    float *up = scratch, *down = up + panels_size(f, d), *in = down + panels_size(d, f), *active = in + BLOCK * d;
    if (first == last) return;
    pack_panels(r->up + e * f * d, f, d, up);
    pack_panels(r->down + e * d * f, d, f, down);
    for (int64_t at = first; at < last; at += BLOCK) {
        const int64_t m = last - at < BLOCK ? last - at : BLOCK;
        read_tokens(r, r->x, at, m, in);
        linear(in, d, up, m, d, f, r->before + at * f, f, 0);
        memcpy(active, r->before + at * f, 4 * m * f);
        relu_squared(active, m * f);
        linear(active, f, down, m, f, d, r->rows + at * d, d, 0);
    }
}

/* One row of an expert's width: its gate's gradient is returned, `active` is set to gate * relu(before)^2 and `grad`, the gradient of
   relu(before)^2, becomes that of `before`. */
static float through_relu(const float *before, float gate, int64_t f, float *grad, float *active) {
    vec total = {0};
    for (int64_t i = 0; i < f; i += LANES) {
        const vec x = load_n(before + i, f - i), relu = choose(x < 0.0f, all(0.0f), x), square = relu * relu;
        const vec g = load_n(grad + i, f - i);
        total += g * square;
        store_n(active + i, square * gate, f - i);
        store_n(grad + i, g * relu * (2.0f * gate), f - i);
    }
    return sum(total);
}

static void routed_backward(const Routed *r, int64_t e, float *scratch) {
    const int64_t d = r->d, f = r->f, first = e ? r->ends[e - 1] : 0, last = r->ends[e];
    const float *up = r->up + e * f * d, *down = r->down + e * d * f;
    float *in = scratch, *out = in + BLOCK * d, *wide = out + BLOCK * d, *active = wide + BLOCK * f;
    memset(r->grad_up + e * f * d, 0, 4 * f * d);
    memset(r->grad_down + e * d * f, 0, 4 * d * f);
    for (int64_t at = first; at < last; at += BLOCK) {
        const int64_t m = last - at < BLOCK ? last - at : BLOCK;
        read_tokens(r, r->x, at, m, in);
        read_tokens(r, r->grad, at, m, out);
        times_deep(out, d, 1, down, f, m, d, f, wide, f, 0);
        for (int64_t i = 0; i < m; i++) {
            const int64_t choice = r->order[at + i];
            r->grad_gates[choice] = through_relu(r->before + (at + i) * f, r->gates[choice], f, wide + i * f, active + i * f);
        }
        times_deep(out, 1, d, active, f, d, m, f, r->grad_down + e * d * f, f, 1);
        times_deep(wide, 1, f, in, d, f, m, d, r->grad_up + e * f * d, d, 1);
        times_deep(wide, f, 1, up, d, m, f, d, r->rows + at * d, d, 0);
    }
}

/* y of the tokens from `first` to `last`: the sum of their choices' rows, each times its gate where gates are given. */
static void routed_sums(const Routed *r, const float *gates, int64_t first, int64_t last, float *y) {
    for (int64_t n = first; n < last; n++)
        for (int64_t i = 0; i < r->d; i += LANES) {
            vec total = {0};
            for (int64_t k = n * r->K; k < (n + 1) * r->K; k++)
                total += load_n(r->rows + r->places[k] * r->d + i, r->d - i) * (gates ? gates[k] : 1.0f);
            store_n(y + n * r->d + i, total, r->d - i);
        }
}

#endif
