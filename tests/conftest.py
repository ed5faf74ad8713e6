"""How property tests run: the same examples every time; ``HYPOTHESIS_PROFILE=explore`` looks for new ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
SAME = settings(COMMON, max_examples=25, derandomize=True, database=None)

settings.register_profile("ci", SAME)
# Whole models take long to shrink.
settings.register_profile("unshrunk", SAME, phases=[Phase.explicit, Phase.generate])
settings.register_profile("explore", COMMON, max_examples=500, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
