/* The upward pass of a constraint set over the nodes: see hedgerow/constraints/alive.py. */

#include "native.h"

INLINE uint32_t low_bits(int64_t count) { return ((uint32_t)1 << count) - 1; }

INLINE int64_t bits_of(uint64_t word) { return __builtin_popcountll(word); }

/* Words 2i and 2i + 1 as one; words past the end are zero. */
INLINE uint64_t pair_at(const uint32_t *words, int64_t num_words, int64_t i) {
    uint64_t low = 2 * i < num_words ? words[2 * i] : 0, high = 2 * i + 1 < num_words ? words[2 * i + 1] : 0;
    return low | high << 32;
}

/* 64 bits from bit `place` on. */
INLINE uint64_t pair_from(const uint32_t *words, int64_t num_words, int64_t place) {
    uint64_t low = pair_at(words, num_words, place >> 6) >> (place & 63);
    return place & 63 ? low | pair_at(words, num_words, (place >> 6) + 1) << (64 - (place & 63)) : low;
}

INLINE void put_pair(uint32_t *words, int64_t num_words, int64_t i, uint64_t pair) {
    if (2 * i < num_words)
        words[2 * i] = (uint32_t)pair;
    if (2 * i + 1 < num_words)
        words[2 * i + 1] = (uint32_t)(pair >> 32);
}

/* The bits of `word` at the positions set in `mask`, side by side; and the inverse. */
INLINE uint64_t gathered(uint64_t word, uint64_t mask) {
    uint64_t out = 0;
    for (int place = 0; mask; mask &= mask - 1, place++)
        out |= (uint64_t)((word & mask & -mask) != 0) << place;
    return out;
}

INLINE uint64_t scattered(uint64_t word, uint64_t mask) {
    uint64_t out = 0;
    for (; mask; mask &= mask - 1, word >>= 1)
        out |= mask & -mask & -(word & 1);
    return out;
}

/* Zen 1 and 2 have pext and pdep, which are slower than the loops there. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAS_BMI2 (__builtin_cpu_supports("bmi2") && !__builtin_cpu_is("znver1") && !__builtin_cpu_is("znver2"))
#define BMI2 __attribute__((target("bmi2,popcnt")))
#else
#define HAS_BMI2 0
#define BMI2
#define _pext_u64 gathered
#define _pdep_u64 scattered
#endif

/* The children of a parent are a run of bits, whose last one is set in `last`. A run of k bits has the number
   2^(k-1) - 1 in `lower`, and carries into its last bit if a lower bit of `words` is set, wherever words of 64 bits
   divide it. */
#define ANY_OF_RUNS(name, attributes, gather)                                                                         \
    attributes static void name(const uint32_t *words, int64_t num_words, const uint32_t *last, int64_t num_last,      \
                                uint32_t *out, int64_t out_words) {                                                    \
        uint64_t carry = 0, waiting = 0;                                                                               \
        int64_t filled = 0, written = 0;                                                                               \
        for (int64_t i = 0; i < (num_last + 1) / 2; i++) {                                                             \
            uint64_t word = pair_at(words, num_words, i), ends = pair_at(last, num_last, i), lower = ~ends;            \
            uint64_t sum = (word & lower) + lower, any = sum + carry;                                                  \
            carry = (sum < lower) | (any < sum);                                                                       \
            uint64_t parents = gather(any | word, ends);                                                               \
            int64_t count = bits_of(ends), room = 64 - filled;                                                         \
            waiting |= parents << filled;                                                                              \
            filled += count;                                                                                           \
            if (filled >= 64) {                                                                                        \
                put_pair(out, out_words, written++, waiting);                                                          \
                filled -= 64;                                                                                          \
                waiting = filled ? parents >> room : 0;                                                                \
            }                                                                                                          \
        }                                                                                                              \
        if (filled)                                                                                                    \
            put_pair(out, out_words, written, waiting);                                                                \
    }

ANY_OF_RUNS(any_of_runs_fast, BMI2, _pext_u64)
ANY_OF_RUNS(any_of_runs_plain, , gathered)

void any_of_runs(const uint32_t *words, int64_t num_words, const uint32_t *last, int64_t num_last, uint32_t *out,
                 int64_t out_words, int fast) {
    if (fast && HAS_BMI2)
        any_of_runs_fast(words, num_words, last, num_last, out, out_words);
    else
        any_of_runs_plain(words, num_words, last, num_last, out, out_words);
}

/* Set the bit of the last child of each parent. False if the row pointers are not those of so many children. */
int last_of_runs(const int32_t *start, int64_t num_parents, uint32_t *out, int64_t num_words) {
    for (int64_t parent = 1; parent <= num_parents; parent++) {
        int64_t child = (int64_t)start[parent] - 1;
        if (child < 0 || child >> 5 >= num_words)
            return 0;
        out[child >> 5] |= (uint32_t)1 << (child & 31);
    }
    return 1;
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
#define OVER_CODES(name, attributes, scatter)                                                                         \
    attributes static void name(const uint32_t *words, int64_t num_words, const uint32_t *allowed, int64_t length,     \
                                uint32_t *out) {                                                                       \
        int64_t node = 0;                                                                                              \
        for (int64_t i = 0; i < (length + 1) / 2; i++) {                                                               \
            uint64_t mask = pair_at(allowed, length, i);                                                               \
            put_pair(out, length, i, scatter(pair_from(words, num_words, node), mask));                                \
            node += bits_of(mask);                                                                                     \
        }                                                                                                              \
    }

OVER_CODES(over_codes_fast, BMI2, _pdep_u64)
OVER_CODES(over_codes_plain, , scattered)

void over_codes(const uint32_t *words, int64_t num_words, const uint32_t *allowed, int64_t length, uint32_t *out,
                int fast) {
    if (fast && HAS_BMI2)
        over_codes_fast(words, num_words, allowed, length, out);
    else
        over_codes_plain(words, num_words, allowed, length, out);
}
