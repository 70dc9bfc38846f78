"""How gunicorn serves the shop: `gunicorn app:app` in this folder reads this file by itself."""

bind = "127.0.0.1:8000"
workers = 4
worker_class = "uvicorn_worker.UvicornWorker"  # the maintained package; uvicorn.workers is deprecated for it
preload_app = True  # Cachee is fork-safe: each worker attaches for itself in the at-fork handler
keepalive = 30
control_socket_disable = True  # since gunicorn 25; unknown names are ignored by older ones
