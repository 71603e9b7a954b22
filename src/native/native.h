/* What the files of this module share. Arrays are buffers of Python; sizes and types are checked in module.c. */

#ifndef HEDGEROW_NATIVE_H
#define HEDGEROW_NATIVE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define WORD_BITS 32

/* The compiler makes a version of a function for each of these processors, and the right one is chosen at load time. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define MANY_CPUS
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

/* Run job(context, 0) to job(context, items - 1), on the calling thread and up to threads - 1 others. */
void parallel_for(void (*job)(void *context, int64_t item), void *context, int64_t items, int threads);

/* Look for the OpenMP runtime of PyTorch, for the next calls of parallel_for. Returns whether there is one. */
int join_openmp(void);

/* Called once: the children of this process do without that runtime. */
void watch_forks(void);

/* Call work(context) on all threads of that runtime. Returns 0 if it cannot, or if threads were late before. */
int run_with_openmp(void (*work)(void *context), void *context, int threads);

#include "compact.h"

/* How the children of a state are found. */
enum { UNARY, SPARSE, FORKED, ELIAS_FANO };

/* A level: see hedgerow.decode.kernels.native.HostLevel. `codes` has code_size bytes per node, or is PACKED. */
typedef struct {
    int kind;
    const int32_t *pointers;
    int64_t num_pointers;
    const void *codes;
    int code_size;
    int64_t num_nodes;
    Compact compact;
    const uint32_t *allowed;
    int64_t words;
} Level;

INLINE int64_t code_at(const void *codes, int size, int64_t node) {
    switch (size) {
    case 1:
        return ((const uint8_t *)codes)[node];
    case 2:
        return ((const uint16_t *)codes)[node];
    default:
        return ((const uint32_t *)codes)[node];
    }
}

/* The code of a node, after that of the node before. `ones` starts from `codes_from`. */
INLINE int64_t next_code(const Level *level, int size, int64_t node, Ones *ones) {
    if (size != PACKED)
        return code_at(level->codes, size, node);
    int64_t low = packed_at(level->codes, level->compact.low_bits, node);
    if (!level->compact.high_bits)
        return low;
    return with_high_bits(&level->compact, low, node, next_one(&level->compact, ones));
}

/* Where `next_code` starts for the first child of a state. */
INLINE Ones codes_from(const Level *level, int64_t state, int64_t start) {
    if (!level->compact.high_bits)
        return (Ones){0, 0};
    return ones_from(&level->compact, start + (state << level->compact.high_bits));
}

/* The code of any node. */
INLINE int64_t code_of(const Level *level, int size, int64_t node) {
    Ones ones = {0, 0};
    if (level->compact.high_bits)
        ones = ones_from(&level->compact, position_of(&level->compact, node, 1));
    return next_code(level, size, node, &ones);
}

/* The first of the nodes from low to high - 1, which ascend by code, whose code is at least `wanted`; high if there is
   none. */
INLINE int64_t first_node_from(const Level *level, int size, int64_t low, int64_t high, int64_t wanted) {
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (code_of(level, size, middle) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The number of entries of an ascending list below a value. */
INLINE int64_t rank_in(const int32_t *ascending, int64_t size, int64_t value) {
    int64_t low = 0, high = size;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (ascending[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first child of a state, and the node after its last child. */
INLINE void children_of(const Level *level, int64_t state, int64_t *start, int64_t *stop) {
    switch (level->kind) {
    case SPARSE:
        *start = level->pointers[state];
        *stop = level->pointers[state + 1];
        return;
    case FORKED:
        *start = state + rank_in(level->pointers, level->num_pointers, state);
        *stop = state + 1 + rank_in(level->pointers, level->num_pointers, state + 1);
        return;
    case ELIAS_FANO:
        compact_children(&level->compact, state, start, stop);
        return;
    default:
        *start = state;
        *stop = state + 1;
    }
}

/* step.c */
enum { CODES, ALLOWED, GIVEN };

typedef struct {
    const void *logits; /* [batch * width, size] float32, or bfloat16 if is_bfloat16 */
    int is_bfloat16;
    const float *scores;    /* [batch, width] */
    const int32_t *states;  /* [batch, width] */
    const int32_t *history; /* [batch, width, depth] */
    int64_t batch, width, size, depth;
    int normalize;
    Level level;
    const int32_t *set_rows, *set_free; /* [batch]; NULL without sets */
    const uint32_t *alive;              /* [sets, alive_words] */
    int64_t alive_words;
    const int32_t *dead_parents, *dead_slots; /* [batch, num_dead] */
    int64_t num_dead;
    int64_t beam_width;
    int32_t *codes; /* [batch, beam_width, depth + 1] */
    float *best;    /* [batch, beam_width] */
    int32_t *nodes, *parents;
    /* Of run_step: what rows measure, for how many words of 32 codes; of each request, how many parts of its rows are
       measured, and its candidates. */
    float *room;
    int64_t num_tops;
    void *measured;
    void *candidates;
    int64_t candidate_room;
} Step;

/* Select the code of rows: of the latest version of x86-64 that this processor has, at most the given one; 0 is that of
   any processor. Returns the version. */
int choose_rows(int at_most);

/* False without memory. */
int run_step(Step *step, int threads);

/* walk.c */
void child_rows(const Level *level, const int32_t *code_of_token, int64_t num_tokens, const int64_t *tokens,
                const int32_t *states, int64_t rows, int32_t *out);
void write_rows(const Level *level, const int64_t *token_of_code, const int32_t *states, int64_t rows, int64_t size,
                int is_double, const void *scores, void *out, void *best);

/* compact.c */
void pack_codes(const void *values, int size, int64_t count, int bits, uint32_t *words);
void unpack_codes(const uint32_t *words, int bits, int64_t count, uint32_t *values);

/* lookup.c */

/* Item ids: integers of item_size bytes, or, if `offsets` is not NULL, texts in num_bytes bytes. */
typedef struct {
    const void *values, *offsets;
    int64_t length, num_bytes;
    int item_size, is_signed, offset_size;
} Ids;

/* For each wanted id the number of smaller ids; if `exact`, its row or -1. The samples are none, or each id in ascending
   order whose place is a multiple of sample_step. False if the order names rows that do not exist. */
int search_ids(const Ids *ids, const int32_t *order, const Ids *samples, int64_t sample_step, const Ids *wanted,
               int exact, int64_t *out);

/* alive.c; `fast` may be 0 in tests, for the code of processors without BMI2 */
void any_of_runs(const uint32_t *words, int64_t num_words, const uint32_t *last, int64_t num_last, uint32_t *out,
                 int64_t out_words, int fast);
int last_of_runs(const int32_t *start, int64_t num_parents, uint32_t *out, int64_t num_words);
void any_with_forks(const uint32_t *words, int64_t num_words, const int32_t *forks, int64_t num_forks,
                    int64_t num_parents, uint32_t *out);
void any_with_vector(const uint32_t *words, const uint32_t *high, int64_t num_words, int high_bits, uint32_t *out);
void over_codes(const uint32_t *words, int64_t num_words, const uint32_t *allowed, int64_t length, uint32_t *out,
                int fast);

/* sort.c */
int sort_keys(uint64_t *keys, uint64_t *scratch, int64_t length, int low_bit, int stop_bit, int threads);

/* splice.c */
void splice_array(const char *old, int64_t length, int item_size, const int64_t *inserted, int64_t num_inserted,
            const char *added, const int64_t *removed, int64_t num_removed, char *out);
int64_t splice_start(const int32_t *start, int64_t num_parents, const int64_t *inserted, const int64_t *counts,
                     int64_t num_inserted, const int64_t *removed, int64_t num_removed, const int64_t *changed,
                     const int64_t *deltas, int64_t num_changed, int32_t *out);
void lower_bounds(const void *codes, int code_size, const int64_t *start, const int64_t *stop, const int64_t *wanted,
                  int64_t rows, int64_t *out);
int64_t passing_rows(const uint64_t *values, int64_t rows, const uint32_t *bits, int shift, int64_t *out);

#endif
