"""No verb reads the segment after a point where Python code may have closed it or attached it to another.

The core is built with ``CACHEE_REENTRY`` (``core/module_reentry.h``), and ``reentry.py`` runs with it on the
oldest and the newest Python of this machine that the package supports. They differ in what runs Python code:
before 3.12, the collector does so at each container that is made.
"""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests import machine

ROOT = Path(__file__).resolve().parent.parent.parent
CORE = ROOT / "cachee_shm" / "core"
DRIVER = Path(__file__).with_name("reentry.py")
OLDEST, NEWEST = 10, 14
ASK = "import sysconfig as s; print(s.get_path('include')); print(s.get_config_var('EXT_SUFFIX'))"

# They run nothing: they look at what is there, or make an object that the collector does not track.
# PyObject_Hash and PyUnicode_AsUTF8AndSize are asked of a str or bytes alone. The latter raises at first
# only, before a verb enters.
QUIET = """
    PyBool_Check PyBool_FromLong PyByteArray_AS_STRING PyByteArray_CheckExact PyByteArray_GET_SIZE
    PyBytes_AS_STRING PyBytes_Check PyBytes_CheckExact PyCode_Check
    PyCoro_CheckExact PyGen_CheckExact
    PyBytes_FromStringAndSize PyBytes_GET_SIZE PyDict_Check PyDict_CheckExact PyDict_Next
    PyErr_ExceptionMatches PyErr_Fetch PyErr_NoMemory PyErr_Occurred PyExceptionClass_Check
    PyExceptionInstance_Check PyFloat_AS_DOUBLE PyFloat_Check PyFloat_CheckExact PyFloat_FromDouble
    PyList_CheckExact PyList_GET_ITEM PyList_GET_SIZE PyList_SET_ITEM PyLong_AsLong PyLong_AsLongAndOverflow
    PyLong_Check
    PyLong_CheckExact
    PyLong_FromLong PyLong_FromLongLong PyLong_FromUnsignedLong PyLong_FromUnsignedLongLong
    PyMem_Calloc PyMem_Free PyMem_Malloc PyMem_Realloc PyObject_CheckBuffer PyObject_Free
    PyObject_GC_Track PyObject_GC_UnTrack PyObject_Hash PyObject_TypeCheck PySequence_Check
    PySet_GET_SIZE PyThread_get_thread_ident PyTuple_Check PyTuple_CheckExact PyTuple_GET_ITEM
    PyTuple_GET_SIZE PyTuple_SET_ITEM
    PyUnicode_1BYTE_DATA PyUnicode_AsUCS4Copy PyUnicode_AsUTF8 PyUnicode_AsUTF8AndSize PyUnicode_Check
    PyUnicode_FromKindAndData PyUnicode_FromString Py_UNICODE_ISPRINTABLE
    PyUnicode_KIND PyUnicode_CheckExact PyUnicode_CompareWithASCIIString PyUnicode_DATA
    PyUnicode_GET_LENGTH PyUnicode_IS_COMPACT_ASCII PyUnicode_New Py_IS_TYPE Py_NewRef Py_TYPE
    Py_VISIT Py_XNewRef
"""
# As the module is imported, before there is a segment.
AT_IMPORT = """
    PyContextVar_New PyImport_ImportModule PyObject_New PyObject_SetAttrString PyInit__core
    PyInterpreterState_Get PyInterpreterState_Main PyModuleDef_Init PyModule_AddIntConstant
    PyModule_AddObjectRef PyType_FromSpec
"""


def pythons() -> list[tuple[int, str]]:
    """(minor version, interpreter) of each Python 3 here that has headers and the lock."""
    found = {sys.version_info.minor: sys.executable}
    folders = [*os.get_exec_path(), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    for minor in range(OLDEST, NEWEST + 1):
        for folder in folders:
            path = Path(folder, f"python3.{minor}")
            if minor not in found and path.exists() and _has_headers(path):
                found[minor] = str(path)
    return sorted(found.items())


def _has_headers(python: Path) -> bool:
    asked = subprocess.run([python, "-c", ASK], capture_output=True, text=True)
    return asked.returncode == 0 and Path(asked.stdout.split()[0], "Python.h").exists()


def built(python: str, minor: int) -> Path:
    """The folder of a package whose core calls back; it is compiled where a source is newer."""
    include, suffix = subprocess.run(
        [python, "-c", ASK], capture_output=True, text=True, check=True
    ).stdout.split()
    folder = ROOT / "build" / f"reentry-3.{minor}"
    package = folder / "cachee_shm"
    package.mkdir(parents=True, exist_ok=True)
    for source in (ROOT / "cachee_shm").glob("*.py"):
        link = package / source.name
        if not link.exists():
            link.symlink_to(source)
    core = package / f"_core{suffix}"
    sources = [*CORE.glob("*.c"), *CORE.glob("*.h")]
    if not core.exists() or core.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        flags = ["-mcx16"] if os.uname().machine == "x86_64" else []
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        define = ["-shared", "-fPIC", "-O0", "-g", "-std=gnu11", "-D_GNU_SOURCE", "-DCACHEE_REENTRY", *flags]
        files = map(str, sorted(CORE.glob("*.c")))
        half = core.with_suffix(f".{os.getpid()}")  # a compiler that is killed leaves half a file
        subprocess.run(
            [compiler, *define, "-I", include, *files, "-o", str(half), "-lrt", "-pthread"], check=True
        )
        half.rename(core)
    return folder


FOUND = pythons()
ENDS = [FOUND[0], FOUND[-1]] if len(FOUND) > 1 else FOUND


@pytest.mark.parametrize(("minor", "python"), ENDS, ids=[f"3.{minor}" for minor, _ in ENDS])
def test_a_cache_that_is_closed_or_moved_inside_a_verb_is_never_a_crash(minor: int, python: str) -> None:
    folder = built(python, minor)
    run = subprocess.run([python, "-I", DRIVER, folder], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-300:] + run.stderr[-2000:]
    assert int(run.stdout.split()[-2]) > 500, "the core of this build calls nobody back"


def test_both_the_oldest_and_the_newest_python_are_here() -> None:
    if len(FOUND) == 1:
        machine.skip("second Python", f"only 3.{FOUND[0][0]} of 3.{OLDEST} to 3.{NEWEST}, with headers")


def test_each_function_of_python_that_the_binding_calls_is_known_to_run_code_or_not() -> None:
    hooked = set(re.findall(r"^#define (_?Py\w+)\(", (CORE / "module_reentry.h").read_text(), re.M))
    called = set()
    for source in CORE.glob("module*.[ch]"):
        if source.name != "module_reentry.h":
            text = re.sub(r"/\*.*?\*/", "", source.read_text(), flags=re.S)
            called |= set(re.findall(r"\b(_?Py[A-Za-z]*_\w+)\(", text))
    assert called - hooked - set(QUIET.split()) - set(AT_IMPORT.split()) == set()
    assert not hooked & set(QUIET.split())
