/* Arguments of Python become pointers, whose sizes are checked. */

#ifndef HEDGEROW_ARGUMENTS_H
#define HEDGEROW_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "native.h"

#define MAX_BUFFERS 24

/* The buffers of a call, which are released at its end. `failed` is set with an exception of Python. */
typedef struct {
    Py_buffer views[MAX_BUFFERS];
    int count, failed;
} Buffers;

static inline void release(Buffers *buffers) {
    while (buffers->count)
        PyBuffer_Release(&buffers->views[--buffers->count]);
}

/* The memory of an array of at least `length` entries of `item_size` bytes; any item size if that is 0. */
static inline void *memory_of(Buffers *buffers, PyObject *array, int item_size, int64_t length, int writable) {
    if (buffers->failed)
        return NULL;
    Py_buffer *view = &buffers->views[buffers->count];
    int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array, view, flags) != 0) {
        buffers->failed = 1;
        return NULL;
    }
    buffers->count++;
    if ((item_size && view->itemsize != item_size) || view->len < length * view->itemsize) {
        PyErr_Format(PyExc_ValueError, "expected an array of %lld entries of %d bytes; got %lld bytes in entries of %lld",
                     (long long)length, item_size, (long long)view->len, (long long)view->itemsize);
        buffers->failed = 1;
    }
    return view->buf;
}

static inline const void *read_from(Buffers *buffers, PyObject *array, int item_size, int64_t length) {
    return memory_of(buffers, array, item_size, length, 0);
}

static inline void *write_to(Buffers *buffers, PyObject *array, int item_size, int64_t length) {
    return memory_of(buffers, array, item_size, length, 1);
}

/* The number of entries of the array that was taken last. */
static inline int64_t length_of(const Buffers *buffers) {
    if (buffers->failed)
        return 0;
    const Py_buffer *view = &buffers->views[buffers->count - 1];
    return view->itemsize == 0 ? 0 : view->len / view->itemsize;
}

static inline int64_t integer_of(Buffers *buffers, PyObject *number) {
    int64_t value = PyLong_AsLongLong(number);
    if (value == -1 && PyErr_Occurred())
        buffers->failed = 1;
    return value;
}

static inline int expects(Py_ssize_t given, Py_ssize_t expected) {
    if (given == expected)
        return 1;
    PyErr_Format(PyExc_TypeError, "expected %zd arguments; got %zd", expected, given);
    return 0;
}

/* The number of arguments that `level_of` takes. */
#define OF_LEVEL 6

/* The arguments kind, pointers and codes of a level; and low_bits, high_bits and high, of which low_bits is -1 and
   high is None unless the level is compact. */
static inline Level level_of(Buffers *buffers, PyObject *const *arguments) {
    Level level = {0};
    level.kind = (int)integer_of(buffers, arguments[0]);
    level.pointers = read_from(buffers, arguments[1], 4, 0);
    if (!buffers->failed)
        level.num_pointers = length_of(buffers);
    level.codes = read_from(buffers, arguments[2], 0, 0);
    if (!buffers->failed) {
        level.num_nodes = length_of(buffers);
        level.code_size = (int)buffers->views[buffers->count - 1].itemsize;
    }
    int64_t low_bits = integer_of(buffers, arguments[3]), high_bits = integer_of(buffers, arguments[4]);
    if (buffers->failed || low_bits < 0)
        return level;
    level.code_size = PACKED;
    level.num_nodes = low_bits ? (level.num_nodes - 1) / low_bits * 32 : 0;
    level.compact = (Compact){.low_bits = (int)low_bits, .high_bits = (int)high_bits};
    if (arguments[5] != Py_None) {
        level.compact.zeros_before = level.pointers;
        level.compact.blocks = level.num_pointers;
        level.compact.high = read_from(buffers, arguments[5], 4, level.num_pointers * BLOCK_WORDS);
    }
    return level;
}

/* The arguments values, offsets or None, and is_signed of item ids. */
static inline Ids ids_of(Buffers *buffers, PyObject *const *arguments) {
    Ids ids = {0};
    ids.values = read_from(buffers, arguments[0], 0, 0);
    ids.length = ids.num_bytes = length_of(buffers);
    if (!buffers->failed)
        ids.item_size = (int)buffers->views[buffers->count - 1].itemsize;
    if (arguments[1] != Py_None) {
        ids.offsets = read_from(buffers, arguments[1], 0, 1);
        ids.length = length_of(buffers) - 1;
        if (!buffers->failed)
            ids.offset_size = (int)buffers->views[buffers->count - 1].itemsize;
    }
    ids.is_signed = (int)integer_of(buffers, arguments[2]);
    return ids;
}

static inline PyObject *finished(Buffers *buffers) {
    release(buffers);
    if (buffers->failed)
        return NULL;
    Py_RETURN_NONE;
}

#endif
