/* One query of each row over the pages of its keys and values. Keys lie with their tokens side by side: scores of 16 tokens are one
   multiply-add a channel. */

#ifndef SWANNERY_ATTENTION_H
#define SWANNERY_ATTENTION_H

#include "layers.h"
#include "linear.h"

/* scores[n] = q . k_n for the first `count` tokens of a page of p, and for some behind them. */
INLINE void page_scores(const float *q, const float *keys, int64_t D, int64_t p, int64_t count, float *scores) {
    int64_t n = 0;
    for (; n < count && n + 4 * LANES <= p; n += 4 * LANES) {
        vec s[4] = {{0}};
        for (int64_t i = 0; i < D; i++)
            for (int v = 0; v < 4; v++) s[v] += q[i] * load(keys + i * p + n + v * LANES);
        for (int v = 0; v < 4; v++) store(scores + n + v * LANES, s[v]);
    }
    for (; n < count; n += LANES) {
        vec s = {0};
        for (int64_t i = 0; i < D; i++) s += q[i] * load_n(keys + i * p + n, p - n);
        store_n(scores + n, s, p - n);
    }
}

/* y += sum_n w_n v_n over n tokens of a page. */
INLINE void page_values(const float *weights, const float *values, int64_t D, int64_t n, float *y) {
    for (int64_t i = 0; i < D; i += 2 * LANES) {
        const int64_t part = D - i;
        vec even[2] = {{0}}, odd[2] = {{0}};
        int64_t t = 0;
        if (part >= 2 * LANES) {
            for (; t + 2 <= n; t += 2)
                for (int v = 0; v < 2; v++) {
                    even[v] += weights[t] * load(values + t * D + i + v * LANES);
                    odd[v] += weights[t + 1] * load(values + (t + 1) * D + i + v * LANES);
                }
        }
        for (; t < n; t++) {
            even[0] += weights[t] * load_n(values + t * D + i, part);
            if (part > LANES) even[1] += weights[t] * load_n(values + t * D + i + LANES, part - LANES);
        }
        store_n(y + i, load_n(y + i, part) + (even[0] + odd[0]), part);
        if (part > LANES) store_n(y + i + LANES, load_n(y + i + LANES, part - LANES) + (even[1] + odd[1]), part - LANES);
    }
}

/* Scores to e^(score - largest); returns one over their sum. */
static float weigh(float *scores, int64_t n) {
    vec most = all(-INFINITY), total = {0};
    float largest = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec s = load(scores + i);
        most = choose(s > most, s, most);
    }
    for (int v = 0; v < LANES; v++) largest = most[v] > largest ? most[v] : largest;
    for (; i < n; i++) largest = scores[i] > largest ? scores[i] : largest;
    for (i = 0; i < n; i += LANES) {
        const vec w = vexp(load_n(scores + i, n - i) - largest);
        store_n(scores + i, w, n - i);
        total += load_n(scores + i, n - i);
    }
    return 1.0f / sum(total);
}

/* Pages that one row sees, or the one ring that it has. */
typedef struct {
    const int64_t *table;
    int64_t length, p; /* tokens in all, tokens of a page */
} Sight;

/* y [H][D] <- the mean of the values that q [H][D] attends to; `scores` is room for whole pages of them. */
static void attend(const float *q, const float *keys, const float *values, Sight sight, int64_t H, int64_t J, int64_t D, float *scores, float *y) {
    const int64_t p = sight.p, page = J * D * p;
    for (int64_t h = 0; h < H; h++, q += D, y += D) {
        const int64_t of_head = h / (H / J) * D * p;
        for (int64_t n = 0; n < sight.length; n += p) {
            const int64_t left = sight.length - n;
            page_scores(q, keys + sight.table[n / p] * page + of_head, D, p, left < p ? left : p, scores + n);
        }
        const float one_over = weigh(scores, sight.length);
        for (int64_t n = 0; n < sight.length; n += p) {
            const int64_t left = sight.length - n;
            page_values(scores + n, values + sight.table[n / p] * page + of_head, D, left < p ? left : p, y);
        }
        for (int64_t c = 0; c < D; c++) y[c] *= one_over;
    }
}

/* A new token's key and value, written at place `at` of a page. */
static void remember(float *keys, float *values, const float *k, const float *v, int64_t J, int64_t D, int64_t p, int64_t at) {
    for (int64_t i = 0; i < J * D; i++) keys[i * p + at] = k[i];
    for (int64_t j = 0; j < J; j++) memcpy(values + (j * p + at) * D, v + j * D, 4 * D);
}

/* Rotary positions (https://arxiv.org/abs/2104.09864): channels i and i + D / 2 of each head turn by position * theta^(-2 i / D). These
   are the cosines and sines of the step's rows, [B][2][D / 2], the same for all layers. */
static void find_turns(const Attention *a, const Step *step, float *turns) {
    const int64_t half = a->D / 2;
    for (int64_t i = 0; i < half; i++) {
        const double speed = pow(a->theta, -(double)i / (double)half);
        for (int64_t b = 0; b < step->B; b++) {
            const double angle = (double)(step->lengths[b] - 1) * speed;
            turns[b * a->D + i] = (float)cos(angle);
            turns[b * a->D + half + i] = (float)sin(angle);
        }
    }
}

static void rotate(float *x, int64_t heads, int64_t D, const float *turn) {
    for (int64_t h = 0; h < heads; h++, x += D)
        for (int64_t i = 0; i < D / 2; i++) {
            const float c = turn[i], s = turn[D / 2 + i], low = x[i], high = x[D / 2 + i];
            x[i] = low * c - high * s;
            x[D / 2 + i] = high * c + low * s;
        }
}

/* Projections and the mean of values, by row. */
static int64_t attention_scratch(const Attention *a) { return (2 * a->H + 2 * a->J) * a->D; }

/* h [B, d] += the layer of x [B, d]. With a window a row has one page of its own, whose places are taken again and again. */
static void attention(const Attention *a, const Step *step, const float *x, float *h, int64_t d, const float *turns, float *scratch) {
    const int64_t H = a->H, J = a->J, D = a->D, p = a->p, B = step->B, wide = (H + 2 * J) * D, page = J * D * p;
    const float scale = 1.0f / sqrtf((float)D);
    float *projected = scratch, *y = projected + B * wide, *scores = y + B * H * D;
    linear(x, d, a->qkv_p, B, d, wide, projected, wide, 0);
    for (int64_t b = 0; b < B; b++) {
        const int64_t length = step->lengths[b], row = step->first + b;
        const int64_t *table = a->is_window ? &row : step->tables + b * step->table_stride;
        const Sight sight = {table, a->is_window && length > p ? p : length, p};
        float *q = projected + b * wide, *k = q + H * D, *out = y + b * H * D;
        memset(out, 0, 4 * H * D);
        if (!length) continue;
        const int64_t last = table[a->is_window ? 0 : (length - 1) / p] * page;
        if (a->is_window) rotate(q, H + J, D, turns + b * D);
        remember(a->keys + last, a->values + last, k, k + J * D, J, D, p, (length - 1) % p);
        for (int64_t i = 0; i < H * D; i++) q[i] *= scale;
        attend(q, a->keys, a->values, sight, H, J, D, scores, out);
    }
    linear(y, H * D, a->out_p, B, H * D, d, h, d, 1);
}

#endif
