/* One token through Mamba-2 (https://arxiv.org/abs/2405.21060): projection, short convolution, recurrence, gated norm, projection. */

#ifndef SWANNERY_MAMBA_H
#define SWANNERY_MAMBA_H

#include "layers.h"
#include "linear.h"

/* The convolution of one row's new inputs x with those before, which move on by one. In place, with SiLU. */
static void convolve(float *x, float *inputs, const float *taps, const float *bias, int64_t K, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t part = n - i;
        const vec now = load_n(x + i, part);
        vec y = load_n(bias + i, part) + now * load_n(taps + (K - 1) * n + i, part);
        for (int64_t k = 0; k < K - 1; k++) {
            const vec before = load_n(inputs + k * n + i, part);
            y += before * load_n(taps + k * n + i, part);
            if (k) store_n(inputs + (k - 1) * n + i, before, part);
        }
        if (K > 1) store_n(inputs + (K - 2) * n + i, now, part);
        store_n(x + i, y * sigmoid(y), part);
    }
}

/* S <- e^{dt A} S + dt x B^T and y = S C + D x, for one head of P channels and N states. */
static void recur(const float *x, const float *B, const float *C, float decay, float dt, float skip, int64_t P, int64_t N, float *S, float *y) {
    for (int64_t p = 0; p < P; p++, S += N) {
        const float input = x[p] * dt;
        vec total = {0};
        for (int64_t n = 0; n < N; n += LANES) {
            const vec state = load_n(S + n, N - n) * decay + input * load_n(B + n, N - n);
            store_n(S + n, state, N - n);
            total += state * load_n(C + n, N - n);
        }
        y[p] = sum(total) + skip * x[p];
    }
}

/* y <- norm(y * SiLU(gate)) over each of G groups of n channels. */
static void gated_norm(float *y, const float *gate, const float *weight, float eps, int64_t G, int64_t n) {
    for (int64_t g = 0; g < G; g++, y += n, gate += n, weight += n) {
        for (int64_t i = 0; i < n; i += LANES) {
            const vec z = load_n(gate + i, n - i);
            store_n(y + i, load_n(y + i, n - i) * (z * sigmoid(z)), n - i);
        }
        rms_norm(y, weight, eps, 1, n, y);
    }
}

static int64_t mamba_scratch(const Mamba *m) { return 3 * m->H * m->P + 2 * m->G * m->N + m->H; }

/* h [B, d] += the layer of x [B, d]. */
static void mamba(const Mamba *m, const Step *step, const float *x, float *h, int64_t d, float *scratch) {
    const int64_t inner = m->H * m->P, conv = inner + 2 * m->G * m->N, wide = inner + conv + m->H, B = step->B;
    float *projected = scratch, *y = scratch + B * wide;
    linear(x, d, m->in_p, B, d, wide, projected, wide, 0);
    for (int64_t b = 0; b < B; b++) {
        float *gate = projected + b * wide, *xBC = gate + inner, *dts = xBC + conv, *out = y + b * inner;
        const int64_t row = step->first + b;
        float *state = m->states + row * inner * m->N;
        convolve(xBC, m->inputs + row * (m->K - 1) * conv, m->taps, m->bias, m->K, conv);
        for (int64_t i = 0; i < m->H; i++) {
            const float raw = dts[i] + m->dt_bias[i];
            const float soft = raw > 20 ? raw : log1pf(expf(raw)), least = (float)m->least_dt, dt = soft < least ? least : soft;
            const int64_t g = i / (m->H / m->G);
            const float *Bs = xBC + inner + g * m->N, *Cs = Bs + m->G * m->N;
            recur(xBC + i * m->P, Bs, Cs, expf(-dt * expf(m->A_log[i])), dt, m->D[i], m->P, m->N, state + i * m->P * m->N, out + i * m->P);
        }
        gated_norm(out, gate, m->norm, (float)m->eps, m->G, inner / m->G);
    }
    linear(y, inner, m->out_p, B, inner, d, h, d, 1);
}

#endif
