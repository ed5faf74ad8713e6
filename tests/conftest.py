"""How the property tests run: the same examples every time, unless ``HYPOTHESIS_PROFILE=explore`` looks for new ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}

settings.register_profile("ci", max_examples=25, derandomize=True, database=None, **COMMON)
settings.register_profile("explore", max_examples=500, print_blob=True, **COMMON)
settings.register_profile(
    "find", max_examples=25, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate], **COMMON
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
