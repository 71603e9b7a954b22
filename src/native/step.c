/* The step: see hedgerow/decode/kernels/native.py. */

#include "native.h"

#define LARGEST 1e30f
#define LOG2_E 1.4426950408889634f
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
/* exp() of smaller numbers is less than the last bit of a sum that contains exp(0). */
#define SMALLEST -87.0f
#define DEAD -1
/* What a row measures: the logit and the log of the sum to subtract, the bound of its scores, the tops of its words. */
#define MEASURES 3
#define LANES 16
/* The number of codes whose exponentials are added as floats. */
#define BLOCK 512
/* The room for the candidates of a request: more are kept before the best are selected. */
#define MIN_CANDIDATES 1024

/* Sums are taken in LANES parts, in the same order on every processor. */
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef double Doubles __attribute__((vector_size(8 * LANES), aligned(8)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));

INLINE Floats choose(Ints mask, Floats yes, Floats no) {
    return (Floats)((mask & (Ints)yes) | (~mask & (Ints)no));
}

INLINE Floats larger(Floats x, Floats y) { return choose(x > y, x, y); }

INLINE Floats all(float value) { return value - (Floats){0}; }

/* Logits as the array kernel bounds them: NaN as -inf, finite values and +inf clipped to +-LARGEST. */
INLINE Floats bounded_all(Floats x) {
    Floats clipped = choose(x > all(LARGEST), all(LARGEST), choose(x < all(-LARGEST), all(-LARGEST), x));
    return choose(x > all(-INFINITY), clipped, all(-INFINITY));
}

INLINE float bounded(float x) {
    if (!(x > -INFINITY))
        return -INFINITY;
    return x > LARGEST ? LARGEST : x < -LARGEST ? -LARGEST : x;
}

/* exp(x) of x <= 0, exact to the last two bits. */
INLINE Floats exp_all(Floats x) {
    x = larger(x, all(SMALLEST));
    Ints n = __builtin_convertvector(x * LOG2_E - 0.5f, Ints);
    Floats scale = __builtin_convertvector(n, Floats);
    Floats f = x - scale * LN2_HIGH - scale * LN2_LOW;
    Floats p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    return p * (Floats)((n + 127) << 23);
}

INLINE float exp_one(float x) { return exp_all(all(x))[0]; }

INLINE float largest_lane(Floats x) {
    float top = x[0];
    for (int lane = 1; lane < LANES; lane++)
        top = x[lane] > top ? x[lane] : top;
    return top;
}

INLINE double sum_of_lanes(Doubles x) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            x[lane] += x[lane + half];
    return x[0];
}

INLINE float logit_at(const Step *step, int64_t row, int64_t code) {
    if (!step->is_bfloat16)
        return bounded(((const float *)step->logits)[row * step->size + code]);
    union {
        uint32_t bits;
        float value;
    } wide = {(uint32_t)((const uint16_t *)step->logits)[row * step->size + code] << 16};
    return bounded(wide.value);
}

/* LANES logits of a row from a code on, as they are; -inf after the end of the row. */
INLINE Floats logits_at(const Step *step, int64_t row, int64_t code, int is_bfloat16) {
    int64_t place = row * step->size + code, left = step->size - code;
    if (is_bfloat16) {
        Halves halves;
        if (left >= LANES)
            halves = *(const Halves *)((const uint16_t *)step->logits + place);
        else
            for (int lane = 0; lane < LANES; lane++)
                halves[lane] = lane < left ? ((const uint16_t *)step->logits)[place + lane] : 0xff80;
        return (Floats)(__builtin_convertvector(halves, Ints) << 16);
    }
    if (left >= LANES)
        return *(const Floats *)((const float *)step->logits + place);
    Floats part = all(-INFINITY);
    memcpy(&part, (const float *)step->logits + place, (size_t)left * sizeof(float));
    return part;
}

/* The words of the set of a request; NULL if it has none. */
INLINE const uint32_t *words_of(const Step *step, int64_t request) {
    if (step->set_rows == NULL || step->set_free[request])
        return NULL;
    return step->alive + step->set_rows[request] * step->alive_words;
}

/* Whether a child is in the set of these words, over the codes of a dense level or the nodes of another. */
INLINE int in_set(const Step *step, const uint32_t *words, int64_t state, int64_t node, int64_t code) {
    if (words == NULL)
        return 1;
    int64_t position = step->level.words ? state * step->level.words * WORD_BITS + code : node;
    return words[position >> 5] >> (position & 31) & 1;
}

/* The dead children of a state: a part of the list of its request. */
typedef struct {
    const int32_t *slots;
    int64_t count;
} Dead;

INLINE Dead dead_children(const Step *step, int64_t request, int64_t state) {
    if (step->num_dead == 0)
        return (Dead){NULL, 0};
    const int32_t *parents = step->dead_parents + request * step->num_dead;
    int64_t start = rank_in(parents, step->num_dead, state), stop = rank_in(parents, step->num_dead, state + 1);
    return (Dead){step->dead_slots + request * step->num_dead + start, stop - start};
}

INLINE int is_excluded(Dead dead, int64_t slot) {
    if (dead.count == 0)
        return 0;
    int64_t position = rank_in(dead.slots, dead.count, slot);
    return position < dead.count && dead.slots[position] == slot;
}

/* The largest logit of the allowed children, and their sum of exponentials relative to it. */
INLINE void measure_children(const Step *step, int64_t row, float *top, double *sum) {
    const Level *level = &step->level;
    int64_t request = row / step->width, state = step->states[row], start, stop;
    const uint32_t *words = words_of(step, request);
    Dead dead = dead_children(step, request, state);
    children_of(level, state, &start, &stop);
    float best = -INFINITY;
    double total = 0.0;
    for (int summing = 0; summing < 2; summing++) {
        Ones ones = codes_from(level, state, start);
        for (int64_t node = start; node < stop; node++) {
            int64_t code = next_code(level, level->code_size, node, &ones);
            if (!in_set(step, words, state, node, code) || is_excluded(dead, level->words ? code : node - start))
                continue;
            float logit = logit_at(step, row, code);
            if (summing)
                total += exp_one(logit - best);
            else
                best = logit > best ? logit : best;
        }
    }
    *top = best;
    *sum = total;
}

INLINE float *measures_of(const Step *step, int64_t row) { return step->room + row * (MEASURES + step->level.words); }

/* The largest logit of a row, and of each word of 32 codes if `tops` is not NULL. Bounds are kept unless the row is
   usual: all its logits are finite and within them, which `usual` then says of the row. */
INLINE float largest_of_row(const Step *step, int64_t row, float *tops, int is_bfloat16, int *usual) {
    Floats top = all(-INFINITY);
    Ints unusual = {0}, bits_of_sign = (Ints)all(-0.0f);
    int keeps_bounds = !*usual;
    for (int64_t word = 0, code = 0; code < step->size; word++, code += WORD_BITS) {
        Floats of_word = all(-INFINITY);
        for (int64_t part = code; part < code + WORD_BITS && part < step->size; part += LANES) {
            Floats logits = logits_at(step, row, part, is_bfloat16);
            if (keeps_bounds)
                logits = bounded_all(logits);
            else
                unusual |= ~((Floats)((Ints)logits & ~bits_of_sign) <= all(LARGEST));
            of_word = larger(of_word, logits);
        }
        if (tops)
            tops[word] = largest_lane(of_word);
        top = larger(top, of_word);
    }
    int32_t any = 0;
    for (int lane = 0; lane < LANES; lane++)
        any |= unusual[lane];
    *usual = !keeps_bounds && !any;
    return largest_lane(top);
}

/* Floats hold the sums of short blocks only: their errors grow with the number of additions. */
INLINE double sum_of_row(const Step *step, int64_t row, float best, int is_bfloat16, int usual) {
    Floats shift = all(best);
    Doubles sums = {0};
    int64_t code = 0, whole = step->size - step->size % LANES;
    while (code < whole) {
        Floats sum = all(0.0f);
        int64_t stop = code + BLOCK < whole ? code + BLOCK : whole;
        for (; code < stop; code += LANES) {
            Floats logits = logits_at(step, row, code, is_bfloat16);
            sum += exp_all((usual ? logits : bounded_all(logits)) - shift);
        }
        sums += __builtin_convertvector(sum, Doubles);
    }
    double total = sum_of_lanes(sums);
    for (; code < step->size; code++)
        total += exp_one(logit_at(step, row, code) - best);
    return total;
}

INLINE void measure_row_of(const Step *step, int64_t row, int is_bfloat16) {
    float *measures = measures_of(step, row), *tops = step->level.words ? measures + MEASURES : NULL;
    float best = -INFINITY;
    double total = 1.0;
    measures[0] = measures[1] = 0.0f;
    measures[2] = -INFINITY;
    if (step->states[row] < 0)
        return;
    int may_be_usual = step->size % LANES == 0, usual = may_be_usual;
    if (tops || step->normalize != ALLOWED) {
        best = largest_of_row(step, row, tops, is_bfloat16, &usual);
        if (may_be_usual && !usual)
            best = largest_of_row(step, row, tops, is_bfloat16, &usual);
    }
    if (step->normalize == ALLOWED)
        measure_children(step, row, &best, &total);
    else if (step->normalize == CODES && best > -INFINITY)
        total = usual ? sum_of_row(step, row, best, is_bfloat16, 1) : sum_of_row(step, row, best, is_bfloat16, 0);
    if (best > -INFINITY) {
        float log_total = (float)log(total);
        measures[2] = step->scores[row] - log_total + (step->normalize == GIVEN ? best : 0.0f);
        if (step->normalize != GIVEN) {
            measures[0] = best;
            measures[1] = log_total;
        }
    }
}

FOR_EACH_CPU static void measure_row(const Step *step, int64_t row) {
    if (step->is_bfloat16)
        measure_row_of(step, row, 1);
    else
        measure_row_of(step, row, 0);
}

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
    int64_t row, beam, state, start, stop;
    float score, shift, log_total;
    const uint32_t *words;
    Dead dead;
} Row;

INLINE float key_of(const Row *row, float logit) { return row->score + (logit - row->shift - row->log_total); }

/* Candidates of a dense level, a word of 32 codes at a time. A word whose best score cannot win is skipped. */
INLINE void offer_dense(const Step *step, const Row *row, Pool *pool) {
    const uint32_t *allowed = step->level.allowed + row->state * step->level.words;
    const float *tops = measures_of(step, row->row) + MEASURES;
    int64_t node = row->start;
    for (int64_t word = 0; word < step->level.words; word++) {
        uint32_t all_bits = allowed[word];
        uint32_t bits = row->words ? row->words[row->state * step->level.words + word] : all_bits;
        float best_of_word = key_of(row, tops[word]);
        if (best_of_word >= pool->threshold && best_of_word > -INFINITY)
            for (; bits; bits &= bits - 1) {
                int64_t code = word * WORD_BITS + __builtin_ctz(bits);
                float key = key_of(row, logit_at(step, row->row, code));
                if (!(key >= pool->threshold) || key == -INFINITY)
                    continue;
                uint64_t rank = rank_of(key, node + __builtin_popcount(all_bits & ((bits & -bits) - 1)));
                if (rank > pool->lowest && !is_excluded(row->dead, code))
                    offer(pool, rank, row->beam);
            }
        node += __builtin_popcount(all_bits);
    }
}

INLINE void offer_children(const Step *step, const Row *row, Pool *pool, int code_size) {
    Ones ones = codes_from(&step->level, row->state, row->start);
    for (int64_t node = row->start; node < row->stop; node++) {
        int64_t code = next_code(&step->level, code_size, node, &ones);
        float key = key_of(row, logit_at(step, row->row, code));
        if (!(key >= pool->threshold) || key == -INFINITY)
            continue;
        uint64_t rank = rank_of(key, node);
        if (rank > pool->lowest && in_set(step, row->words, row->state, node, 0) &&
            !is_excluded(row->dead, node - row->start))
            offer(pool, rank, row->beam);
    }
}

FOR_EACH_CPU static void select_best(const Step *step, int64_t request) {
    Pool pool = {.entries = (Candidate *)step->candidates + request * step->candidate_room, .room = step->candidate_room,
                 .wanted = step->beam_width, .threshold = -INFINITY};
    for (int64_t beam = 0; beam < step->width; beam++) {
        int64_t number = request * step->width + beam;
        const float *measures = measures_of(step, number);
        /* A row, or a word, whose best score equals the worst of the best can still win by its nodes. */
        if (measures[2] < pool.threshold || measures[2] == -INFINITY)
            continue;
        Row row = {.row = number, .beam = beam, .state = step->states[number], .score = step->scores[number],
                   .shift = measures[0], .log_total = measures[1], .words = words_of(step, request)};
        row.dead = dead_children(step, request, row.state);
        children_of(&step->level, row.state, &row.start, &row.stop);
        if (step->level.words)
            offer_dense(step, &row, &pool);
        else if (step->level.code_size == 1)
            offer_children(step, &row, &pool, 1);
        else if (step->level.code_size == 2)
            offer_children(step, &row, &pool, 2);
        else if (step->level.code_size == PACKED)
            offer_children(step, &row, &pool, PACKED);
        else
            offer_children(step, &row, &pool, 4);
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
FOR_EACH_CPU static void continue_codes(const Step *step, int64_t request) {
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
        codes[depth] = (int32_t)code_of(&step->level, step->nodes[place]);
    }
}

/* Rows that a thread takes at a time. */
#define ROWS_AT_A_TIME 8

static void measure_job(void *context, int64_t item) {
    const Step *step = context;
    int64_t rows = step->batch * step->width, stop = (item + 1) * ROWS_AT_A_TIME;
    for (int64_t row = item * ROWS_AT_A_TIME; row < (stop < rows ? stop : rows); row++)
        measure_row(step, row);
}

static void select_job(void *context, int64_t item) {
    select_best(context, item);
    continue_codes(context, item);
}

int run_step(Step *step, int threads) {
    int64_t rows = step->batch * step->width;
    step->candidate_room = 2 * step->beam_width > MIN_CANDIDATES ? 2 * step->beam_width : MIN_CANDIDATES;
    step->room = malloc((size_t)rows * (size_t)(MEASURES + step->level.words) * sizeof(float) + 1);
    step->candidates = malloc((size_t)(step->batch * step->candidate_room) * sizeof(Candidate) + 1);
    if (step->room == NULL || step->candidates == NULL) {
        free(step->room);
        free(step->candidates);
        return 0;
    }
    parallel_for(measure_job, step, (rows + ROWS_AT_A_TIME - 1) / ROWS_AT_A_TIME, threads);
    parallel_for(select_job, step, step->batch, threads);
    free(step->room);
    free(step->candidates);
    return 1;
}
