/* The one file that knows of Python, and of NumPy: a type whose objects run a program in a single
 * call, one for methods that ask them first, and the base of what they run.
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
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

#include "plan.h"

/* A feed of up to this many arrays needs no memory of its own. */
enum { FEW = 16 };

/* In the headers from Python 3.12 on; what they stand for is as old as the stable ABI in use. */
#ifndef Py_TPFLAGS_HAVE_VECTORCALL
#define Py_TPFLAGS_HAVE_VECTORCALL (1UL << 11)
typedef PyObject *(*vectorcallfunc)(PyObject *, PyObject *const *, size_t, PyObject *);
#endif

/* A new reference to an item of a list, which other threads may be changing. */
#ifdef Py_GIL_DISABLED
#define new_item PyList_GetItemRef
#else
#define new_item(list, i) Py_XNewRef(PyList_GetItem(list, i))
#endif

/* What NumPy's binary interface, of the major versions 1 and 2, fixes: where an array has what, and
 * by which number its table has a function. So a look at an array is no call, and a new one takes a
 * third of the time of `ndarray.copy`. */
typedef struct {
    PyObject_HEAD char *data;
    int ndim;
    Py_ssize_t *shape, *strides;
    PyObject *base, *dtype;
    int flags;
} Array;
enum { C_CONTIGUOUS = 1, WRITEABLE = 0x400, GET_ABI_VERSION = 0, NEW_FROM_DTYPE = 94 };
typedef unsigned get_abi_version_function(void);
typedef PyObject *new_function(PyTypeObject *type, PyObject *dtype, int ndim,
                               const Py_ssize_t *shape, const Py_ssize_t *strides, void *data,
                               int flags, PyObject *from); /* takes the reference to the dtype */

static PyObject *ndarray, *bound_method, *name_launcher;
static PyTypeObject *launcher_type;
static new_function *new_array;

/* What a Launcher reads of a context: the base of Context in pyframe/engine/program.py. */
typedef struct {
    PyObject_HEAD unsigned long long address; /* of the pf_context */
    int taken;                                /* by a thread */
    PyObject *feeds;                          /* the arrays that its bases point to */
    PyObject *places;                         /* a list: where each output is, or None */
} Running;

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
    long long bytes; /* of the one output of a run, and of the most rows; -1: it gives a list */
    int cost_bits, grows; /* the first output, with the rows */
    Py_ssize_t most;      /* rows that a feed may have; 0: their number is among the shapes */
    Py_ssize_t count;     /* of feeds: their keys, dtypes and shapes */
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

/* Launcher(functions, step_count, cost, cost_bits, most, grows, seconds, bytes, keys, dtypes,
 * shapes, idle, borrow, last, carry_on, collect, busy_error, state): see
 * pyframe/native/launcher.py. */
static PyObject *launcher_new(PyTypeObject *type, PyObject *arguments, PyObject *options) {
    PyObject *functions[4], *step_count, *shapes;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Launcher *self = (Launcher *)allocate(type, 0);
    if (!self) return NULL;
    long long cost;
    if ((options && PyDict_Size(options)) ||
        !PyArg_ParseTuple(arguments, "(OOOO)OLinpdLO!O!O!O!OO!OOOO:Launcher", &functions[0],
                          &functions[1], &functions[2], &functions[3], &step_count, &cost,
                          &self->cost_bits, &self->most, &self->grows, &self->seconds, &self->bytes,
                          &PyTuple_Type, &self->keys, &PyTuple_Type, &self->dtypes, &PyTuple_Type,
                          &shapes, &PyList_Type, &self->idle, &self->borrow, &PyList_Type,
                          &self->last, &self->carry_on, &self->collect, &self->busy_error,
                          &self->state)) {
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

/* Frees the memory of an object that refers to nothing any more. */
static void release(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static void launcher_free(PyObject *object) {
    PyObject_GC_UnTrack(object);
    launcher_clear(object);
    PyMem_Free(((Launcher *)object)->extents);
    release(object);
}

static void running_free(PyObject *object) {
    Py_XDECREF(((Running *)object)->feeds);
    Py_XDECREF(((Running *)object)->places);
    release(object);
}

/* ---- feeds ---- */

static int is_plain(PyObject *object) { return (PyObject *)Py_TYPE(object) == ndarray; }

/* Whether an array of `ndim` axes has the extents of a shape, those before `first` set aside. */
static int has_shape(const Array *array, int first, Py_ssize_t ndim, const Py_ssize_t *shape) {
    for (Py_ssize_t i = first; i < ndim; i++)
        if (array->shape[i] != shape[i]) return 0;
    return 1;
}

/* Whether an array is contiguous and has the dtype of feed number i, which is compared as an
 * object, and the extents that follow *at, which moves on behind them. The rows are those of the
 * feeds before, if there are any; they are told in any case. */
static int fits(const Launcher *self, const Array *array, Py_ssize_t i, const Py_ssize_t **at,
                Py_ssize_t *rows) {
    const Py_ssize_t ndim = *(*at)++, before = *rows;
    const Py_ssize_t *shape = *at;
    *at += ndim;
    if (array->ndim != ndim) return 0;
    const int grows = ndim > 0 && shape[0] == -1;
    if (grows) *rows = array->shape[0];
    return array->dtype == PyTuple_GetItem(self->dtypes, i) && array->flags & C_CONTIGUOUS &&
           (!grows || (before ? before == *rows : *rows >= 2 && *rows <= self->most)) &&
           has_shape(array, grows, ndim, shape);
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
        PyObject *array = PyObject_GetItem(feed, PyTuple_GetItem(self->keys, i));
        if (array) PyTuple_SetItem(arrays, i, array);
        if (!array && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear(); /* another key */
        if (!array || !((checked || is_plain(array)) &&
                        (fits(self, (Array *)array, i, &extents, rows) || checked)))
            Py_CLEAR(arrays);
        else
            data[i] = ((Array *)array)->data;
    }
    return arrays;
}

/* ---- a run ---- */

static int take(PyObject *context) {
    return !__atomic_exchange_n(&((Running *)context)->taken, 1, __ATOMIC_ACQUIRE);
}

static void let_go(PyObject *context) {
    __atomic_store_n(&((Running *)context)->taken, 0, __ATOMIC_RELEASE);
}

/* A context that nobody uses: one of the list, or a new one that is not yet in it. */
static PyObject *borrow(Launcher *self, int *is_new) {
    for (Py_ssize_t i = 0; i < PyList_Size(self->idle); i++) {
        PyObject *context = new_item(self->idle, i);
        if (context && take(context)) return context;
        Py_XDECREF(context);
    }
    PyErr_Clear(); /* the list has just become shorter */
    *is_new = 1;
    return PyObject_CallNoArgs(self->borrow);
}

static PyObject *loss_of(Launcher *self, const pf_context *pointer) {
    const void *loss = self->data(pointer, self->cost);
    return PyFloat_FromDouble(self->cost_bits == 32 ? (double)*(const float *)loss
                                                    : *(const double *)loss);
}

/* The results of a run: copies, or put where `out` says. */
static PyObject *results_of(Launcher *self, PyObject *context, Py_ssize_t rows, PyObject *out) {
    PyObject *place = self->bytes < 0 ? NULL : PyList_GetItem(((Running *)context)->places, 0);
    if (place && place != Py_None) { /* the everyday case; a value that lies in the feed has none */
        const Array *from = (const Array *)place, *to = (const Array *)out;
        long long bytes = self->bytes;
        Py_ssize_t shape[PF_MAX_NDIM];
        for (int i = 0; i < from->ndim; i++) shape[i] = from->shape[i];
        if (self->grows) { /* it is as long as for the most rows */
            shape[0] = shape[0] / self->most * rows;
            bytes = bytes / self->most * rows;
        }
        PyObject *result = NULL;
        if (out == Py_None)
            result = new_array((PyTypeObject *)ndarray, Py_NewRef(from->dtype), from->ndim, shape,
                               NULL, NULL, 0, NULL);
        else if (is_plain(out) && to->dtype == from->dtype && to->ndim == from->ndim &&
                 (~to->flags & (C_CONTIGUOUS | WRITEABLE)) == 0 &&
                 has_shape(to, 0, from->ndim, shape))
            result = Py_NewRef(out);
        if (result) memmove(((Array *)result)->data, from->data, (size_t)bytes);
        if (result || out == Py_None) return result;
    }
    return PyObject_CallFunction(self->collect, "OOi", context, out, self->bytes >= 0);
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

/* Gives a context back, with whatever exception there is. */
static void give_back(Launcher *self, PyObject *context, int is_new) {
    PyObject *type, *value, *trace;
    let_go(context);
    if (is_new) {
        PyErr_Fetch(&type, &value, &trace);
        if (PyList_Append(self->idle, context) < 0) PyErr_Clear(); /* then it is lost, and freed */
        PyErr_Restore(type, value, trace);
    }
    Py_DECREF(context);
}

/* Runs a context over the arrays whose elements `data` points to. */
static PyObject *run_with(Launcher *self, PyObject *arrays, void *const *data, Py_ssize_t rows,
                          int training, unsigned long long seed, double rate, PyObject *out) {
    int is_new = 0;
    PyObject *context = borrow(self, &is_new), *result = NULL;
    if (!context) return NULL;
    pf_context *pointer = (pf_context *)(uintptr_t)((Running *)context)->address;
    /* The context points to the feeds from here on, so they live as long as it does. */
    PyObject *before = ((Running *)context)->feeds;
    ((Running *)context)->feeds = Py_NewRef(arrays);
    Py_XDECREF(before);
    if (!training) PyList_SetItem(self->last, 0, Py_NewRef(context));
    if (rows) self->resize(pointer, rows);
    /* What is over at once keeps the interpreter, whose lock takes as long as a small layer. */
    int fine = 1, status = self->launch(pointer, data, training | PF_BRIEFLY, seed,
                                        self->step_count, rate, self->seconds);
    if (status == PF_LATER) {
        Py_BEGIN_ALLOW_THREADS;
        status = self->launch(pointer, data, training, seed, self->step_count, rate, self->seconds);
        Py_END_ALLOW_THREADS;
    }
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
    give_back(self, context, is_new);
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

/* Runs forward for the only input of a program, with the seed of plans that were given none. NULL
 * without an exception: the input has another form. */
static PyObject *run_for(Launcher *self, PyObject *array) {
    const Py_ssize_t *extents = self->extents;
    Py_ssize_t rows = 0;
    if (self->count != 1 || !is_plain(array) || !fits(self, (Array *)array, 0, &extents, &rows))
        return NULL;
    PyObject *arrays = PyTuple_Pack(1, array), *result = NULL;
    void *data = ((Array *)array)->data;
    if (arrays) result = run_with(self, arrays, &data, rows, 0, 0, 0, Py_None);
    Py_XDECREF(arrays);
    return result;
}

/* ---- a method with a short way ---- */

/* Stands for a function of a class, whose attributes it has. Called with an array and nothing else,
 * it asks the Launcher that its object has as `_launcher`, and only then the function. */
typedef struct {
    PyObject_HEAD vectorcallfunc call;
    PyObject *function, *references; /* weak ones to it, as of weakref.WeakMethod */
} Method;

static PyObject *method_call(PyObject *self, PyObject *arguments, PyObject *options) {
    return PyObject_Call(((Method *)self)->function, arguments, options);
}

static PyObject *method_vectorcall(PyObject *self, PyObject *const *arguments, size_t flagged,
                                   PyObject *names) {
    const Py_ssize_t count = (Py_ssize_t)(flagged & SIZE_MAX >> 1); /* the top bit is a flag */
    PyObject *result = NULL;
    if (count == 2 && !names) {
        PyObject *launcher = PyObject_GetAttr(arguments[0], name_launcher);
        if (!launcher && PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        else if (launcher && Py_TYPE(launcher) == launcher_type)
            result = run_for((Launcher *)launcher, arguments[1]);
        Py_XDECREF(launcher);
        if (result || PyErr_Occurred()) return result;
    }
    PyObject *all = PyTuple_New(count), *options = names ? PyDict_New() : NULL;
    for (Py_ssize_t i = 0; all && i < count; i++) PyTuple_SetItem(all, i, Py_NewRef(arguments[i]));
    for (Py_ssize_t i = 0; options && i < PyTuple_Size(names); i++)
        PyDict_SetItem(options, PyTuple_GetItem(names, i), arguments[count + i]);
    if (!PyErr_Occurred()) result = method_call(self, all, options);
    Py_XDECREF(all);
    Py_XDECREF(options);
    return result;
}

static PyObject *method_new(PyTypeObject *type, PyObject *arguments, PyObject *options) {
    PyObject *function;
    (void)options;
    if (!PyArg_ParseTuple(arguments, "O:Method", &function)) return NULL;
    Method *self = (Method *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) return NULL;
    self->call = method_vectorcall;
    self->function = Py_NewRef(function);
    return (PyObject *)self;
}

static PyObject *method_get(PyObject *self, PyObject *object, PyObject *type) {
    (void)type;
    return object ? PyObject_CallFunctionObjArgs(bound_method, self, object, NULL)
                  : Py_NewRef(self);
}

static void method_free(PyObject *self) {
    if (((Method *)self)->references) PyObject_ClearWeakRefs(self);
    Py_DECREF(((Method *)self)->function);
    release(self);
}

static PyObject *method_attribute(PyObject *self, PyObject *name) {
    return PyObject_GetAttr(((Method *)self)->function, name);
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

static PyType_Slot launcher_slots[] = {
    {Py_tp_new, launcher_new},
    {Py_tp_dealloc, launcher_free},
    {Py_tp_traverse, launcher_traverse},
    {Py_tp_clear, launcher_clear},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyObject *running_take(PyObject *self, PyObject *none) {
    (void)none;
    return PyBool_FromLong(take(self));
}

static PyMethodDef running_methods[] = {
    {"take", running_take, METH_NOARGS, "take(): return whether it was free, and now is not."},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef running_members[] = {
    {"address", T_ULONGLONG, offsetof(Running, address), 0, NULL},
    {"taken", T_INT, offsetof(Running, taken), 0, NULL},
    {"feeds", T_OBJECT, offsetof(Running, feeds), 0, NULL},
    {"places", T_OBJECT, offsetof(Running, places), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot running_slots[] = {
    {Py_tp_dealloc, running_free},
    {Py_tp_members, running_members},
    {Py_tp_methods, running_methods},
    {0, NULL},
};

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Method, call), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Method, references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot method_slots[] = {
    {Py_tp_new, method_new},
    {Py_tp_dealloc, method_free},
    {Py_tp_call, method_call},
    {Py_tp_descr_get, method_get},
    {Py_tp_getattro, method_attribute},
    {Py_tp_members, method_members},
    {0, NULL},
};

static PyType_Spec specs[] = {
    {"pyframe._launcher.Launcher", sizeof(Launcher), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
     launcher_slots},
    {"pyframe._launcher.Running", sizeof(Running), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
     running_slots},
    {"pyframe._launcher.Method", sizeof(Method), 0,
     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, method_slots},
};

/* An attribute of a module. */
static PyObject *import(const char *module, const char *name) {
    PyObject *found = PyImport_ImportModule(module);
    PyObject *attribute = found ? PyObject_GetAttrString(found, name) : NULL;
    Py_XDECREF(found);
    return attribute;
}

static int find_numpy(void) {
    PyObject *capsule = import("numpy._core._multiarray_umath", "_ARRAY_API");
    void **table = capsule ? PyCapsule_GetPointer(capsule, NULL) : NULL;
    Py_XDECREF(capsule);
    if (!table) return -1;
    const unsigned major = ((get_abi_version_function *)table[GET_ABI_VERSION])() >> 24;
    new_array = (new_function *)table[NEW_FROM_DTYPE];
    ndarray = import("numpy", "ndarray");
    if (major == 1 || major == 2) return 0;
    PyErr_Format(PyExc_ImportError, "NumPy has binary interface %u; this pyframe knows 1 and 2",
                 major);
    return -1;
}

static int fill(PyObject *module) {
    name_launcher = PyUnicode_InternFromString("_launcher");
    bound_method = import("types", "MethodType");
    if (find_numpy() < 0) return -1;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromSpec(&specs[i]);
        if (!type || PyModule_AddObjectRef(module, strrchr(specs[i].name, '.') + 1, type) < 0)
            return -1;
        if (i == 0)
            launcher_type = (PyTypeObject *)type; /* this keeps it */
        else
            Py_DECREF(type);
    }
    return PyErr_Occurred() ? -1 : 0;
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
