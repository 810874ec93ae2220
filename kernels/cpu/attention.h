/* One query of each row over the pages of its keys and values. Keys lie with their tokens side by side: scores of 16 tokens are one
   multiply-add a channel. */

#ifndef SWANNERY_ATTENTION_H
#define SWANNERY_ATTENTION_H

#include "layers.h"
#include "linear.h"

/* scores[n] = q . k_n for the p tokens of a page. */
INLINE void page_scores(const float *q, const float *keys, int64_t D, int64_t p, float *scores) {
    int64_t n = 0;
    for (; n + 4 * LANES <= p; n += 4 * LANES) {
        vec s[4] = {{0}};
        for (int64_t i = 0; i < D; i++)
            for (int v = 0; v < 4; v++) s[v] += q[i] * load(keys + i * p + n + v * LANES);
        for (int v = 0; v < 4; v++) store(scores + n + v * LANES, s[v]);
    }
    for (; n < p; n += LANES) {
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

/* Projections and the mean of values by row, and by row the scores of one head over `tokens`. */
static int64_t attention_scratch(const Attention *a) { return (2 * a->H + 2 * a->J) * a->D; }

static void attention(const Attention *a, const Step *step, const float *x, float *h, int64_t d, float *scratch) {
    const int64_t H = a->H, J = a->J, D = a->D, p = a->p, B = step->B, wide = (H + 2 * J) * D, page = J * D * p;
    const float scale = 1.0f / sqrtf((float)D);
    float *projected = scratch, *y = projected + B * wide, *scores = y + B * H * D;
    linear(x, d, a->qkv_p, B, d, wide, projected, wide, 0);
    for (int64_t b = 0; b < B; b++) {
        const int64_t length = step->lengths[b], *table = step->tables + b * step->table_stride;
        float *q = projected + b * wide, *out = y + b * H * D;
        const float *k = q + H * D, *v = k + J * D;
        memset(out, 0, 4 * H * D);
        if (!length) continue;
        const int64_t at = (length - 1) % p, last = table[(length - 1) / p];
        for (int64_t i = 0; i < J * D; i++) a->keys[last * page + i * p + at] = k[i];
        for (int64_t j = 0; j < J; j++) memcpy(a->values + last * page + (j * p + at) * D, v + j * D, 4 * D);
        for (int64_t i = 0; i < H * D; i++) q[i] *= scale;
        for (int64_t i = 0; i < H; i++, q += D, out += D) {
            const int64_t of_head = i / (H / J) * D * p;
            for (int64_t n = 0; n < length; n += p)
                page_scores(q, a->keys + table[n / p] * page + of_head, D, p, scores + n);
            const float one_over = weigh(scores, length);
            for (int64_t n = 0; n < length; n += p)
                page_values(scores + n, a->values + table[n / p] * page + of_head, D, length - n < p ? length - n : p, out);
            for (int64_t c = 0; c < D; c++) out[c] *= one_over;
        }
    }
    linear(y, H * D, a->out_p, B, H * D, d, h, d, 1);
}

#endif
