/* A token of each row by inversion of the cumulative distribution; the same rules as policies/sampling.py. */

#ifndef SWANNERY_SAMPLING_H
#define SWANNERY_SAMPLING_H

#include "vector.h"

/* Index of the largest of n values, the first of equals. */
static int64_t largest(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) best = x[i] > x[best] ? i : best;
    return best;
}

/* The token where the sum of e^(x / temperature) passes `uniform` of the whole, and its log-probability. Temperature 0 takes the
   largest, with log-probability 0. `weights` is room for V floats. */
static int64_t draw(const float *x, int64_t V, float temperature, double uniform, float *weights, float *logprob) {
    *logprob = 0.0f;
    if (temperature == 0.0f) return largest(x, V);
    vec most = all(-INFINITY);
    float top = -INFINITY;
    double total = 0, before = 0;
    int64_t found = -1, i = 0;
    for (; i + LANES <= V; i += LANES) {
        const vec now = load(x + i);
        most = choose(now > most, now, most);
    }
    for (int v = 0; v < LANES; v++) top = most[v] > top ? most[v] : top;
    for (; i < V; i++) top = x[i] > top ? x[i] : top;
    for (i = 0; i < V; i += LANES) {
        store_n(weights + i, vexp((load_n(x + i, V - i) - top) / temperature), V - i);
        total += sum(load_n(weights + i, V - i));
    }
    /* First the 16 tokens among which it lies, then the one: rounding may leave the target at the very end, behind the last. */
    const double target = uniform * total;
    for (i = 0; i < V; i += LANES) {
        const double block = sum(load_n(weights + i, V - i));
        if (before + block > target || i + LANES >= V) break;
        before += block;
    }
    for (int64_t end = i + LANES < V ? i + LANES : V; i < end; i++) {
        if (weights[i] > 0) found = i;
        before += weights[i];
        if (found == i && before > target) break;
    }
    if (found < 0)
        for (found = V - 1; found > 0 && !(weights[found] > 0); found--) {}
    *logprob = (float)((x[found] - top) / temperature - log(total));
    return found;
}

#endif
