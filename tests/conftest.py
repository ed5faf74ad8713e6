"""How property tests run: the same examples every time; ``HYPOTHESIS_PROFILE=explore`` looks for new ones. Commands."""

from __future__ import annotations

import importlib
import os
import pkgutil

import pytest
import ssmrt
from command_line import Run
from hypothesis import HealthCheck, Phase, settings
from ssmrt.cli import main

# Hypothesis draws on constants in those of the package's modules that are loaded: all are, whatever is collected, but
# for the two that import a framework.
for module in pkgutil.walk_packages(ssmrt.__path__, "ssmrt."):
    if module.name not in ("ssmrt.__main__", "ssmrt.jax", "ssmrt.torch"):
        importlib.import_module(module.name)

COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
SAME = settings(COMMON, max_examples=25, derandomize=True, database=None)

settings.register_profile("ci", SAME)
# Whole models take long to shrink.
settings.register_profile("unshrunk", SAME, phases=[Phase.explicit, Phase.generate])
# An emulated processor takes a minute for what another does in two seconds.
settings.register_profile("emulated", SAME, max_examples=10)
settings.register_profile("explore", COMMON, max_examples=500, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in this process."""
    monkeypatch.delenv("SSMRT_TRACEBACK", raising=False)

    def call(*argv: object) -> tuple[int, str, str]:
        try:
            code = main([str(word) for word in argv])
        except SystemExit as leaving:
            # argparse leaves by itself.
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call
