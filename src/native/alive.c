/* The upward pass of a constraint set over the nodes: see hedgerow/constraints/alive.py. */

#include "native.h"

INLINE uint32_t low_bits(int64_t count) { return ((uint32_t)1 << count) - 1; }

INLINE int any_bit(const uint32_t *words, int64_t start, int64_t stop) {
    int64_t word = start >> 5, last = stop >> 5;
    uint32_t head = words[word] & ~low_bits(start & 31);
    if (word == last)
        return (head & low_bits(stop & 31)) != 0;
    if (head)
        return 1;
    for (word++; word < last; word++)
        if (words[word])
            return 1;
    return (stop & 31) && (words[last] & low_bits(stop & 31));
}

typedef struct {
    const uint32_t *words;
    const int32_t *start;
    int64_t num_parents;
    uint32_t *out;
} Spans;

#define WORDS_AT_A_TIME 4096

static void spans_job(void *context, int64_t item) {
    const Spans *spans = context;
    int64_t num_words = (spans->num_parents + 31) >> 5, last = (item + 1) * WORDS_AT_A_TIME;
    for (int64_t word = item * WORDS_AT_A_TIME; word < (last < num_words ? last : num_words); word++) {
        int64_t parent = word << 5, stop_parent = parent + 32 < spans->num_parents ? parent + 32 : spans->num_parents;
        uint32_t alive = 0;
        for (int64_t start = spans->start[parent], stop, bit = 0; parent < stop_parent; parent++, bit++, start = stop) {
            stop = spans->start[parent + 1];
            alive |= (uint32_t)any_bit(spans->words, start, stop) << bit;
        }
        spans->out[word] = alive;
    }
}

void any_of_spans(const uint32_t *words, const int32_t *start, int64_t num_parents, uint32_t *out, int threads) {
    Spans spans = {words, start, num_parents, out};
    int64_t num_words = (num_parents + 31) >> 5;
    parallel_for(spans_job, &spans, (num_words + WORDS_AT_A_TIME - 1) / WORDS_AT_A_TIME, threads);
}

/* Few parents have more than one child: between two forks, 32 parents are copied at a time. */
void any_with_forks(const uint32_t *words, int64_t num_words, const int32_t *forks, int64_t num_forks,
                    int64_t num_parents, uint32_t *out) {
    int64_t passed = 0, out_words = (num_parents + 31) >> 5;
    for (int64_t word = 0; word < out_words; word++) {
        int64_t first_parent = word << 5;
        uint32_t alive_parents = 0;
        if (passed == num_forks || forks[passed] >= first_parent + 32) {
            int64_t first_child = first_parent + passed, child_word = first_child >> 5, shift = first_child & 31;
            alive_parents = words[child_word] >> shift;
            if (shift && child_word < num_words - 1)
                alive_parents |= words[child_word + 1] << (32 - shift);
            out[word] = alive_parents;
            continue;
        }
        int64_t count = num_parents - first_parent < 32 ? num_parents - first_parent : 32;
        for (int64_t bit = 0; bit < count; bit++) {
            int64_t child = first_parent + bit + passed;
            uint32_t alive = words[child >> 5] >> (child & 31) & 1;
            for (; passed < num_forks && forks[passed] == first_parent + bit; passed++) {
                child++;
                alive |= words[child >> 5] >> (child & 31) & 1;
            }
            alive_parents |= alive << bit;
        }
        out[word] = alive_parents;
    }
    if (num_parents & 31)
        out[num_parents >> 5] &= low_bits(num_parents & 31);
}

/* Parents whose children a bit vector gives: see hedgerow/index/compact.py. `out` is zero. */
void any_with_vector(const uint32_t *words, const uint32_t *high, int64_t num_words, int high_bits, uint32_t *out) {
    int64_t node = 0;
    for (int64_t word = 0; word < num_words; word++)
        for (uint32_t bits = high[word]; bits; bits &= bits - 1, node++) {
            int64_t bucket = word * WORD_BITS + __builtin_ctz(bits) - node - 1, parent = bucket >> high_bits;
            out[parent >> 5] |= (words[node >> 5] >> (node & 31) & 1) << (parent & 31);
        }
}

/* The bits of the nodes, in their order, at the positions of the bits that are set in `allowed`. */
void over_codes(const uint32_t *words, const uint32_t *allowed, int64_t num_words, uint32_t *out) {
    int64_t node = 0;
    for (int64_t word = 0; word < num_words; word++) {
        uint32_t alive_codes = 0;
        for (uint32_t bits = allowed[word]; bits; bits &= bits - 1, node++)
            alive_codes |= (bits & -bits) & -(words[node >> 5] >> (node & 31) & 1);
        out[word] = alive_codes;
    }
}
