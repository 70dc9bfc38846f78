"""The namespace that the other projects' tests get: they store objects of classes of their own."""

PICKLING = {"host": {"name": "foreign"}, "namespaces": {"test": {"memory": "4MiB", "pickle": True}}}
