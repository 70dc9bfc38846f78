/* module_sockets.c - one call that writes to many sockets, for the bridge. No segment is read here. */
#include <errno.h>
#include <sys/socket.h>

#include "module.h"

/* How much of the bytes the kernel takes now, without waiting. 0 after an error too: who writes the rest is
 * told of it. */
static Py_ssize_t sockets_send(int fd, PyObject *data)
{
    ssize_t taken =
        send(fd, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL);
    return taken > 0 ? taken : 0;
}

/* Every item is checked before anything is sent: a socket gets all of its bytes, or there is an error. */
static bool sockets_checked(PyObject *fds, PyObject *data)
{
    if (!PyList_CheckExact(fds) || !PyList_CheckExact(data) ||
        PyList_GET_SIZE(fds) != PyList_GET_SIZE(data)) {
        fail(PyExc_TypeError, "send_each takes two lists of one length");
        return false;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fds); i++)
        if (!PyLong_CheckExact(PyList_GET_ITEM(fds, i)) || !PyBytes_CheckExact(PyList_GET_ITEM(data, i))) {
            fail(PyExc_TypeError, "send_each takes descriptors and bytes");
            return false;
        }
    return true;
}

/* send_each(descriptors, data). No Python code runs between the check and the last send, so nobody changes
 * the lists. A descriptor below 0, or too large for one, is passed over. */
PyObject *module_send_each(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n != 2)
        return fail(PyExc_TypeError, "send_each takes 2 arguments, not %zd", n);
    if (!sockets_checked(args[0], args[1]))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(args[0]);
    uint32_t *taken = PyMem_Calloc(count ? (size_t)count : 1, sizeof *taken);
    if (!taken)
        return PyErr_NoMemory();
    bool all = true;
    for (Py_ssize_t i = 0; i < count; i++) {
        int overflow;
        long fd = PyLong_AsLongAndOverflow(PyList_GET_ITEM(args[0], i), &overflow);
        PyObject *data = PyList_GET_ITEM(args[1], i);
        if (fd >= 0 && fd <= INT_MAX)
            taken[i] = (uint32_t)sockets_send((int)fd, data);
        all = all && taken[i] == PyBytes_GET_SIZE(data);
    }
    PyObject *answer = all ? Py_NewRef(Py_None) : PyList_New(count);
    for (Py_ssize_t i = 0; answer && !all && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLong(taken[i]);
        if (!number) {
            Py_DECREF(answer);
            answer = NULL;
            break;
        }
        PyList_SET_ITEM(answer, i, number);
    }
    PyMem_Free(taken);
    return answer;
}
