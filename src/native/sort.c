/* Radix sort of 64-bit keys by some of their bits: see hedgerow/index/radix.py. */

#include "native.h"

#define MAX_DIGIT_BITS 11
#define DIGITS ((int64_t)1 << MAX_DIGIT_BITS)

typedef struct {
    const uint64_t *from;
    uint64_t *to;
    int64_t length, block;
    int shift;
    uint64_t mask;
    int64_t *counts; /* [blocks, DIGITS]: of each digit in a block; then where its next key of the digit goes */
} Pass;

static int64_t end_of(const Pass *pass, int64_t item) {
    int64_t end = (item + 1) * pass->block;
    return end < pass->length ? end : pass->length;
}

static void count_digits(void *context, int64_t item) {
    const Pass *pass = context;
    int64_t *counts = pass->counts + item * DIGITS;
    memset(counts, 0, DIGITS * sizeof *counts);
    for (int64_t i = item * pass->block, end = end_of(pass, item); i < end; i++)
        counts[pass->from[i] >> pass->shift & pass->mask]++;
}

static void move_keys(void *context, int64_t item) {
    const Pass *pass = context;
    int64_t *places = pass->counts + item * DIGITS;
    for (int64_t i = item * pass->block, end = end_of(pass, item); i < end; i++)
        pass->to[places[pass->from[i] >> pass->shift & pass->mask]++] = pass->from[i];
}

/* Counts become places. False if all keys have one digit, so that nothing has to move. */
static int place_digits(const Pass *pass, int64_t blocks) {
    int64_t place = 0;
    for (int64_t digit = 0; digit <= (int64_t)pass->mask; digit++) {
        int64_t before = place;
        for (int64_t block = 0; block < blocks; block++) {
            int64_t *count = pass->counts + block * DIGITS + digit, next = place + *count;
            *count = place;
            place = next;
        }
        if (place - before == pass->length)
            return 0;
    }
    return 1;
}

/* Stable, by the bits low_bit to stop_bit - 1. Returns whether the result is in `scratch`; -1 without memory. */
int sort_keys(uint64_t *keys, uint64_t *scratch, int64_t length, int low_bit, int stop_bit, int threads) {
    if (threads < 1)
        threads = 1;
    int64_t block = (length + threads - 1) / threads;
    int64_t blocks = block ? (length + block - 1) / block : 0;
    if (!blocks || low_bit >= stop_bit)
        return 0;
    Pass pass = {keys, scratch, length, block, 0, 0, malloc((size_t)(blocks * DIGITS) * sizeof(int64_t))};
    if (!pass.counts)
        return -1;
    int passes = (stop_bit - low_bit + MAX_DIGIT_BITS - 1) / MAX_DIGIT_BITS, in_scratch = 0;
    for (int number = 0, low = low_bit; number < passes; number++) {
        int width = (stop_bit - low + passes - number - 1) / (passes - number);
        pass.shift = low;
        pass.mask = ((uint64_t)1 << width) - 1;
        low += width;
        parallel_for(count_digits, &pass, blocks, threads);
        if (!place_digits(&pass, blocks))
            continue;
        parallel_for(move_keys, &pass, blocks, threads);
        uint64_t *moved = pass.to;
        pass.to = in_scratch ? scratch : keys;
        pass.from = moved;
        in_scratch = !in_scratch;
    }
    free(pass.counts);
    return in_scratch;
}
