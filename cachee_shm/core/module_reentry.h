/* module_reentry.h - a build of its own for tests/cachee_shm/test_reentry.py: -DCACHEE_REENTRY. It is never
 * shipped.
 *
 * Each function of Python's that may run Python code is wrapped: when it has returned, a caller's function is
 * called, which may close the cache or attach it anew. Arguments are evaluated before that, as they are where
 * the function itself runs the code. test_reentry.py checks that each function that module*.c calls is
 * named either here or in its list of functions that run no Python code.
 */
#ifndef CACHEE_MODULE_REENTRY_H
#define CACHEE_MODULE_REENTRY_H

void reentry_here(const char *where);                     /* module.c */
PyObject *reentry_hook(PyObject *unused, PyObject *hook); /* module.c: _reentry(callable or None) */

/* Some are macros before 3.13: each of these is what Python.h makes of the name. */
static int (*const reentry_parse)(PyObject *, const char *, ...) = PyArg_ParseTuple;
static PyObject *(*const reentry_build)(const char *, ...) = Py_BuildValue;
static PyObject *(*const reentry_method)(PyObject *, const char *, const char *, ...) = PyObject_CallMethod;
#ifdef PyObject_GC_New
#undef PyObject_GC_New
#endif
static inline void reentry_let_go(PyObject *o) { Py_XDECREF(o); }

#define REENTRY(call)                                                                                        \
    ({                                                                                                       \
        __typeof__(call) reentry_result = (call);                                                            \
        reentry_here(#call);                                                                                 \
        reentry_result;                                                                                      \
    })
#define REENTRY_NOTHING(call)                                                                                \
    ({                                                                                                       \
        call;                                                                                                \
        reentry_here(#call);                                                                                 \
    })
#define REENTRY_LET_GO(o)                                                                                    \
    ({                                                                                                       \
        PyObject *reentry_gone = (PyObject *)(o);                                                            \
        reentry_let_go(reentry_gone);                                                                        \
        if (reentry_gone)                                                                                    \
            reentry_here(#o " is let go");                                                                   \
    })

#undef PyArg_ParseTuple
#undef Py_BuildValue
#undef PyObject_CallMethod
#undef Py_DECREF
#undef Py_XDECREF
#undef Py_CLEAR
#undef Py_SETREF
#undef Py_XSETREF
#define PyArg_ParseTuple(...) REENTRY(reentry_parse(__VA_ARGS__))
#define Py_BuildValue(...) REENTRY(reentry_build(__VA_ARGS__))
#define Py_DECREF(o) REENTRY_LET_GO(o)
#define Py_XDECREF(o) REENTRY_LET_GO(o)
#define Py_CLEAR(o)                                                                                          \
    ({                                                                                                       \
        PyObject *reentry_old = (PyObject *)(o);                                                             \
        (o) = NULL;                                                                                          \
        REENTRY_LET_GO(reentry_old);                                                                         \
    })

#define Py_SETREF(o, value)                                                                                  \
    ({                                                                                                       \
        PyObject *reentry_old = (PyObject *)(o);                                                             \
        (o) = (value);                                                                                       \
        REENTRY_LET_GO(reentry_old);                                                                         \
    })
#define Py_XSETREF(o, value) Py_SETREF(o, value)

#define PyArg_ParseTupleAndKeywords(...) REENTRY(PyArg_ParseTupleAndKeywords(__VA_ARGS__))
#define PyBytes_FromObject(...) REENTRY(PyBytes_FromObject(__VA_ARGS__))
#define PyContextVar_Get(...) REENTRY(PyContextVar_Get(__VA_ARGS__))
#define PyContextVar_Reset(...) REENTRY(PyContextVar_Reset(__VA_ARGS__))
#define PyContextVar_Set(...) REENTRY(PyContextVar_Set(__VA_ARGS__))
#define PyDict_Copy(...) REENTRY(PyDict_Copy(__VA_ARGS__))
#define PyDict_New(...) REENTRY(PyDict_New(__VA_ARGS__))
#define PyDict_SetItem(...) REENTRY(PyDict_SetItem(__VA_ARGS__))
#define PyDict_SetItemString(...) REENTRY(PyDict_SetItemString(__VA_ARGS__))
#define PyErr_Clear() REENTRY_NOTHING(PyErr_Clear())
#define PyErr_Format(...) REENTRY(PyErr_Format(__VA_ARGS__))
#define PyErr_FormatV(...) REENTRY(PyErr_FormatV(__VA_ARGS__))
#define PyErr_NormalizeException(...) REENTRY_NOTHING(PyErr_NormalizeException(__VA_ARGS__))
#define PyErr_Restore(...) REENTRY_NOTHING(PyErr_Restore(__VA_ARGS__))
#define PyErr_SetFromErrno(...) REENTRY(PyErr_SetFromErrno(__VA_ARGS__))
#define PyErr_SetObject(...) REENTRY_NOTHING(PyErr_SetObject(__VA_ARGS__))
#define PyErr_WriteUnraisable(...) REENTRY_NOTHING(PyErr_WriteUnraisable(__VA_ARGS__))
#define PyException_SetTraceback(...) REENTRY(PyException_SetTraceback(__VA_ARGS__))
#define PyFloat_AsDouble(...) REENTRY(PyFloat_AsDouble(__VA_ARGS__))
#define PyIter_Send(...) REENTRY(PyIter_Send(__VA_ARGS__))
#define PyList_Append(...) REENTRY(PyList_Append(__VA_ARGS__))
#define PyList_GetSlice(...) REENTRY(PyList_GetSlice(__VA_ARGS__))
#define PyList_New(...) REENTRY(PyList_New(__VA_ARGS__))
#define PyList_SetItem(...) REENTRY(PyList_SetItem(__VA_ARGS__))
#define PyLong_AsLongLong(...) REENTRY(PyLong_AsLongLong(__VA_ARGS__))
#define PyLong_AsLongLongAndOverflow(...) REENTRY(PyLong_AsLongLongAndOverflow(__VA_ARGS__))
#define PyLong_AsUnsignedLong(...) REENTRY(PyLong_AsUnsignedLong(__VA_ARGS__))
#define PyLong_AsUnsignedLongLong(...) REENTRY(PyLong_AsUnsignedLongLong(__VA_ARGS__))
#define PyMapping_Items(...) REENTRY(PyMapping_Items(__VA_ARGS__))
#define PyObject_AsFileDescriptor(...) REENTRY(PyObject_AsFileDescriptor(__VA_ARGS__))
#define PyObject_CallMethod(...) REENTRY(reentry_method(__VA_ARGS__))
#define PyObject_CallNoArgs(...) REENTRY(PyObject_CallNoArgs(__VA_ARGS__))
#define PyObject_CallObject(...) REENTRY(PyObject_CallObject(__VA_ARGS__))
#define PyObject_CallOneArg(...) REENTRY(PyObject_CallOneArg(__VA_ARGS__))
#define PyObject_GC_New(type, of) REENTRY((type *)_PyObject_GC_New(of))
#define PyObject_GetAttrString(...) REENTRY(PyObject_GetAttrString(__VA_ARGS__))
#define PyObject_GetItem(...) REENTRY(PyObject_GetItem(__VA_ARGS__))
#define PyObject_HasAttrString(...) REENTRY(PyObject_HasAttrString(__VA_ARGS__))
#define PyObject_IsTrue(...) REENTRY(PyObject_IsTrue(__VA_ARGS__))
#define PyObject_Repr(...) REENTRY(PyObject_Repr(__VA_ARGS__))
#define PySequence_List(...) REENTRY(PySequence_List(__VA_ARGS__))
#define PySequence_Tuple(...) REENTRY(PySequence_Tuple(__VA_ARGS__))
#define PySet_Add(...) REENTRY(PySet_Add(__VA_ARGS__))
#define PySet_New(...) REENTRY(PySet_New(__VA_ARGS__))
#define PySet_Pop(...) REENTRY(PySet_Pop(__VA_ARGS__))
#define PyTuple_New(...) REENTRY(PyTuple_New(__VA_ARGS__))
#define PyUnicode_FromFormat(...)                                                                            \
    REENTRY(PyUnicode_FromFormat(__VA_ARGS__)) /* %R, %S and %A call the object's own */
#define PyUnicode_DecodeUTF8(...) REENTRY(PyUnicode_DecodeUTF8(__VA_ARGS__))

#endif
