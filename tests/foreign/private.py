"""The namespace that the other projects' tests get: they store objects of classes of their own."""

import os

PICKLING = {
    "host": {"name": f"foreign-{os.getpid()}"},
    "namespaces": {"test": {"memory": "4MiB", "pickle": True}},
}
