/* What a decode step is told: the layers of a model with their weights and states, and the rows to advance. Python fills these in
   (../decode_cpu.py), field by field in this order. Weights named `_p` are packed (linear.h). */

#ifndef SWANNERY_LAYERS_H
#define SWANNERY_LAYERS_H

#include <stdint.h>

/* Mamba-2: H heads of P channels, G groups with N states each, convolution of width K. */
typedef struct {
    int64_t H, P, G, N, K;
    double eps, least_dt;
    const float *in_p, *taps, *bias, *dt_bias, *A_log, *D, *norm, *out_p;
    float *inputs, *states; /* of rows: [K - 1][x + 2 G N], [H][P][N] */
} Mamba;

/* Grouped-query attention: H query heads, J key-value heads of D channels, pages of p tokens. With a window, rotary positions, and a
   page of p tokens for each row. */
typedef struct {
    int64_t H, J, D, p, is_window;
    double theta;
    const float *qkv_p, *out_p;
    float *keys, *values; /* of pages: [J][D][p], [J][p][D] */
} Attention;

/* Mixture of experts: K of E experts of width f on l channels, beside a shared one of width s. */
typedef struct {
    int64_t E, K, f, l, s;
    double scale;
    const float *router_p, *bias, *up_p, *down_p, *shared_up_p, *shared_down_p;
    const float *into_p, *out_of_p; /* latent projections; NULL where l is the model's width */
} Experts;

/* W_down relu(W_up x)^2 of width s. */
typedef struct {
    int64_t s;
    const float *up_p, *down_p;
} Mlp;

typedef struct {
    int64_t letter; /* 'M', '*' (windows too), 'E' or '-' */
    const float *norm;
    const void *mixer;
} Layer;

typedef struct {
    int64_t d, V, num_layers, num_routed, K; /* width, vocabulary, layers, layers with experts, experts of a token */
    double eps;
    const float *embeddings, *norm, *head_p;
    const Layer *layers;
} Model;

/* B rows, the first of which is `first` in states that lie by row. Each holds lengths[b] tokens, the new one counted. */
typedef struct {
    int64_t first, B, table_stride;
    const int64_t *ids, *tables, *lengths;
    float *logits;   /* [B][V] */
    int64_t *routes; /* [B][num_routed][K] */
    float *scratch;
} Step;

#endif
