/* Changes of sorted arrays in one pass: see hedgerow/index/splice.py. */

#include "native.h"

#define MULTIPLIER 0x9E3779B97F4A7C15u

void splice_array(const char *old, int64_t length, int item_size, const int64_t *inserted, int64_t num_inserted,
            const char *added, const int64_t *removed, int64_t num_removed, char *out) {
    int64_t read = 0, r = 0;
    for (int64_t i = 0; i <= num_inserted; i++) {
        int64_t stop = i < num_inserted ? inserted[i] : length;
        for (;;) {
            int skips = r < num_removed && removed[r] < stop;
            int64_t end = skips ? removed[r] : stop;
            size_t bytes = (size_t)((end - read) * item_size);
            memcpy(out, old + read * item_size, bytes);
            out += bytes;
            read = end;
            if (!skips)
                break;
            read++;
            r++;
        }
        if (i < num_inserted) {
            memcpy(out, added + i * item_size, (size_t)item_size);
            out += item_size;
        }
    }
}

int64_t splice_start(const int32_t *start, int64_t num_parents, const int64_t *inserted, const int64_t *counts,
                     int64_t num_inserted, const int64_t *removed, int64_t num_removed, const int64_t *changed,
                     const int64_t *deltas, int64_t num_changed, int32_t *out) {
    int64_t total = 0, largest = 0, i = 0, r = 0, c = 0;
    for (int64_t parent = 0; parent <= num_parents; parent++) {
        for (; i < num_inserted && inserted[i] == parent; i++) {
            *out++ = (int32_t)total;
            total += counts[i];
            largest = counts[i] > largest ? counts[i] : largest;
        }
        if (parent == num_parents)
            break;
        if (r < num_removed && removed[r] == parent) {
            r++;
            continue;
        }
        *out++ = (int32_t)total;
        int64_t count = (int64_t)start[parent + 1] - start[parent];
        if (c < num_changed && changed[c] == parent)
            count += deltas[c++];
        total += count;
        largest = count > largest ? count : largest;
    }
    *out = (int32_t)total;
    return largest;
}

void lower_bounds(const void *codes, int code_size, const int64_t *start, const int64_t *stop, const int64_t *wanted,
                  int64_t rows, int64_t *out) {
    const Level level = {.codes = codes};
    for (int64_t row = 0; row < rows; row++)
        out[row] = first_node_from(&level, code_size, start[row], stop[row], wanted[row]);
}

int64_t passing_rows(const uint64_t *values, int64_t rows, const uint32_t *bits, int shift, int64_t *out) {
    int64_t passed = 0;
    for (int64_t row = 0; row < rows; row++) {
        uint64_t place = values[row] * MULTIPLIER >> shift;
        out[passed] = row;
        passed += bits[place >> 5] >> (place & 31) & 1;
    }
    return passed;
}
