/* What the rows of a step measure. Each rows_*.c includes this file for one kind of processor, with LANES, the number of
   floats in its vectors, and MEASURE_ROW, the name of the function. */

#include "step.h"

#ifdef __SSE__
#include <immintrin.h>
#endif

/* exp() of a smaller number counts as that of this one, about 1e-38. */
#define SMALLEST -87.0f
/* Sums of exponentials of numbers up to this one are finite, and down to its negative they lose nothing to SMALLEST. */
#define MODERATE 64.0f
#define LOG2_E 1.4426950408889634f
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
/* A float near 1.5 * 2^23 has no bits for a fraction, so adding this rounds. 127 is the bias of exponents. */
#define ROUNDING (12582912.0f + 127.0f)
/* The number of codes whose exponentials are added as floats, whose errors grow with the number of additions. */
#define BLOCK 512
/* How many bytes ahead logits are fetched: a page of memory, at whose end the fetching of processors stops. */
#define AHEAD 4096

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef double Doubles __attribute__((vector_size(8 * LANES), aligned(8)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));

#ifdef __clang__
#define SHUFFLED(first, second, ...) __builtin_shufflevector(first, second, __VA_ARGS__)
#else
#define SHUFFLED(first, second, ...) __builtin_shuffle(first, second, (Ints){__VA_ARGS__})
#endif
#if LANES == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define BITS 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768
#elif LANES == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define BITS 1, 2, 4, 8, 16, 32, 64, 128
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define BITS 1, 2, 4, 8
#endif

INLINE Floats choose(Ints mask, Floats yes, Floats no) {
    return (Floats)((mask & (Ints)yes) | (~mask & (Ints)no));
}

INLINE Floats all(float value) { return value - (Floats){0}; }

/* If x is NaN, y. One instruction of x86, which compilers do not find for `choose`. */
INLINE Floats larger(Floats x, Floats y) {
#if LANES == 16 && defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)x, (__m512)y);
#elif LANES == 8 && defined(__AVX__)
    return (Floats)_mm256_max_ps((__m256)x, (__m256)y);
#elif LANES == 4 && defined(__SSE__)
    return (Floats)_mm_max_ps((__m128)x, (__m128)y);
#else
    return choose(x > y, x, y);
#endif
}

INLINE Floats bounded_all(Floats x) {
    Floats clipped = choose(x > all(LARGEST), all(LARGEST), choose(x < all(-LARGEST), all(-LARGEST), x));
    return choose(x > all(-INFINITY), clipped, all(-INFINITY));
}

/* exp(x) of x up to MODERATE, with an error of at most 1.5e-7 of the result: 2^n exp(f) with |f| <= log(2) / 2. */
INLINE Floats exp_all(Floats x) {
    x = larger(x, all(SMALLEST));
    Floats rounded = x * LOG2_E + ROUNDING;
    Floats n = rounded - ROUNDING;
    Floats f = x - n * LN2_HIGH - n * LN2_LOW;
    Floats p = f * 8.2902582362e-3f + 4.1898164898e-2f;
    p = p * f + 1.6667638719e-1f;
    p = p * f + 4.9999147654e-1f;
    p = p * f + 9.9999970198e-1f;
    p = p * f + 1.0f;
    return p * (Floats)((Ints)rounded << 23);
}

/* LANES logits of a row from a code on, as they are; -inf after the end of the row. */
INLINE Floats logits_at(const Step *step, int64_t row, int64_t code, int is_bfloat16) {
    int64_t place = row * step->size + code, left = step->size - code;
    if (is_bfloat16) {
        Halves halves;
        if (left >= LANES)
            halves = *(const Halves *)((const uint16_t *)step->logits + place);
        else
            for (int lane = 0; lane < LANES; lane++)
                halves[lane] = lane < left ? ((const uint16_t *)step->logits)[place + lane] : 0xff80;
        return (Floats)(__builtin_convertvector(halves, Ints) << 16);
    }
    if (left >= LANES)
        return *(const Floats *)((const float *)step->logits + place);
    Floats part = all(-INFINITY);
    if (left > 0)
        memcpy(&part, (const float *)step->logits + place, (size_t)left * sizeof(float));
    return part;
}

typedef struct {
    float top;
    double sum;
} Measured;

INLINE Measured measured(Floats top, Doubles sums) {
    Measured found = {-INFINITY, 0.0};
    for (int lane = 0; lane < LANES; lane++) {
        found.top = top[lane] > found.top ? top[lane] : found.top;
        found.sum += sums[lane];
    }
    return found;
}

/* The largest logit of a row, and the sum of exp(logit - shift). The logits are taken as they are, or bounded. */
INLINE Measured measure_codes(const Step *step, int64_t row, float shift, int is_bfloat16, int is_bounded,
                             int is_summed) {
    Floats top = all(-INFINITY);
    Doubles sums = {0};
    for (int64_t block = 0; block < step->size; block += BLOCK) {
        int64_t stop = block + BLOCK < step->size ? block + BLOCK : step->size;
        Floats of_block = {0};
        for (int64_t code = block; code < stop; code += LANES) {
            Floats logits = logits_at(step, row, code, is_bfloat16);
            __builtin_prefetch((const char *)step->logits + (row * step->size + code) * (is_bfloat16 ? 2 : 4) + AHEAD);
            if (is_bounded)
                logits = bounded_all(logits);
            top = larger(logits, top);
            if (is_summed)
                of_block += exp_all(is_bounded ? logits - shift : logits);
        }
        sums += __builtin_convertvector(of_block, Doubles);
    }
    return measured(top, sums);
}

/* The same of the allowed children of the row's state. */
INLINE Measured measure_children(const Step *step, int64_t row, float shift) {
    const Level *level = &step->level;
    int64_t request = row / step->width, state = step->states[row], start, stop;
    const uint32_t *words = words_of(step, request);
    Dead dead = dead_children(step, request, state);
    Floats top = all(-INFINITY);
    Doubles sums = {0};
    children_of(level, state, &start, &stop);
    Ones ones = codes_from(level, state, start);
    for (int64_t node = start; node < stop;) {
        Floats logits = all(-INFINITY);
        for (int lane = 0; lane < LANES && node < stop; node++) {
            int64_t code = next_code(level, level->code_size, node, &ones);
            if (in_set(step, words, state, node, code) && !is_excluded(dead, level->words ? code : node - start))
                logits[lane++] = logit_at(step, row, code);
        }
        top = larger(logits, top);
        sums += __builtin_convertvector(exp_all(logits - shift), Doubles);
    }
    return measured(top, sums);
}

/* The largest bounded logit of each word of 32 codes: of its allowed codes, or of all if `allowed` is NULL. LANES words
   at a time are halved until each is a lane. */
INLINE void measure_words(const Step *step, int64_t row, const uint32_t *allowed, float *tops, int is_bfloat16) {
    const Ints bits = {BITS};
    for (int64_t first = 0; first < step->num_tops; first += LANES) {
        int64_t count = step->num_tops - first < LANES ? step->num_tops - first : LANES;
        Floats words[LANES];
        for (int64_t word = 0; word < LANES; word++) {
            words[word] = all(-INFINITY);
            for (int part = 0; word < count && part < WORD_BITS; part += LANES) {
                Floats logits = logits_at(step, row, (first + word) * WORD_BITS + part, is_bfloat16);
                if (allowed) {
                    Ints is_allowed = ((int32_t)(allowed[first + word] >> part) & bits) != 0;
                    logits = choose(is_allowed, logits, all(-INFINITY));
                }
                words[word] = larger(logits, words[word]);
            }
        }
        for (int pairs = LANES / 2; pairs > 0; pairs /= 2)
            for (int pair = 0; pair < pairs; pair++) {
                Floats left = words[2 * pair], right = words[2 * pair + 1];
                words[pair] = larger(SHUFFLED(left, right, EVEN), SHUFFLED(left, right, ODD));
            }
        Floats bounded = bounded_all(words[0]);
        memcpy(tops + first, &bounded, (size_t)count * sizeof(float));
    }
}

/* The largest bounded logit of a row, and the sum of exponentials relative to it. */
INLINE Measured measure_logits(const Step *step, int64_t row, int is_bfloat16) {
    if (step->normalize == GIVEN)
        return measure_codes(step, row, 0.0f, is_bfloat16, 1, 0);
    if (step->normalize == ALLOWED)
        return measure_children(step, row, measure_children(step, row, 0.0f).top);
    /* Nearly all rows need one pass: sums of moderate numbers need no shift. */
    Measured of_row = measure_codes(step, row, 0.0f, is_bfloat16, 0, 1);
    if (of_row.top >= -MODERATE && of_row.top <= MODERATE)
        return (Measured){of_row.top, of_row.sum * exp(-of_row.top)};
    return measure_codes(step, row, bounded(of_row.top), is_bfloat16, 1, 1);
}

INLINE void measure_row_of(const Step *step, int64_t row, int is_bfloat16) {
    float *measures = measures_of(step, row);
    measures[0] = measures[1] = 0.0f;
    measures[2] = -INFINITY;
    if (step->states[row] < 0)
        return;
    if (step->level.words)
        measure_words(step, row, allowed_words(step, row), measures + MEASURES, is_bfloat16);
    else if (step->num_tops)
        measure_words(step, row, NULL, measures + MEASURES, is_bfloat16);
    Measured of_row = measure_logits(step, row, is_bfloat16);
    if (of_row.top == -INFINITY)
        return;
    if (step->normalize == GIVEN) {
        measures[2] = step->scores[row] + of_row.top;
        return;
    }
    measures[0] = of_row.top;
    measures[1] = (float)log(of_row.sum);
    measures[2] = step->scores[row] - measures[1];
}

void MEASURE_ROW(const Step *step, int64_t row) {
    if (step->is_bfloat16)
        measure_row_of(step, row, 1);
    else
        measure_row_of(step, row, 0);
}
