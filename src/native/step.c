/* The step: see hedgerow/decode/kernels/native.py. */

#include "step.h"

#include <stdatomic.h>

#define DEAD -1
/* The room for candidates of a request beside its beams: one for so many beams, and more. When it is full, the best are
   selected. With less room the threshold follows the best more closely, with more it is selected less often. */
#define BEAMS_OF_ONE 4
#define MORE_CANDIDATES 32
/* Above this mean number of children, and this part of the codebook, a level finds candidates by words of codes. */
#define MANY_CHILDREN 64
#define MANY_OF_CODES 16
/* Words whose tops count as one when the threshold is started: 512 codes. */
#define GROUP 16

/* A candidate. The better of two has the larger rank: the score in its upper half, in the order of floats, and below it
   the node, so that equal scores come in the order of SIDs, which is that of nodes. */
typedef struct {
    uint64_t rank;
    int64_t beam;
} Candidate;

/* The best candidates so far, and others. When there is no room, the others are removed, and `lowest` rises to the rank
   of the worst of the best: no worse candidate needs to be kept. */
typedef struct {
    Candidate *entries;
    int64_t count, room, wanted;
    uint64_t lowest;
    float threshold; /* the score of `lowest` */
} Pool;

INLINE uint64_t rank_of(float score, int64_t node) {
    union {
        float value;
        uint32_t bits;
    } key = {score + 0.0f}; /* -0 becomes 0 */
    uint32_t ordered = key.bits >> 31 ? ~key.bits : key.bits | 0x80000000u;
    return (uint64_t)ordered << 32 | (uint32_t)~(uint32_t)node;
}

INLINE float score_of(uint64_t rank) {
    uint32_t ordered = (uint32_t)(rank >> 32);
    union {
        uint32_t bits;
        float value;
    } key = {ordered >> 31 ? ordered & 0x7fffffffu : ~ordered};
    return key.value;
}

INLINE int64_t node_of(uint64_t rank) { return (int64_t)(uint32_t)~(uint32_t)rank; }

static int better_first(const void *left, const void *right) {
    uint64_t x = ((const Candidate *)left)->rank, y = ((const Candidate *)right)->rank;
    return (x < y) - (x > y);
}

/* Move the `wanted` best of `count` entries to the front: quickselect. */
static void move_best(Candidate *entries, int64_t count, int64_t wanted) {
    int64_t low = 0, high = count - 1;
    while (low < high) {
        uint64_t first = entries[low].rank, middle = entries[low + (high - low) / 2].rank, last = entries[high].rank;
        uint64_t pivot = first < middle ? (middle < last ? middle : first < last ? last : first)
                                        : (first < last ? first : middle < last ? last : middle);
        int64_t i = low, j = high;
        while (i <= j) {
            while (entries[i].rank > pivot)
                i++;
            while (entries[j].rank < pivot)
                j--;
            if (i <= j) {
                Candidate entry = entries[i];
                entries[i++] = entries[j];
                entries[j--] = entry;
            }
        }
        if (wanted - 1 <= j)
            high = j;
        else if (wanted - 1 >= i)
            low = i;
        else
            return;
    }
}

static void make_room(Pool *pool) {
    move_best(pool->entries, pool->count, pool->wanted);
    pool->count = pool->wanted;
    pool->lowest = UINT64_MAX;
    for (int64_t place = 0; place < pool->wanted; place++)
        if (pool->entries[place].rank < pool->lowest)
            pool->lowest = pool->entries[place].rank;
    pool->threshold = score_of(pool->lowest);
}

INLINE void offer(Pool *pool, uint64_t rank, int64_t beam) {
    if (pool->count == pool->room) {
        make_room(pool);
        if (rank <= pool->lowest)
            return;
    }
    pool->entries[pool->count++] = (Candidate){rank, beam};
}

/* What the candidates of one row have in common. */
typedef struct {
    int64_t beam, state;
    float score;
    const float *measures;
    const uint32_t *words;
    Dead dead;
} Row;

INLINE Row row_of(const Step *step, int64_t request, int64_t beam) {
    int64_t row = request * step->width + beam, state = step->states[row];
    return (Row){beam, state, step->scores[row], measures_of(step, row), words_of(step, request),
                 dead_children(step, request, state)};
}

INLINE float key_of(const Row *row, float logit) { return row->score + (logit - row->measures[0] - row->measures[1]); }

INLINE float logit_of(const Step *step, int64_t request, const Row *row, int64_t code) {
    return logit_at(step, request * step->width + row->beam, code);
}

/* Raise the threshold of an empty pool to the worst of the `wanted` best tops of groups of words, if there are as many.
   Each top is the score of another candidate, if no child of the row is excluded. */
INLINE void start_threshold(const Step *step, int64_t request, Pool *pool) {
    for (int64_t beam = 0; beam < step->width && pool->count < pool->room; beam++) {
        Row row = row_of(step, request, beam);
        if (row.state == DEAD || row.dead.count)
            continue;
        const float *tops = row.measures + MEASURES;
        for (int64_t word = 0; word < step->level.words && pool->count < pool->room; word += GROUP) {
            float top = -INFINITY;
            for (int64_t of_group = word; of_group < word + GROUP && of_group < step->level.words; of_group++)
                top = tops[of_group] > top ? tops[of_group] : top;
            if (top > -INFINITY)
                pool->entries[pool->count++].rank = rank_of(key_of(&row, top), UINT32_MAX);
        }
    }
    if (pool->count >= pool->wanted)
        make_room(pool);
    /* A candidate that equals it may be that of the group. */
    pool->lowest -= pool->lowest > 0;
    pool->count = 0;
}

/* Candidates of a dense level, a word of 32 codes at a time. A word whose best score cannot win is skipped. */
INLINE void offer_dense(const Step *step, int64_t request, const Row *row, Pool *pool) {
    const uint32_t *all_words = step->level.allowed + row->state * step->level.words;
    const uint32_t *allowed = allowed_words(step, request * step->width + row->beam);
    const float *tops = row->measures + MEASURES;
    int64_t node, stop;
    children_of(&step->level, row->state, &node, &stop);
    for (int64_t word = 0; word < step->level.words; word++) {
        float best_of_word = key_of(row, tops[word]);
        if (best_of_word >= pool->threshold && best_of_word > -INFINITY)
            for (uint32_t bits = allowed[word]; bits; bits &= bits - 1) {
                int64_t code = word * WORD_BITS + __builtin_ctz(bits);
                float key = key_of(row, logit_of(step, request, row, code));
                if (!(key >= pool->threshold) || key == -INFINITY)
                    continue;
                uint64_t rank = rank_of(key, node + __builtin_popcount(all_words[word] & ((bits & -bits) - 1)));
                if (rank > pool->lowest && !is_excluded(row->dead, code))
                    offer(pool, rank, row->beam);
            }
        node += __builtin_popcount(all_words[word]);
    }
}

/* What a child adds to the pool. */
INLINE void offer_child(const Step *step, int64_t request, const Row *row, Pool *pool, int64_t start, int64_t node,
                        int64_t code) {
    float key = key_of(row, logit_of(step, request, row, code));
    if (!(key >= pool->threshold) || key == -INFINITY)
        return;
    uint64_t rank = rank_of(key, node);
    if (rank > pool->lowest && in_set(step, row->words, row->state, node, 0) && !is_excluded(row->dead, node - start))
        offer(pool, rank, row->beam);
}

INLINE void offer_children(const Step *step, int64_t request, const Row *row, Pool *pool, int code_size) {
    int64_t start, stop;
    children_of(&step->level, row->state, &start, &stop);
    Ones ones = codes_from(&step->level, row->state, start);
    for (int64_t node = start; node < stop; node++)
        offer_child(step, request, row, pool, start, node, next_code(&step->level, code_size, node, &ones));
}

/* Candidates of a level with many children that is not dense. Those in words that cannot win are skipped. */
INLINE void offer_words(const Step *step, int64_t request, const Row *row, Pool *pool, int code_size) {
    const float *tops = row->measures + MEASURES;
    int64_t start, stop;
    children_of(&step->level, row->state, &start, &stop);
    for (int64_t word = 0, node = start; word < step->num_tops; word++) {
        if (key_of(row, tops[word]) < pool->threshold)
            continue;
        node = first_node_from(&step->level, code_size, node, stop, word * WORD_BITS);
        for (; node < stop; node++) {
            int64_t code = code_of(&step->level, code_size, node);
            if (code >= (word + 1) * WORD_BITS)
                break;
            offer_child(step, request, row, pool, start, node, code);
        }
    }
}

INLINE void offer_row(const Step *step, int64_t request, const Row *row, Pool *pool, int code_size) {
    if (step->num_tops)
        offer_words(step, request, row, pool, code_size);
    else
        offer_children(step, request, row, pool, code_size);
}

FOR_EACH_CPU static void select_best(const Step *step, int64_t request) {
    Pool pool = {.entries = (Candidate *)step->candidates + request * step->candidate_room, .room = step->candidate_room,
                 .wanted = step->beam_width, .threshold = -INFINITY};
    if (step->level.words)
        start_threshold(step, request, &pool);
    for (int64_t beam = 0; beam < step->width; beam++) {
        Row row = row_of(step, request, beam);
        /* A row, or a word, whose best score equals the worst of the best can still win by its nodes. */
        if (row.measures[2] < pool.threshold || row.measures[2] == -INFINITY)
            continue;
        if (step->level.words)
            offer_dense(step, request, &row, &pool);
        else if (step->level.code_size == PACKED)
            offer_row(step, request, &row, &pool, PACKED);
        else if (step->level.code_size == 1)
            offer_row(step, request, &row, &pool, 1);
        else if (step->level.code_size == 2)
            offer_row(step, request, &row, &pool, 2);
        else
            offer_row(step, request, &row, &pool, 4);
    }
    if (pool.count > pool.wanted)
        make_room(&pool);
    qsort(pool.entries, (size_t)pool.count, sizeof(Candidate), better_first);
    int64_t first = request * step->beam_width;
    for (int64_t place = 0; place < pool.wanted; place++) {
        int is_live = place < pool.count;
        step->best[first + place] = is_live ? score_of(pool.entries[place].rank) : -INFINITY;
        step->nodes[first + place] = is_live ? (int32_t)node_of(pool.entries[place].rank) : DEAD;
        step->parents[first + place] = is_live ? (int32_t)pool.entries[place].beam : 0;
    }
}

/* The codes of the new beams. */
static void continue_codes(const Step *step, int64_t request) {
    int64_t depth = step->depth;
    for (int64_t place = request * step->beam_width; place < (request + 1) * step->beam_width; place++) {
        int32_t *codes = step->codes + place * (depth + 1);
        if (step->nodes[place] == DEAD) {
            for (int64_t number = 0; number <= depth; number++)
                codes[number] = DEAD;
            continue;
        }
        const int32_t *before = step->history + (request * step->width + step->parents[place]) * depth;
        memcpy(codes, before, (size_t)depth * sizeof(int32_t));
        codes[depth] = (int32_t)code_of(&step->level, step->level.code_size, step->nodes[place]);
    }
}

/* Rows that a thread takes at a time. */
#define ROWS_AT_A_TIME 8

static void (*measure_row)(const Step *step, int64_t row) = measure_row_default;

int choose_rows(int at_most) {
    int version = 0;
    measure_row = measure_row_default;
#ifdef MANY_CPUS
    if (at_most >= 4 && __builtin_cpu_supports("x86-64-v4")) {
        version = 4;
        measure_row = measure_row_v4;
    } else if (at_most >= 3 && __builtin_cpu_supports("x86-64-v3")) {
        version = 3;
        measure_row = measure_row_v3;
    }
#else
    (void)at_most;
#endif
    return version;
}

/* Measure some rows of a request. Who measures its last ones selects its best. */
static void step_job(void *context, int64_t item) {
    const Step *step = context;
    int64_t parts = (step->width + ROWS_AT_A_TIME - 1) / ROWS_AT_A_TIME, request = item / parts;
    int64_t row = request * step->width + item % parts * ROWS_AT_A_TIME, end = (request + 1) * step->width;
    for (int64_t stop = row + ROWS_AT_A_TIME < end ? row + ROWS_AT_A_TIME : end; row < stop; row++)
        measure_row(step, row);
    if (atomic_fetch_add((atomic_int *)step->measured + request, 1) + 1 < parts)
        return;
    select_best(step, request);
    continue_codes(step, request);
}

static int has_many_children(const Level *level, int64_t size) {
    int64_t many = size / MANY_OF_CODES > MANY_CHILDREN ? size / MANY_OF_CODES : MANY_CHILDREN;
    return level->kind == SPARSE && level->num_nodes >= (level->num_pointers - 1) * many;
}

int run_step(Step *step, int threads) {
    int64_t rows = step->batch * step->width;
    const Level *level = &step->level;
    step->num_tops = level->words ? level->words : has_many_children(level, step->size) ? (step->size + WORD_BITS - 1) / WORD_BITS : 0;
    step->candidate_room = step->beam_width + step->beam_width / BEAMS_OF_ONE + MORE_CANDIDATES;
    step->room = malloc((size_t)rows * (size_t)(MEASURES + step->num_tops) * sizeof(float) + 1);
    step->candidates = malloc((size_t)(step->batch * step->candidate_room) * sizeof(Candidate) + 1);
    step->measured = calloc((size_t)step->batch + 1, sizeof(atomic_int));
    int has_memory = step->room != NULL && step->candidates != NULL && step->measured != NULL;
    if (has_memory)
        parallel_for(step_job, step, step->batch * ((step->width + ROWS_AT_A_TIME - 1) / ROWS_AT_A_TIME), threads);
    free(step->room);
    free(step->candidates);
    free(step->measured);
    return has_memory;
}
