"""What all tests share: how many examples the generated ones try."""

import os

from hypothesis import HealthCheck, settings

# A generated test that is slow on a busy machine has not failed: no deadline. `make fuzz` asks for many
# examples.
settings.register_profile(
    "cachee",
    deadline=None,
    max_examples=int(os.environ.get("CACHEE_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("cachee")
