/* What step.c and rows.h share. */

#ifndef HEDGEROW_STEP_H
#define HEDGEROW_STEP_H

#include "native.h"

#define LARGEST 1e30f
/* What a row measures: the logit and the log of the sum to subtract, the bound of its scores, the tops of its words. */
#define MEASURES 3

/* A logit as the array kernel bounds it: NaN as -inf, finite values and +inf clipped to +-LARGEST. */
INLINE float bounded(float x) {
    if (!(x > -INFINITY))
        return -INFINITY;
    return x > LARGEST ? LARGEST : x < -LARGEST ? -LARGEST : x;
}

INLINE float logit_at(const Step *step, int64_t row, int64_t code) {
    if (!step->is_bfloat16)
        return bounded(((const float *)step->logits)[row * step->size + code]);
    union {
        uint32_t bits;
        float value;
    } wide = {(uint32_t)((const uint16_t *)step->logits)[row * step->size + code] << 16};
    return bounded(wide.value);
}

/* The words of the set of a request; NULL if it has none. */
INLINE const uint32_t *words_of(const Step *step, int64_t request) {
    if (step->set_rows == NULL || step->set_free[request])
        return NULL;
    return step->alive + step->set_rows[request] * step->alive_words;
}

/* Whether a child is in the set of these words, over the codes of a dense level or the nodes of another. */
INLINE int in_set(const Step *step, const uint32_t *words, int64_t state, int64_t node, int64_t code) {
    if (words == NULL)
        return 1;
    int64_t position = step->level.words ? state * step->level.words * WORD_BITS + code : node;
    return words[position >> 5] >> (position & 31) & 1;
}

/* The words of a dense level for a row: the codes of its state that are allowed, or in its set. */
INLINE const uint32_t *allowed_words(const Step *step, int64_t row) {
    const uint32_t *words = words_of(step, row / step->width);
    return (words ? words : step->level.allowed) + step->states[row] * step->level.words;
}

/* The dead children of a state: a part of the list of its request. */
typedef struct {
    const int32_t *slots;
    int64_t count;
} Dead;

INLINE Dead dead_children(const Step *step, int64_t request, int64_t state) {
    if (step->num_dead == 0)
        return (Dead){NULL, 0};
    const int32_t *parents = step->dead_parents + request * step->num_dead;
    int64_t start = rank_in(parents, step->num_dead, state), stop = rank_in(parents, step->num_dead, state + 1);
    return (Dead){step->dead_slots + request * step->num_dead + start, stop - start};
}

INLINE int is_excluded(Dead dead, int64_t slot) {
    if (dead.count == 0)
        return 0;
    int64_t position = rank_in(dead.slots, dead.count, slot);
    return position < dead.count && dead.slots[position] == slot;
}

INLINE float *measures_of(const Step *step, int64_t row) { return step->room + row * (MEASURES + step->num_tops); }

/* Measure a row: rows.h, compiled for these processors. */
void measure_row_default(const Step *step, int64_t row);
#ifdef MANY_CPUS
void measure_row_v3(const Step *step, int64_t row);
void measure_row_v4(const Step *step, int64_t row);
#endif

#endif
