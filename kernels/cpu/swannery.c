/* What the project has in C for CPUs. A decode step of a hybrid model is one call for all layers: what torch does in some 350 operations,
   each a few microseconds before it computes anything, is here what its arithmetic and its memory cost. */

#include "attention.h"
#include "experts.h"
#include "forest.h"
#include "mamba.h"
#include "routed.h"
#include "sampling.h"
#include "scan.h"

int64_t swannery_panel(void) { return PANEL; }

/* Whether a tile of products fits into this processor's registers. */
int64_t swannery_is_wide(void) {
#ifdef __AVX512F__
    return 1;
#else
    return 0;
#endif
}

/* y [M, N] is set to x [M, K] times b [K, N], or has it added. Rows of b and of y are contiguous, x lies at any strides. */
void swannery_product(
    const float *x, int64_t xr, int64_t xk, const float *b, int64_t ldb, int64_t M, int64_t K, int64_t N, float *y, int64_t ldy, int64_t add
) {
    times_deep(x, xr, xk, b, ldb, M, K, N, y, ldy, add != 0);
}

/* Floats that a step of B rows needs to work in; `tokens` are those of the longest row, whole pages. */
int64_t swannery_scratch(const Model *model, int64_t B, int64_t tokens) {
    int64_t most = 0, turns = 0;
    for (int64_t i = 0; i < model->num_layers; i++) {
        const Layer *layer = model->layers + i;
        int64_t row = 0;
        if (layer->letter == 'M') row = mamba_scratch(layer->mixer);
        if (layer->letter == '*') {
            const Attention *attention = layer->mixer;
            row = attention_scratch(attention);
            if (attention->is_window) {
                turns = attention->D;
                tokens = attention->p + LANES > tokens ? attention->p + LANES : tokens;
            }
        }
        if (layer->letter == 'E') row = experts_scratch(layer->mixer);
        if (layer->letter == '-') row = ((const Mlp *)layer->mixer)->s;
        most = row > most ? row : most;
    }
    return B * (2 * model->d + turns + most) + tokens;
}

void swannery_decode(const Model *model, const Step *step) {
    const int64_t B = step->B, d = model->d;
    float *h = step->scratch, *x = h + B * d, *scratch = x + B * d, *turns = NULL;
    int64_t routed = 0;
    for (int64_t b = 0; b < B; b++) memcpy(h + b * d, model->embeddings + step->ids[b] * d, 4 * d);
    for (int64_t i = 0; i < model->num_layers; i++) {
        const Layer *layer = model->layers + i;
        rms_norm(h, layer->norm, (float)model->eps, B, d, x);
        switch (layer->letter) {
        case 'M': mamba(layer->mixer, step, x, h, d, scratch); break;
        case '*':
            if (((const Attention *)layer->mixer)->is_window && !turns) {
                turns = scratch;
                scratch += B * ((const Attention *)layer->mixer)->D;
                find_turns(layer->mixer, step, turns);
            }
            attention(layer->mixer, step, x, h, d, turns, scratch);
            break;
        case 'E': experts(layer->mixer, step, x, h, d, routed++, model->num_routed, scratch); break;
        case '-': {
            const Mlp *mlp = layer->mixer;
            linear(x, d, mlp->up_p, B, d, mlp->s, scratch, mlp->s, 0);
            relu_squared(scratch, B * mlp->s);
            linear(scratch, mlp->s, mlp->down_p, B, mlp->s, d, h, d, 1);
        }
        }
    }
    rms_norm(h, model->norm, (float)model->eps, B, d, x);
    linear(x, d, model->head_p, B, d, model->V, step->logits, model->V, 0);
}

/* A token of each of B rows of V logits, and its log-probability; `weights` is room for V floats. */
void swannery_sample(
    int64_t B, int64_t V, const float *logits, const float *temperatures, const double *uniforms, float *weights, int64_t *ids, float *logprobs
) {
    for (int64_t b = 0; b < B; b++) ids[b] = draw(logits + b * V, V, temperatures[b], uniforms[b], weights, logprobs + b);
}

int64_t swannery_forest_scratch(const Forest *forest) { return forest_scratch(forest); }

/* One key-value head: its queries' outputs, or the gradients of all that it meets. */
void swannery_forest_forward(const Forest *forest, int64_t head, float *scratch) { forest_forward(forest, head, scratch); }

void swannery_forest_backward(const Forest *forest, int64_t head, float *scratch) { forest_backward(forest, head, scratch); }

int64_t swannery_routed_scratch(const Routed *routed) { return routed_scratch(routed); }

/* One expert's tokens: their outputs, or the gradients of all that they meet. */
void swannery_routed_forward(const Routed *routed, int64_t expert, float *scratch) { routed_forward(routed, expert, scratch); }

void swannery_routed_backward(const Routed *routed, int64_t expert, float *scratch) { routed_backward(routed, expert, scratch); }

/* Sums of tokens' choices, weighted by `gates` unless it is NULL. */
void swannery_routed_sums(const Routed *routed, const float *gates, int64_t first, int64_t last, float *y) {
    routed_sums(routed, gates, first, last, y);
}

int64_t swannery_scan_scratch(const Scan *scan) { return scan_scratch(scan); }

/* The trees of chunks of one part. */
void swannery_scan_forward(const Scan *scan, int64_t part, float *scratch) { scan_forward(scan, part, scratch); }

void swannery_scan_backward(const Scan *scan, int64_t part, float *scratch) { scan_backward(scan, part, scratch); }
