"""A coherent shared-memory cache for Python web services."""
