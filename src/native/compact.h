/* Levels in the compact layout: see hedgerow/index/compact.py. Included by native.h. */

#ifndef HEDGEROW_COMPACT_H
#define HEDGEROW_COMPACT_H

/* As in hedgerow/index/select.py. */
#define BLOCK_WORDS 8
#define BLOCK_BITS (BLOCK_WORDS * WORD_BITS)

/* In place of the bytes of a code: codes are packed. */
#define PACKED 0

/* low_bits of high_bits + low_bits bits of each code are in `codes`, the others in the bit vector `high`. */
typedef struct {
    int low_bits, high_bits;
    const uint32_t *high;        /* [blocks, BLOCK_WORDS] */
    const int32_t *zeros_before; /* [blocks] */
    int64_t blocks;
} Compact;

INLINE int64_t packed_at(const uint32_t *words, int bits, int64_t place) {
    int64_t offset = place * bits, word = offset >> 5;
    uint64_t pair = words[word] | (uint64_t)words[word + 1] << 32;
    return (int64_t)(pair >> (offset & 31) & (((uint64_t)1 << bits) - 1));
}

/* The position of the one with a number in a word, which has more ones than that. */
INLINE int one_in_word(uint32_t word, int64_t number) {
    for (; number > 0; number--)
        word &= word - 1;
    return __builtin_ctz(word);
}

/* The zeros, or ones, before a block. */
INLINE int64_t before_block(const Compact *bits, int64_t block, int is_one) {
    int64_t zeros = bits->zeros_before[block];
    return is_one ? block * BLOCK_BITS - zeros : zeros;
}

/* The block of the zero, or one, with a number. The search starts where it is if they are spread evenly. */
INLINE int64_t block_with(const Compact *bits, int64_t number, int is_one) {
    int64_t last = bits->blocks - 1, total = before_block(bits, last, is_one), step = 8;
    int64_t low = number < total ? number * last / total : last, high = low;
    if (before_block(bits, low, is_one) <= number) {
        for (high += step; high <= last && before_block(bits, high, is_one) <= number; high += step *= 2)
            low = high;
        high = high <= last ? high : last + 1;
    } else {
        for (low -= step; low > 0 && before_block(bits, low, is_one) > number; low -= step *= 2)
            high = low;
        low = low > 0 ? low : 0;
    }
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (before_block(bits, middle, is_one) <= number)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The position of a zero or a one: `number` more of them are before it from word `word` on. */
INLINE int64_t select_from(const Compact *bits, int64_t word, int64_t number, int is_one) {
    for (;; word++) {
        uint32_t those = is_one ? bits->high[word] : ~bits->high[word];
        int count = __builtin_popcount(those);
        if (number < count)
            return word * WORD_BITS + one_in_word(those, number);
        number -= count;
    }
}

INLINE int64_t position_of(const Compact *bits, int64_t number, int is_one) {
    int64_t block = block_with(bits, number, is_one);
    return select_from(bits, block * BLOCK_WORDS, number - before_block(bits, block, is_one), is_one);
}

/* The first child of a state, and the node after its last child. */
INLINE void compact_children(const Compact *bits, int64_t state, int64_t *start, int64_t *stop) {
    int64_t bucket = state << bits->high_bits, position = position_of(bits, bucket, 0);
    *start = position - bucket;
    /* The zeros before the one of this bucket, in its word. */
    int64_t skipped = __builtin_popcount(~bits->high[position >> 5] & (((uint32_t)1 << (position & 31)) - 1));
    int64_t next = (int64_t)1 << bits->high_bits;
    *stop = select_from(bits, position >> 5, skipped + next, 0) - (bucket + next);
}

INLINE int64_t with_high_bits(const Compact *bits, int64_t low, int64_t node, int64_t position) {
    int64_t bucket = position - node - 1;
    return (bucket & (((int64_t)1 << bits->high_bits) - 1)) << bits->low_bits | low;
}

/* The ones from a position on, which are taken one after the other. */
typedef struct {
    int64_t word;
    uint32_t bits; /* those of the word that are left */
} Ones;

INLINE Ones ones_from(const Compact *bits, int64_t position) {
    int64_t word = position >> 5;
    return (Ones){word, bits->high[word] & -((uint32_t)1 << (position & 31))};
}

INLINE int64_t next_one(const Compact *bits, Ones *ones) {
    while (!ones->bits)
        ones->bits = bits->high[++ones->word];
    int64_t position = ones->word * WORD_BITS + __builtin_ctz(ones->bits);
    ones->bits &= ones->bits - 1;
    return position;
}

#endif
