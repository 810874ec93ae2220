/* Vectors of floats, and the few functions of them that torch's operations are made of.

   A vector is a register of the processor: 16 lanes with AVX-512, 8 with AVX, 4 elsewhere. Nothing here reorders sums behind our back: a
   row's bits depend on the row alone, whatever rows it is computed beside. */

#ifndef SWANNERY_VECTOR_H
#define SWANNERY_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec x) { *(vec *)to = x; }
INLINE vec all(float x) { return x - (vec){0}; }
INLINE vec choose(ivec condition, vec then, vec otherwise) { return (vec)((condition & (ivec)then) | (~condition & (ivec)otherwise)); }

/* The first n floats, or all lanes where n >= LANES; lanes that are left out are 0 and are not written. */
INLINE vec load_n(const float *from, int64_t n) {
    if (n >= LANES) return load(from);
    vec x = {0};
    memcpy(&x, from, 4 * n);
    return x;
}

INLINE void store_n(float *to, vec x, int64_t n) {
    if (n >= LANES)
        store(to, x);
    else
        memcpy(to, &x, 4 * n);
}

/* By halves, as instructions do it. */
INLINE float sum(vec x) {
    typedef float half __attribute__((vector_size(16)));
#if LANES == 16
    typedef float wide __attribute__((vector_size(32)));
    const union { vec all; wide part[2]; } sixteen = {x};
    const union { wide all; half part[2]; } eight = {sixteen.part[0] + sixteen.part[1]};
    const half four = eight.part[0] + eight.part[1];
#elif LANES == 8
    const union { vec all; half part[2]; } eight = {x};
    const half four = eight.part[0] + eight.part[1];
#else
    const half four = x;
#endif
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* e^x = 2^n e^r with |r| <= ln 2 / 2, and the Taylor polynomial of e^r, whose next term is 5e-9. Below -87 it is 0; NaN stays NaN. */
INLINE vec vexp(vec x) {
    const vec big = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const ivec vanishes = x < -87.0f;
    x = choose(x > 88.0f, all(88.0f), choose(vanishes, all(-87.0f), x));
    vec shifted = x * 1.44269504f + big, n = shifted - big;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f; /* ln 2 in two parts */
    vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    ivec exponent = ((ivec)shifted << 23) + (127 << 23);
    return choose(vanishes, all(0.0f), p * (vec)exponent);
}

INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + vexp(-x)); }

INLINE float dot(const float *a, const float *b, int64_t n) {
    vec total = {0};
    for (int64_t i = 0; i < n; i += LANES) total += load_n(a + i, n - i) * load_n(b + i, n - i);
    return sum(total);
}

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
#define LIST(...) __VA_ARGS__
#define EXCHANGE(s, low, high)                                                                 \
    for (int i = 0; i < LANES; i++)                                                            \
        if (!(i & s)) {                                                                        \
            const vec a = x[i], b = x[i + s];                                                  \
            x[i] = PICK(a, b, LIST low);                                                       \
            x[i + s] = PICK(a, b, LIST high);                                                  \
        }

/* Rows and lanes change places: one bit of their numbers after another. */
INLINE void transpose(vec x[LANES]) {
#if LANES == 16
    EXCHANGE(8, (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), (8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    EXCHANGE(4, (0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27), (4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    EXCHANGE(2, (0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29), (2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    EXCHANGE(1, (0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30), (1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif LANES == 8
    EXCHANGE(4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))
    EXCHANGE(2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15))
    EXCHANGE(1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15))
#else
    EXCHANGE(2, (0, 1, 4, 5), (2, 3, 6, 7))
    EXCHANGE(1, (0, 4, 2, 6), (1, 5, 3, 7))
#endif
}

/* M rows of n floats, ld apart, to n rows of M floats, ldt apart. */
static void turn(const float *from, int64_t ld, int64_t M, int64_t n, float *to, int64_t ldt) {
    for (int64_t m = 0; m < M; m += LANES)
        for (int64_t i = 0; i < n; i += LANES) {
            vec x[LANES] = {{0}};
            for (int64_t row = 0; row < LANES && m + row < M; row++) x[row] = load_n(from + (m + row) * ld + i, n - i);
            transpose(x);
            for (int64_t row = 0; row < LANES && i + row < n; row++) store_n(to + (i + row) * ldt + m, x[row], M - m);
        }
}

#endif
