/* The one file that knows of Python: a type whose objects run a program in a single call.
 *
 * Checking a feed and finding its program takes some twenty microseconds, and calling C through
 * cffi two more: as long as a small network needs for all its kernels. A feed with the keys, dtypes
 * and shapes (but for the rows, of a program that is for any number of them) of one that has been
 * checked would give the same answers, so a Launcher compares it
 * with those, points an idle context to its arrays, runs the context and takes the result, without
 * a line of Python. What does not match is left to Python, and so is all that goes another way:
 * nodes written in Python, errors, a run that takes long. Whatever happens, the context is brought
 * back; nothing here is interrupted by a signal, since handlers run between two lines of Python.
 *
 * It is an extension of its own, of Python's stable ABI. The core's functions come to it as
 * addresses, so that the core is one library and knows nothing of Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "plan.h"

/* A feed of up to this many arrays needs no memory of its own. */
enum { FEW = 16 };

static PyObject *ndarray, *name_dtype, *name_feeds, *name_address, *name_places, *name_copy,
    *name_pop;

/* pf_context_launch, pf_context_give_up, pf_context_data, pf_context_resize */
typedef int launch_function(pf_context *, void *const *, int, uint64_t, int64_t *, double, double);
typedef int give_up_function(pf_context *);
typedef void *data_function(const pf_context *, int64_t);
typedef void resize_function(pf_context *, int64_t);

typedef struct {
    PyObject_HEAD launch_function *launch;
    give_up_function *give_up;
    data_function *data;
    resize_function *resize;
    int64_t *step_count;
    int64_t cost; /* the value that is the loss, float or double */
    double seconds;
    int cost_bits, single, grows; /* the first output, with the rows */
    Py_ssize_t most;  /* rows that a feed may have; 0: their number is among the shapes */
    Py_ssize_t count; /* of feeds: their keys, dtypes and shapes */
    PyObject *keys, *dtypes;
    Py_ssize_t *extents; /* of each feed: how many axes it has, and how long they are; -1: rows */
    PyObject *idle, *borrow, *last, *carry_on, *collect, *busy_error, *state;
} Launcher;

/* ---- making one ---- */

static uintptr_t address_of(PyObject *number) { return (uintptr_t)PyLong_AsVoidPtr(number); }

/* The shapes, a tuple of tuples, as numbers one after the other; NULL with an exception set. */
static Py_ssize_t *extents_of(PyObject *shapes) {
    Py_ssize_t total = 0, count = PyTuple_Size(shapes);
    for (Py_ssize_t i = 0; i < count; i++) total += 1 + PyTuple_Size(PyTuple_GetItem(shapes, i));
    Py_ssize_t *extents = PyMem_Malloc((size_t)(total + 1) * sizeof *extents), *at = extents;
    if (!extents) return (Py_ssize_t *)PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *shape = PyTuple_GetItem(shapes, i);
        *at++ = PyTuple_Size(shape);
        for (Py_ssize_t j = 0; j < PyTuple_Size(shape); j++)
            *at++ = PyLong_AsSsize_t(PyTuple_GetItem(shape, j));
    }
    if (!PyErr_Occurred()) return extents;
    PyMem_Free(extents);
    return NULL;
}

/* Launcher(functions, step_count, cost, cost_bits, most, grows, seconds, single, keys, dtypes,
 * shapes, idle, borrow, last, carry_on, collect, busy_error, state): see
 * pyframe/native/launcher.py. */
static PyObject *launcher_new(PyTypeObject *type, PyObject *arguments, PyObject *options) {
    PyObject *functions[4], *step_count, *shapes;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Launcher *self = (Launcher *)allocate(type, 0);
    if (!self) return NULL;
    long long cost;
    if ((options && PyDict_Size(options)) ||
        !PyArg_ParseTuple(arguments, "(OOOO)OLinpdiO!O!O!O!OO!OOOO:Launcher", &functions[0],
                          &functions[1], &functions[2], &functions[3], &step_count, &cost,
                          &self->cost_bits, &self->most, &self->grows, &self->seconds,
                          &self->single, &PyTuple_Type, &self->keys, &PyTuple_Type, &self->dtypes,
                          &PyTuple_Type, &shapes, &PyList_Type, &self->idle, &self->borrow,
                          &PyList_Type, &self->last, &self->carry_on, &self->collect,
                          &self->busy_error, &self->state)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "arguments go by position");
        self->keys = self->dtypes = self->idle = self->borrow = self->last = NULL;
        self->carry_on = self->collect = self->busy_error = self->state = NULL;
        Py_DECREF(self);
        return NULL;
    }
    for (PyObject **held = &self->keys; held <= &self->dtypes; held++) Py_INCREF(*held);
    for (PyObject **held = &self->idle; held <= &self->state; held++) Py_INCREF(*held);
    self->launch = (launch_function *)address_of(functions[0]);
    self->give_up = (give_up_function *)address_of(functions[1]);
    self->data = (data_function *)address_of(functions[2]);
    self->resize = (resize_function *)address_of(functions[3]);
    self->step_count = (int64_t *)address_of(step_count);
    self->cost = cost;
    self->count = PyTuple_Size(self->keys);
    if (PyErr_Occurred() || !(self->extents = extents_of(shapes))) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int launcher_traverse(PyObject *object, visitproc visit, void *arg) {
    Launcher *self = (Launcher *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->keys);
    Py_VISIT(self->dtypes);
    for (PyObject **held = &self->idle; held <= &self->state; held++) Py_VISIT(*held);
    return 0;
}

static int launcher_clear(PyObject *object) {
    Launcher *self = (Launcher *)object;
    Py_CLEAR(self->keys);
    Py_CLEAR(self->dtypes);
    for (PyObject **held = &self->idle; held <= &self->state; held++) Py_CLEAR(*held);
    return 0;
}

static void launcher_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    launcher_clear(object);
    PyMem_Free(((Launcher *)object)->extents);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* ---- feeds ---- */

/* Whether an array has a dtype, which is compared as an object. -1: an exception. */
static int has_dtype(PyObject *array, PyObject *dtype) {
    PyObject *own = PyObject_GetAttr(array, name_dtype);
    if (!own) return -1;
    Py_DECREF(own);
    return own == dtype;
}

/* Whether a buffer has the extents that follow *at, which moves on behind them. The rows are those
 * of the feeds before, if there are any. */
static int has_extents(const Launcher *self, const Py_buffer *buffer, const Py_ssize_t **at,
                       Py_ssize_t *rows) {
    const Py_ssize_t ndim = *(*at)++;
    const Py_ssize_t *shape = *at;
    *at += ndim;
    if (buffer->ndim != ndim) return 0;
    const int grows = ndim > 0 && shape[0] == -1;
    if (grows) {
        const Py_ssize_t own = buffer->shape[0];
        if (*rows ? own != *rows : own < 2 || own > self->most) return 0;
        *rows = own;
    }
    return memcmp(buffer->shape + grows, shape + grows, (size_t)(ndim - grows) * sizeof *shape) ==
           0;
}

/* The expected ways in which a feed does not match: another key; an array that is not contiguous.
 */
static int is_mismatch(void) {
    if (!PyErr_ExceptionMatches(PyExc_KeyError) && !PyErr_ExceptionMatches(PyExc_ValueError))
        return 0;
    PyErr_Clear();
    return 1;
}

/* Finds array number i of a feed and where its elements are. 1: found; 0: it is another feed than
 * those that have been checked (unless this one has been); -1: an exception. */
static int take_feed(Launcher *self, PyObject *feed, int checked, Py_ssize_t i,
                     const Py_ssize_t **extents, Py_ssize_t *rows, PyObject **array, void **data) {
    Py_buffer buffer;
    *array = PyObject_GetItem(feed, PyTuple_GetItem(self->keys, i));
    if (!*array) return is_mismatch() ? 0 : -1;
    if (!checked) {
        if ((PyObject *)Py_TYPE(*array) != ndarray) return 0;
        const int same = has_dtype(*array, PyTuple_GetItem(self->dtypes, i));
        if (same < 1) return same;
    }
    if (PyObject_GetBuffer(*array, &buffer, PyBUF_ND) < 0) return is_mismatch() ? 0 : -1;
    const int fits = has_extents(self, &buffer, extents, rows) || checked;
    *data = buffer.buf;
    PyBuffer_Release(&buffer);
    return fits;
}

/* The arrays of a feed in the order of the program, as a new tuple, and where their elements are.
 * NULL without an exception: the feed does not match. */
static PyObject *take_feeds(Launcher *self, PyObject *feed, int checked, Py_ssize_t *rows,
                            void **data) {
    *rows = 0;
    if (!checked && (!PyDict_CheckExact(feed) || PyDict_Size(feed) != self->count)) return NULL;
    PyObject *arrays = PyTuple_New(self->count);
    const Py_ssize_t *extents = self->extents;
    for (Py_ssize_t i = 0; arrays && i < self->count; i++) {
        PyObject *array = NULL;
        const int found = take_feed(self, feed, checked, i, &extents, rows, &array, &data[i]);
        if (array) PyTuple_SetItem(arrays, i, array);
        if (found < 1) Py_CLEAR(arrays);
    }
    return arrays;
}

/* ---- a run ---- */

/* An idle context, or a new one. */
static PyObject *borrow(Launcher *self) {
    PyObject *context = PyObject_CallMethodObjArgs(self->idle, name_pop, NULL);
    if (context || !PyErr_ExceptionMatches(PyExc_IndexError)) return context;
    PyErr_Clear();
    return PyObject_CallObject(self->borrow, NULL);
}

static pf_context *pointer_of(PyObject *context) {
    PyObject *number = PyObject_GetAttr(context, name_address);
    pf_context *pointer = number ? PyLong_AsVoidPtr(number) : NULL;
    Py_XDECREF(number);
    return pointer;
}

static PyObject *loss_of(Launcher *self, const pf_context *pointer) {
    const void *loss = self->data(pointer, self->cost);
    return PyFloat_FromDouble(self->cost_bits == 32 ? (double)*(const float *)loss
                                                    : *(const double *)loss);
}

/* Copies the contiguous `place` to `out` where that is a plain array of the same form; 0: it is
 * not; -1: an exception. */
static int copy_to(PyObject *place, PyObject *out) {
    Py_buffer from, to;
    if ((PyObject *)Py_TYPE(out) != ndarray) return 0;
    PyObject *dtype = PyObject_GetAttr(place, name_dtype);
    const int same = dtype ? has_dtype(out, dtype) : -1;
    Py_XDECREF(dtype);
    if (same < 1) return same;
    if (PyObject_GetBuffer(out, &to, PyBUF_ND | PyBUF_WRITABLE) < 0) {
        PyErr_Clear(); /* read-only, or not contiguous */
        return 0;
    }
    int fits = -1;
    if (PyObject_GetBuffer(place, &from, PyBUF_ND) == 0) {
        fits = from.ndim == to.ndim &&
               (from.ndim == 0 ||
                memcmp(from.shape, to.shape, (size_t)from.ndim * sizeof *from.shape) == 0);
        if (fits) memmove(to.buf, from.buf, (size_t)from.len);
        PyBuffer_Release(&from);
    }
    PyBuffer_Release(&to);
    return fits;
}

/* The results of a run: copies, or put where `out` says. */
static PyObject *results_of(Launcher *self, PyObject *context, Py_ssize_t rows, PyObject *out) {
    if (self->single) { /* the everyday case; a value that lies in the feed has no place */
        PyObject *places = PyObject_GetAttr(context, name_places);
        PyObject *place = places ? Py_XNewRef(PyList_GetItem(places, 0)) : NULL, *result = NULL;
        if (place && place != Py_None && self->grows) { /* it is as long as for the most rows */
            PyObject *whole = place;
            place = PySequence_GetSlice(whole, 0, PySequence_Size(whole) / self->most * rows);
            Py_DECREF(whole);
        }
        int done = 0;
        if (place && place != Py_None && out == Py_None)
            done = (result = PyObject_CallMethodObjArgs(place, name_copy, NULL)) ? 1 : -1;
        else if (place && place != Py_None && (done = copy_to(place, out)) == 1)
            result = Py_NewRef(out);
        Py_XDECREF(place);
        Py_XDECREF(places);
        if (done || PyErr_Occurred()) return result;
    }
    return PyObject_CallFunction(self->collect, "OOi", context, out, self->single);
}

/* After an exception: completes the update that is under way or drops the step. */
static void give_up(Launcher *self, PyObject *context, pf_context *pointer, int training) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    Py_BEGIN_ALLOW_THREADS;
    self->give_up(pointer);
    Py_END_ALLOW_THREADS;
    if (training && !PyErr_GivenExceptionMatches(type, self->busy_error))
        PyList_SetItem(self->last, 0, Py_NewRef(context));
    PyErr_Restore(type, value, trace);
}

static void give_back(Launcher *self, PyObject *context) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyList_Append(self->idle, context) < 0) PyErr_Clear(); /* then it is lost, and freed */
    PyErr_Restore(type, value, trace);
    Py_DECREF(context);
}

/* Runs a context over the arrays whose elements `data` points to. */
static PyObject *run_with(Launcher *self, PyObject *arrays, void *const *data, Py_ssize_t rows,
                          int training, unsigned long long seed, double rate, PyObject *out) {
    PyObject *context = borrow(self), *result = NULL;
    if (!context) return NULL;
    pf_context *pointer = pointer_of(context);
    /* The context points to the feeds from here on, so they live as long as it does. */
    if (!pointer || PyObject_SetAttr(context, name_feeds, arrays) < 0) goto back;
    if (!training) PyList_SetItem(self->last, 0, Py_NewRef(context));
    int status, fine = 1;
    if (rows) self->resize(pointer, rows);
    Py_BEGIN_ALLOW_THREADS;
    status = self->launch(pointer, data, training, seed, self->step_count, rate, self->seconds);
    Py_END_ALLOW_THREADS;
    if (status != PF_DONE) {
        PyObject *none = PyObject_CallFunction(self->carry_on, "iOOKdi", status, context,
                                               self->state, seed, rate, training);
        fine = none != NULL;
        Py_XDECREF(none);
    }
    if (fine) result = training ? loss_of(self, pointer) : results_of(self, context, rows, out);
    if (!result)
        give_up(self, context, pointer, training);
    else if (training)
        PyList_SetItem(self->last, 0, Py_NewRef(context));
back:
    give_back(self, context);
    return result;
}

/* A seed, which may be an integer of NumPy's too. */
static unsigned long long seed_of(PyObject *seed) {
    if (PyLong_Check(seed)) return PyLong_AsUnsignedLongLong(seed);
    PyObject *index = PyNumber_Index(seed);
    const unsigned long long number = index ? PyLong_AsUnsignedLongLong(index) : 0;
    Py_XDECREF(index);
    return number;
}

static PyObject *run(Launcher *self, PyObject *feed, int checked, int training, PyObject *seed,
                     double rate, PyObject *out) {
    void *few[FEW], **data = few;
    const unsigned long long number = seed_of(seed);
    if (PyErr_Occurred()) return NULL;
    if (self->count > FEW && !(data = PyMem_Malloc((size_t)self->count * sizeof *data)))
        return PyErr_NoMemory();
    Py_ssize_t rows;
    PyObject *result = NULL, *arrays = take_feeds(self, feed, checked, &rows, data);
    if (arrays)
        result = run_with(self, arrays, data, rows, training, number, rate, out);
    else if (!PyErr_Occurred())
        result = Py_NewRef(Py_None);
    Py_XDECREF(arrays);
    if (data != few) PyMem_Free(data);
    return result;
}

static int has_arguments(Py_ssize_t count, Py_ssize_t wanted) {
    if (count != wanted) PyErr_Format(PyExc_TypeError, "takes %zd arguments", wanted);
    return count == wanted;
}

static PyObject *launcher_step(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    if (!has_arguments(count, 4)) return NULL;
    const double rate = PyFloat_AsDouble(arguments[2]);
    if (PyErr_Occurred()) return NULL;
    return run((Launcher *)self, arguments[0], arguments[3] == Py_True, 1, arguments[1], rate,
               Py_None);
}

static PyObject *launcher_run(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    if (!has_arguments(count, 4)) return NULL;
    return run((Launcher *)self, arguments[0], arguments[3] == Py_True, 0, arguments[1], 0,
               arguments[2]);
}

static PyObject *launcher_matches(PyObject *object, PyObject *feed) {
    Launcher *self = (Launcher *)object;
    void **data = PyMem_Malloc((size_t)(self->count + 1) * sizeof *data);
    if (!data) return PyErr_NoMemory();
    Py_ssize_t rows;
    PyObject *arrays = take_feeds(self, feed, 0, &rows, data);
    PyMem_Free(data);
    if (!arrays && PyErr_Occurred()) return NULL;
    Py_XDECREF(arrays);
    return PyBool_FromLong(arrays != NULL);
}

/* ---- the module ---- */

static PyMethodDef methods[] = {
    {"step", (PyCFunction)(void (*)(void))launcher_step, METH_FASTCALL,
     "step(feed, seed, rate, checked): take a training step and return the loss, or return None "
     "for a feed that is neither checked nor like those that were."},
    {"run", (PyCFunction)(void (*)(void))launcher_run, METH_FASTCALL,
     "run(feed, seed, out, checked): run forward and return the results, or None as `step` does."},
    {"matches", launcher_matches, METH_O,
     "matches(feed): whether a feed is like those that were checked."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, launcher_new},
    {Py_tp_dealloc, launcher_free},
    {Py_tp_traverse, launcher_traverse},
    {Py_tp_clear, launcher_clear},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyframe._launcher.Launcher",
    .basicsize = sizeof(Launcher),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static int fill(PyObject *module) {
    PyObject *numpy = PyImport_ImportModule("numpy");
    ndarray = numpy ? PyObject_GetAttrString(numpy, "ndarray") : NULL;
    Py_XDECREF(numpy);
    name_dtype = PyUnicode_InternFromString("dtype");
    name_feeds = PyUnicode_InternFromString("feeds");
    name_address = PyUnicode_InternFromString("address");
    name_places = PyUnicode_InternFromString("places");
    name_copy = PyUnicode_InternFromString("copy");
    name_pop = PyUnicode_InternFromString("pop");
    if (PyErr_Occurred()) return -1;
    PyObject *type = PyType_FromSpec(&spec);
    if (!type) return -1;
    const int status = PyModule_AddObjectRef(module, "Launcher", type);
    Py_DECREF(type);
    return status;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_launcher",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__launcher(void);
PyMODINIT_FUNC PyInit__launcher(void) { return PyModuleDef_Init(&definition); }
