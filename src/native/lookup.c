/* Binary searches of item ids in their order: see hedgerow/index/order.py.

A probe reads the order and then an id, and in a large index each of them misses the cache. So a search starts in a
small array of samples of the ids, and a group of searches goes step by step: while one of them waits for memory, the
others go on. */

#include "native.h"

#define GROUP 32

/* A kind of ids: the size of integers, negative if they have no sign; or TEXT and the size of offsets. The functions
   below are compiled for each kind. */
enum { TEXT = 16 };

/* An integer whose order as int64 is that of the ids. */
INLINE int64_t integer_at(const Ids *ids, int kind, int64_t row) {
    switch (kind) {
    case 1:
        return ((const int8_t *)ids->values)[row];
    case -1:
        return ((const uint8_t *)ids->values)[row];
    case 2:
        return ((const int16_t *)ids->values)[row];
    case -2:
        return ((const uint16_t *)ids->values)[row];
    case 4:
        return ((const int32_t *)ids->values)[row];
    case -4:
        return ((const uint32_t *)ids->values)[row];
    case 8:
        return ((const int64_t *)ids->values)[row];
    default:
        return (int64_t)(((const uint64_t *)ids->values)[row] ^ (uint64_t)1 << 63);
    }
}

INLINE int64_t offset_at(const Ids *ids, int kind, int64_t row) {
    return kind == TEXT + 4 ? ((const int32_t *)ids->offsets)[row] : ((const int64_t *)ids->offsets)[row];
}

/* The bytes of a text; none if its offsets, which may come from a damaged file, leave the buffer. */
INLINE const char *text_at(const Ids *ids, int kind, int64_t row, int64_t *length) {
    int64_t begin = offset_at(ids, kind, row), end = offset_at(ids, kind, row + 1);
    int valid = 0 <= begin && begin <= end && end <= ids->num_bytes;
    *length = valid ? end - begin : 0;
    return (const char *)ids->values + (valid ? begin : 0);
}

/* Negative, zero or positive, as an id is before, equal to or after a wanted one. */
INLINE int compare(const Ids *ids, const Ids *wanted, int kind, int64_t row, int64_t place) {
    if (kind < TEXT) {
        int64_t mine = integer_at(ids, kind, row), other = integer_at(wanted, kind, place);
        return (mine > other) - (mine < other);
    }
    int64_t length, other_length;
    const char *mine = text_at(ids, kind, row, &length), *other = text_at(wanted, kind, place, &other_length);
    int order = memcmp(mine, other, (size_t)(length < other_length ? length : other_length));
    return order ? order : (length > other_length) - (length < other_length);
}

INLINE void prefetch_id(const Ids *ids, int kind, int64_t row) {
    if (kind < TEXT)
        __builtin_prefetch((const char *)ids->values + row * abs(kind));
    else
        __builtin_prefetch((const char *)ids->offsets + row * (kind - TEXT));
}

INLINE void prefetch_text(const Ids *ids, int kind, int64_t row) {
    int64_t length;
    __builtin_prefetch(text_at(ids, kind, row, &length));
}

/* The row of a place in the order, or -1 if there is no such row. Without an order, it is the place. */
INLINE int64_t row_at(const Ids *ids, const int32_t *order, int64_t place) {
    int64_t row = order == NULL ? place : order[place];
    return row < ids->length ? row : -1;
}

INLINE int64_t least(int64_t first, int64_t second) { return first < second ? first : second; }

/* Raise the places of some wanted ids to their lower bounds, which are less than `top` later. False: see search_ids. */
INLINE int advance(const Ids *ids, const int32_t *order, const Ids *wanted, int kind, int64_t first, int64_t lanes,
                   int64_t top, int64_t *low) {
    int64_t last = ids->length - 1, row[GROUP];
    for (int64_t step = top >> 1; step; step >>= 1) {
        /* Of the ids before this place, all are smaller than the wanted one, or it is one of them. */
        int64_t tried = step - 1;
        for (int64_t lane = 0; order != NULL && lane < lanes; lane++)
            __builtin_prefetch(order + least(low[lane] + tried, last));
        for (int64_t lane = 0; lane < lanes; lane++) {
            row[lane] = row_at(ids, order, least(low[lane] + tried, last));
            if (row[lane] < 0)
                return 0;
            prefetch_id(ids, kind, row[lane]);
        }
        for (int64_t lane = 0; kind >= TEXT && lane < lanes; lane++)
            prefetch_text(ids, kind, row[lane]);
        for (int64_t lane = 0; lane < lanes; lane++) {
            int is_smaller = compare(ids, wanted, kind, row[lane], first + lane) < 0;
            low[lane] += step * ((low[lane] + tried <= last) & is_smaller);
        }
    }
    return 1;
}

INLINE int64_t above(int64_t length) {
    int64_t top = 1;
    while (top <= length)
        top <<= 1;
    return top;
}

INLINE int search(const Ids *ids, const int32_t *order, const Ids *samples, int64_t sample_step, const Ids *wanted,
                  int kind, int exact, int64_t *out) {
    int64_t last = ids->length - 1, top = above(samples->length ? sample_step : ids->length);
    for (int64_t first = 0; first < wanted->length; first += GROUP) {
        int64_t lanes = least(wanted->length - first, GROUP), *low = out + first;
        memset(low, 0, (size_t)lanes * sizeof *low);
        if (samples->length) {
            advance(samples, NULL, wanted, kind, first, lanes, above(samples->length), low);
            for (int64_t lane = 0; lane < lanes; lane++)
                low[lane] = low[lane] ? (low[lane] - 1) * sample_step : 0;
        }
        if (!advance(ids, order, wanted, kind, first, lanes, top, low))
            return 0;
        for (int64_t lane = 0; exact && lane < lanes; lane++) {
            int64_t found = low[lane] <= last ? row_at(ids, order, low[lane]) : -1;
            low[lane] = found >= 0 && compare(ids, wanted, kind, found, first + lane) == 0 ? found : -1;
        }
    }
    return 1;
}

int search_ids(const Ids *ids, const int32_t *order, const Ids *samples, int64_t sample_step, const Ids *wanted,
               int exact, int64_t *out) {
#define SEARCH(kind)                                                                                                   \
    case kind:                                                                                                         \
        return search(ids, order, samples, sample_step, wanted, kind, exact, out)
    switch (ids->offsets != NULL ? TEXT + ids->offset_size : ids->is_signed ? ids->item_size : -ids->item_size) {
        SEARCH(1);
        SEARCH(-1);
        SEARCH(2);
        SEARCH(-2);
        SEARCH(4);
        SEARCH(-4);
        SEARCH(8);
        SEARCH(TEXT + 4);
        SEARCH(TEXT + 8);
    default:
        return search(ids, order, samples, sample_step, wanted, -8, exact, out);
    }
}
