/* The module hedgerow._native: one function of Python for each of C. */

#include "arguments.h"

static PyObject *py_step(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 22 + OF_LEVEL))
        return NULL;
    Buffers buffers = {.count = 0};
    Step step = {0};
    step.batch = integer_of(&buffers, a[0]);
    step.width = integer_of(&buffers, a[1]);
    step.size = integer_of(&buffers, a[2]);
    step.depth = integer_of(&buffers, a[3]);
    step.beam_width = integer_of(&buffers, a[4]);
    step.normalize = (int)integer_of(&buffers, a[5]);
    int threads = (int)integer_of(&buffers, a[6]);
    int64_t rows = step.batch * step.width, places = step.batch * step.beam_width;
    step.logits = read_from(&buffers, a[7], 0, rows * step.size);
    if (!buffers.failed)
        step.is_bfloat16 = buffers.views[buffers.count - 1].itemsize == 2;
    step.scores = read_from(&buffers, a[8], 4, rows);
    step.states = read_from(&buffers, a[9], 4, rows);
    step.history = read_from(&buffers, a[10], 4, rows * step.depth);
    step.level = level_of(&buffers, a + 11);
    a += 11 + OF_LEVEL;
    if (a[0] != Py_None) {
        step.level.allowed = read_from(&buffers, a[0], 4, 0);
        step.level.words = (step.size + WORD_BITS - 1) / WORD_BITS;
    }
    if (a[1] != Py_None) {
        step.set_rows = read_from(&buffers, a[1], 4, step.batch);
        step.set_free = read_from(&buffers, a[2], 4, step.batch);
        step.alive = read_from(&buffers, a[3], 4, 0);
        step.alive_words = integer_of(&buffers, a[4]);
    }
    if (a[5] != Py_None) {
        step.dead_parents = read_from(&buffers, a[5], 4, 0);
        step.num_dead = step.batch ? length_of(&buffers) / step.batch : 0;
        step.dead_slots = read_from(&buffers, a[6], 4, step.num_dead * step.batch);
    }
    step.codes = write_to(&buffers, a[7], 4, places * (step.depth + 1));
    step.best = write_to(&buffers, a[8], 4, places);
    step.nodes = write_to(&buffers, a[9], 4, places);
    step.parents = write_to(&buffers, a[10], 4, places);
    if (!buffers.failed) {
        int done;
        Py_BEGIN_ALLOW_THREADS
        done = run_step(&step, threads);
        Py_END_ALLOW_THREADS
        if (!done) {
            PyErr_NoMemory();
            buffers.failed = 1;
        }
    }
    return finished(&buffers);
}

/* For tests: they run the code of other processors, too. */
static PyObject *py_choose_rows(PyObject *module, PyObject *at_most) {
    (void)module;
    long version = PyLong_AsLong(at_most);
    return version == -1 && PyErr_Occurred() ? NULL : PyLong_FromLong(choose_rows((int)version));
}

static PyObject *py_join_openmp(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyBool_FromLong(join_openmp());
}

static PyObject *py_child_rows(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 4 + OF_LEVEL))
        return NULL;
    Buffers buffers = {.count = 0};
    Level level = level_of(&buffers, a);
    a += OF_LEVEL;
    const int32_t *code_of_token = read_from(&buffers, a[0], 4, 1);
    int64_t num_tokens = length_of(&buffers);
    const int64_t *tokens = read_from(&buffers, a[1], 8, 0);
    int64_t rows = length_of(&buffers);
    const int32_t *states = read_from(&buffers, a[2], 4, rows);
    int32_t *out = write_to(&buffers, a[3], 4, rows);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        child_rows(&level, code_of_token, num_tokens, tokens, states, rows, out);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_write_rows(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 6 + OF_LEVEL))
        return NULL;
    Buffers buffers = {.count = 0};
    Level level = level_of(&buffers, a);
    a += OF_LEVEL;
    const int64_t *token_of_code = read_from(&buffers, a[0], 8, 0);
    const int32_t *states = read_from(&buffers, a[1], 4, 0);
    int64_t rows = length_of(&buffers), size = integer_of(&buffers, a[5]);
    const void *scores = read_from(&buffers, a[2], 0, rows * size);
    int is_double = !buffers.failed && buffers.views[buffers.count - 1].itemsize == 8, item_size = is_double ? 8 : 4;
    void *out = write_to(&buffers, a[3], item_size, rows * size);
    void *best = write_to(&buffers, a[4], item_size, rows);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        write_rows(&level, token_of_code, states, rows, size, is_double, scores, out, best);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_pack(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 3))
        return NULL;
    Buffers buffers = {.count = 0};
    const void *values = read_from(&buffers, a[0], 0, 0);
    int64_t length = length_of(&buffers);
    int size = buffers.failed ? 0 : (int)buffers.views[buffers.count - 1].itemsize;
    int bits = (int)integer_of(&buffers, a[1]);
    uint32_t *words = write_to(&buffers, a[2], 4, (length + 31) / 32 * bits);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        pack_codes(values, size, length, bits, words);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_unpack(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 3))
        return NULL;
    Buffers buffers = {.count = 0};
    uint32_t *values = write_to(&buffers, a[2], 4, 0);
    int64_t length = length_of(&buffers);
    int bits = (int)integer_of(&buffers, a[1]);
    const uint32_t *words = read_from(&buffers, a[0], 4, (length + 31) / 32 * bits + 1);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        unpack_codes(words, bits, length, values);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_any_of_runs(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 4))
        return NULL;
    Buffers buffers = {.count = 0};
    const uint32_t *words = read_from(&buffers, a[0], 4, 0);
    int64_t num_words = length_of(&buffers);
    const uint32_t *last = read_from(&buffers, a[1], 4, 0);
    int64_t num_last = length_of(&buffers);
    uint32_t *out = write_to(&buffers, a[2], 4, 0);
    int64_t out_words = length_of(&buffers);
    int fast = (int)integer_of(&buffers, a[3]);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        any_of_runs(words, num_words, last, num_last, out, out_words, fast);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_last_of_runs(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 2))
        return NULL;
    Buffers buffers = {.count = 0};
    const int32_t *start = read_from(&buffers, a[0], 4, 1);
    int64_t num_parents = length_of(&buffers) - 1;
    uint32_t *out = write_to(&buffers, a[1], 4, 0);
    int64_t num_words = length_of(&buffers);
    int valid = 1;
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        valid = last_of_runs(start, num_parents, out, num_words);
        Py_END_ALLOW_THREADS
    }
    if (!valid) {
        PyErr_SetString(PyExc_IndexError, "the row pointers name a child that does not exist");
        buffers.failed = 1;
    }
    return finished(&buffers);
}

static PyObject *py_any_with_forks(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 4))
        return NULL;
    Buffers buffers = {.count = 0};
    int64_t num_parents = integer_of(&buffers, a[2]);
    const uint32_t *words = read_from(&buffers, a[0], 4, 0);
    int64_t num_words = length_of(&buffers);
    const int32_t *forks = read_from(&buffers, a[1], 4, 0);
    int64_t num_forks = length_of(&buffers);
    uint32_t *out = write_to(&buffers, a[3], 4, (num_parents + 31) / 32);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        any_with_forks(words, num_words, forks, num_forks, num_parents, out);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_any_with_vector(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 4))
        return NULL;
    Buffers buffers = {.count = 0};
    const uint32_t *words = read_from(&buffers, a[0], 4, 0);
    const uint32_t *high = read_from(&buffers, a[1], 4, 0);
    int64_t num_words = length_of(&buffers);
    int high_bits = (int)integer_of(&buffers, a[2]);
    uint32_t *out = write_to(&buffers, a[3], 4, 0);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        any_with_vector(words, high, num_words, high_bits, out);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_over_codes(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 4))
        return NULL;
    Buffers buffers = {.count = 0};
    const uint32_t *words = read_from(&buffers, a[0], 4, 0);
    int64_t num_words = length_of(&buffers);
    const uint32_t *allowed = read_from(&buffers, a[1], 4, 0);
    int64_t length = length_of(&buffers);
    uint32_t *out = write_to(&buffers, a[2], 4, length);
    int fast = (int)integer_of(&buffers, a[3]);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        over_codes(words, num_words, allowed, length, out, fast);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_sort_keys(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 5))
        return NULL;
    Buffers buffers = {.count = 0};
    uint64_t *keys = write_to(&buffers, a[0], 8, 0);
    int64_t length = length_of(&buffers);
    uint64_t *scratch = write_to(&buffers, a[1], 8, length);
    int64_t low_bit = integer_of(&buffers, a[2]), stop_bit = integer_of(&buffers, a[3]);
    int threads = (int)integer_of(&buffers, a[4]), in_scratch = 0;
    if (!buffers.failed && (low_bit < 0 || stop_bit > 64)) {
        PyErr_Format(PyExc_ValueError, "expected bits of 0 to 64; got %lld to %lld", (long long)low_bit,
                     (long long)stop_bit);
        buffers.failed = 1;
    }
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        in_scratch = sort_keys(keys, scratch, length, (int)low_bit, (int)stop_bit, threads);
        Py_END_ALLOW_THREADS
    }
    release(&buffers);
    if (!buffers.failed && in_scratch < 0)
        return PyErr_NoMemory();
    return buffers.failed ? NULL : PyBool_FromLong(in_scratch);
}

/* Places that do not ascend, or of which the last is not below `limit`, are those of a damaged index. */
static void check_places(Buffers *buffers, const int64_t *places, int64_t count, int64_t limit) {
    if (buffers->failed)
        return;
    for (int64_t i = 0; i < count; i++)
        if (places[i] < (i ? places[i - 1] : 0) || places[i] >= limit) {
            PyErr_SetString(PyExc_ValueError, "places must ascend within the array");
            buffers->failed = 1;
            return;
        }
}

static PyObject *py_splice(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 5))
        return NULL;
    Buffers buffers = {.count = 0};
    const char *old = read_from(&buffers, a[0], 0, 0);
    int64_t length = length_of(&buffers);
    int item_size = buffers.failed ? 0 : (int)buffers.views[buffers.count - 1].itemsize;
    const int64_t *inserted = read_from(&buffers, a[1], 8, 0);
    int64_t num_inserted = length_of(&buffers);
    const char *added = read_from(&buffers, a[2], item_size, num_inserted);
    const int64_t *removed = read_from(&buffers, a[3], 8, 0);
    int64_t num_removed = length_of(&buffers);
    check_places(&buffers, inserted, num_inserted, length + 1);
    check_places(&buffers, removed, num_removed, length);
    char *out = write_to(&buffers, a[4], item_size, length + num_inserted - num_removed);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        splice_array(old, length, item_size, inserted, num_inserted, added, removed, num_removed, out);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_splice_start(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 7))
        return NULL;
    Buffers buffers = {.count = 0};
    const int32_t *start = read_from(&buffers, a[0], 4, 1);
    int64_t num_parents = length_of(&buffers) - 1, largest = 0;
    const int64_t *inserted = read_from(&buffers, a[1], 8, 0);
    int64_t num_inserted = length_of(&buffers);
    const int64_t *counts = read_from(&buffers, a[2], 8, num_inserted);
    const int64_t *removed = read_from(&buffers, a[3], 8, 0);
    int64_t num_removed = length_of(&buffers);
    const int64_t *changed = read_from(&buffers, a[4], 8, 0);
    int64_t num_changed = length_of(&buffers);
    const int64_t *deltas = read_from(&buffers, a[5], 8, num_changed);
    int32_t *out = write_to(&buffers, a[6], 4, num_parents + num_inserted - num_removed + 1);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        largest = splice_start(start, num_parents, inserted, counts, num_inserted, removed, num_removed, changed,
                               deltas, num_changed, out);
        Py_END_ALLOW_THREADS
    }
    release(&buffers);
    return buffers.failed ? NULL : PyLong_FromLongLong(largest);
}

static PyObject *py_lower_bounds(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 5))
        return NULL;
    Buffers buffers = {.count = 0};
    const void *codes = read_from(&buffers, a[0], 0, 0);
    int code_size = buffers.failed ? 0 : (int)buffers.views[buffers.count - 1].itemsize;
    const int64_t *start = read_from(&buffers, a[1], 8, 0);
    int64_t rows = length_of(&buffers);
    const int64_t *stop = read_from(&buffers, a[2], 8, rows);
    const int64_t *wanted = read_from(&buffers, a[3], 8, rows);
    int64_t *out = write_to(&buffers, a[4], 8, rows);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        lower_bounds(codes, code_size, start, stop, wanted, rows, out);
        Py_END_ALLOW_THREADS
    }
    return finished(&buffers);
}

static PyObject *py_passing_rows(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 4))
        return NULL;
    Buffers buffers = {.count = 0};
    int64_t passed = 0;
    const uint64_t *values = read_from(&buffers, a[0], 8, 0);
    int64_t rows = length_of(&buffers);
    int shift = (int)integer_of(&buffers, a[2]);
    const uint32_t *bits = read_from(&buffers, a[1], 4, (int64_t)1 << (64 - shift) >> 5);
    int64_t *out = write_to(&buffers, a[3], 8, rows);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        passed = passing_rows(values, rows, bits, shift, out);
        Py_END_ALLOW_THREADS
    }
    release(&buffers);
    return buffers.failed ? NULL : PyLong_FromLongLong(passed);
}

static int have_one_type(const Ids *first, const Ids *second) {
    return first->item_size == second->item_size && first->offset_size == second->offset_size &&
           first->is_signed == second->is_signed;
}

static PyObject *py_search_ids(PyObject *module, PyObject *const *a, Py_ssize_t count) {
    (void)module;
    if (!expects(count, 13))
        return NULL;
    Buffers buffers = {.count = 0};
    Ids ids = ids_of(&buffers, a);
    const int32_t *order = read_from(&buffers, a[3], 4, ids.length);
    Ids samples = ids_of(&buffers, a + 4), wanted = ids_of(&buffers, a + 8);
    if (!buffers.failed && !(have_one_type(&ids, &wanted) && have_one_type(&ids, &samples))) {
        PyErr_SetString(PyExc_ValueError, "expected ids, samples and wanted ids of one type");
        buffers.failed = 1;
    }
    int64_t sample_step = integer_of(&buffers, a[7]);
    int exact = (int)integer_of(&buffers, a[11]), valid = 1;
    int64_t *out = write_to(&buffers, a[12], 8, wanted.length);
    if (!buffers.failed) {
        Py_BEGIN_ALLOW_THREADS
        valid = search_ids(&ids, order, &samples, sample_step, &wanted, exact, out);
        Py_END_ALLOW_THREADS
    }
    if (!valid) {
        PyErr_SetString(PyExc_IndexError, "the order of the item ids names a row that does not exist");
        buffers.failed = 1;
    }
    return finished(&buffers);
}

#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}

static PyMethodDef functions[] = {
    FUNCTION(step),         FUNCTION(child_rows),     FUNCTION(write_rows), FUNCTION(any_of_runs),
    FUNCTION(last_of_runs), FUNCTION(any_with_forks), FUNCTION(over_codes), FUNCTION(splice),
    FUNCTION(splice_start), FUNCTION(lower_bounds),   FUNCTION(passing_rows), FUNCTION(search_ids),
    FUNCTION(sort_keys),    FUNCTION(pack),           FUNCTION(unpack),
    FUNCTION(any_with_vector),
    {"choose_rows", py_choose_rows, METH_O, NULL},
    {"join_openmp", py_join_openmp, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "hedgerow._native", .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) {
    choose_rows(4);
    watch_forks();
    return PyModuleDef_Init(&definition);
}
