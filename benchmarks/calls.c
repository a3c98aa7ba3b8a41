/* Calls from Python that do one thing each, through the stable ABI: see calls.py. */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *ndarray, *empty, *shape, *dtype, *template, *name_copy;
static void **numpy_table; /* of NumPy's C interface; number 94 is PyArray_NewFromDescr */

typedef PyObject *new_function(PyTypeObject *, PyObject *, int, const Py_ssize_t *,
                               const Py_ssize_t *, void *, int, PyObject *);

#define CALL(name, ...)                                                                   \
    static PyObject *name(PyObject *self, PyObject *const *arguments, Py_ssize_t count) { \
        (void)self, (void)count;                                                          \
        PyObject *array = arguments[0], *result = NULL;                                   \
        Py_buffer buffer;                                                                 \
        (void)array, (void)buffer;                                                        \
        __VA_ARGS__;                                                                      \
        return result ? result : Py_NewRef(Py_None);                                      \
    }

CALL(nothing, (void)0)
CALL(interpreter_lock, Py_BEGIN_ALLOW_THREADS Py_END_ALLOW_THREADS)
CALL(look_at_buffer, if (!PyObject_GetBuffer(array, &buffer, PyBUF_ND)) PyBuffer_Release(&buffer))
CALL(new_by_numpy_c, const Py_ssize_t extents[] = {1, 1}; Py_INCREF(dtype);
     result = ((new_function *)numpy_table[94])((PyTypeObject *)ndarray, dtype, 2, extents, NULL,
                                                NULL, 0, NULL))
CALL(new_by_empty, result = PyObject_CallFunctionObjArgs(empty, shape, dtype, NULL))
CALL(new_by_ndarray, result = PyObject_CallFunctionObjArgs(ndarray, shape, dtype, NULL))
CALL(new_by_copy, result = PyObject_CallMethodObjArgs(template, name_copy, NULL))

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    METHOD(nothing),      METHOD(interpreter_lock), METHOD(look_at_buffer), METHOD(new_by_numpy_c),
    METHOD(new_by_empty), METHOD(new_by_ndarray),   METHOD(new_by_copy),    {NULL, NULL, 0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "calls", .m_methods = methods};

PyMODINIT_FUNC PyInit_calls(void);
PyMODINIT_FUNC PyInit_calls(void) {
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *core = PyImport_ImportModule("numpy._core._multiarray_umath");
    PyObject *capsule = core ? PyObject_GetAttrString(core, "_ARRAY_API") : NULL;
    if (!numpy || !capsule) return NULL;
    numpy_table = PyCapsule_GetPointer(capsule, NULL);
    ndarray = PyObject_GetAttrString(numpy, "ndarray");
    empty = PyObject_GetAttrString(numpy, "empty");
    shape = Py_BuildValue("(ii)", 1, 1);
    dtype = PyObject_CallMethod(numpy, "dtype", "s", "float32");
    template = PyObject_CallFunctionObjArgs(empty, shape, dtype, NULL);
    name_copy = PyUnicode_InternFromString("copy");
    return PyErr_Occurred() ? NULL : PyModule_Create(&definition);
}
