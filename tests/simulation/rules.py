"""The rules, each as a switch (stub)."""
from contextlib import contextmanager
RULES: dict = {}
@contextmanager
def without(name):
    yield
def first_failure(name, n):
    return None, None
