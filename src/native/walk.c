/* Walks of the trie by tokens: see hedgerow/decode/kernels/walk_native.py. Each row costs only its own children. */

#include "native.h"

void child_rows(const Level *level, const int32_t *code_of_token, int64_t num_tokens, const int64_t *tokens,
                const int32_t *states, int64_t rows, int32_t *out) {
    for (int64_t row = 0; row < rows; row++) {
        /* The last entry is for all other tokens. */
        int64_t token = tokens[row] >= 0 && tokens[row] < num_tokens ? tokens[row] : num_tokens - 1;
        int64_t code = code_of_token[token], low, stop;
        out[row] = -1;
        if (states[row] < 0 || code < 0)
            continue;
        children_of(level, states[row], &low, &stop);
        low = first_node_from(level, level->code_size, low, stop, code);
        if (low < stop && code_of(level, level->code_size, low) == code)
            out[row] = (int32_t)low;
    }
}

/* True of NaN, which then stays the best. */
#define WRITE_ROWS(type)                                                                                               \
    for (int64_t row = 0; row < rows; row++) {                                                                         \
        type highest = -INFINITY;                                                                                      \
        const type *read = (const type *)scores + row * size;                                                          \
        type *write = (type *)out + row * size;                                                                        \
        if (states[row] >= 0) {                                                                                        \
            int64_t start, stop;                                                                                       \
            children_of(level, states[row], &start, &stop);                                                            \
            Ones ones = codes_from(level, states[row], start);                                                         \
            for (int64_t node = start; node < stop; node++) {                                                          \
                int64_t token = token_of_code[next_code(level, level->code_size, node, &ones)];                        \
                write[token] = read[token];                                                                            \
                if (highest == highest && !(highest >= read[token]))                                                   \
                    highest = read[token];                                                                             \
            }                                                                                                          \
        }                                                                                                              \
        ((type *)best)[row] = highest;                                                                                 \
    }

void write_rows(const Level *level, const int64_t *token_of_code, const int32_t *states, int64_t rows, int64_t size,
                int is_double, const void *scores, void *out, void *best) {
    if (is_double) {
        WRITE_ROWS(double)
    } else {
        WRITE_ROWS(float)
    }
}
