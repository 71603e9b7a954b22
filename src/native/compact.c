/* Codes packed into words: see hedgerow/index/packed.py. */

#include "native.h"

/* The words are written in order: each code adds its bits to the ones that wait for a whole word. */
INLINE void pack_all(const void *values, int size, int64_t count, int bits, uint32_t *words) {
    uint64_t waiting = 0, mask = ((uint64_t)1 << bits) - 1;
    int held = 0;
    for (int64_t place = 0; place < count; place++) {
        waiting |= ((uint64_t)code_at(values, size, place) & mask) << held;
        held += bits;
        if (held >= WORD_BITS) {
            *words++ = (uint32_t)waiting;
            waiting >>= WORD_BITS;
            held -= WORD_BITS;
        }
    }
    /* The rest of 32 codes. */
    for (held += (int)(-count & 31) * bits; held > 0; held -= WORD_BITS) {
        *words++ = (uint32_t)waiting;
        waiting >>= WORD_BITS;
    }
}

void pack_codes(const void *values, int size, int64_t count, int bits, uint32_t *words) {
    if (size == 1)
        pack_all(values, 1, count, bits, words);
    else if (size == 2)
        pack_all(values, 2, count, bits, words);
    else
        pack_all(values, 4, count, bits, words);
}

void unpack_codes(const uint32_t *words, int bits, int64_t count, uint32_t *values) {
    for (int64_t place = 0; place < count; place++)
        values[place] = (uint32_t)packed_at(words, bits, place);
}
