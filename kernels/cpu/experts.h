/* The experts that a router chooses, beside a shared one; the same rules as router.py and experts.py. */

#ifndef SWANNERY_EXPERTS_H
#define SWANNERY_EXPERTS_H

#include "layers.h"
#include "linear.h"

/* Each row's K experts by falling score + bias, and their gates: scale * score / sum of the chosen scores. */
static void route(const Experts *e, const float *logits, int64_t *chosen, float *gates, float *scores) {
    float total = 0;
    for (int64_t i = 0; i < e->E; i += LANES) store_n(scores + i, sigmoid(load_n(logits + i, e->E - i)), e->E - i);
    for (int64_t k = 0; k < e->K; k++) {
        int64_t best = -1;
        for (int64_t i = 0; i < e->E; i++) {
            int taken = 0;
            for (int64_t j = 0; j < k; j++) taken |= chosen[j] == i;
            if (!taken && (best < 0 || scores[i] + e->bias[i] > scores[best] + e->bias[best])) best = i;
        }
        chosen[k] = best;
        total += gates[k] = scores[best];
    }
    for (int64_t k = 0; k < e->K; k++) gates[k] *= (float)e->scale / (total + 1e-20f);
}

/* Floats of a row: gates, its choices' inputs and outputs, an expert's width; latent in and out; the shared width; scores. */
static int64_t experts_scratch(const Experts *e) {
    return e->K + e->K * (2 * e->l + e->f) + 2 * e->l + e->s + 2 * e->E + e->K;
}

static void experts(const Experts *e, const Step *step, const float *x, float *h, int64_t d, int64_t layer, int64_t num_routed, float *scratch) {
    const int64_t B = step->B, K = e->K, l = e->l, M = B * K;
    float *gates = scratch, *in = gates + M, *out = in + M * l, *wide = out + M * l, *latent = wide + M * e->f, *mixed = latent + B * l;
    float *shared = mixed + B * l, *logits = shared + B * e->s, *scores = logits + B * e->E;
    int64_t *routes = step->routes + layer * K;
    linear(x, d, e->router_p, B, d, e->E, logits, e->E, 0);
    for (int64_t b = 0; b < B; b++) route(e, logits + b * e->E, routes + b * num_routed * K, gates + b * K, scores);
    if (e->into_p) linear(x, d, e->into_p, B, d, l, latent, l, 0);
    const float *given = e->into_p ? latent : x;

    /* Rows by expert, in the order of their choices. */
    int64_t start = 0;
    float *place = scores; /* where each choice's output lies; whole numbers */
    for (int64_t expert = 0; expert < e->E; expert++) {
        int64_t count = 0;
        for (int64_t b = 0; b < B; b++)
            for (int64_t k = 0; k < K; k++)
                if (routes[b * num_routed * K + k] == expert) {
                    memcpy(in + (start + count) * l, given + b * l, 4 * l);
                    place[b * K + k] = (float)(start + count++);
                }
        if (!count) continue;
        const int64_t up = (e->f + PANEL - 1) / PANEL * PANEL * l, down = (l + PANEL - 1) / PANEL * PANEL * e->f;
        linear(in + start * l, l, e->up_p + expert * up, count, l, e->f, wide, e->f, 0);
        relu_squared(wide, count * e->f);
        linear(wide, e->f, e->down_p + expert * down, count, e->f, l, out + start * l, l, 0);
        start += count;
    }
    float *to = e->into_p ? mixed : h;
    if (e->into_p) memset(mixed, 0, 4 * B * l);
    for (int64_t b = 0; b < B; b++)
        for (int64_t k = 0; k < K; k++) {
            const float gate = gates[b * K + k], *from = out + (int64_t)place[b * K + k] * l;
            for (int64_t i = 0; i < l; i += LANES)
                store_n(to + b * l + i, load_n(to + b * l + i, l - i) + gate * load_n(from + i, l - i), l - i);
        }
    if (e->into_p) linear(mixed, l, e->out_of_p, B, l, d, h, d, 1);
    linear(x, d, e->shared_up_p, B, d, e->s, shared, e->s, 0);
    relu_squared(shared, B * e->s);
    linear(shared, e->s, e->shared_down_p, B, e->s, d, h, d, 1);
}

#endif
