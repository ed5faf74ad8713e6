"""The examples for users of JAX run, and their own comparison with JAX holds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples" / "jax"

NEEDS = {
    "equinox_layer.py": ("jax", "equinox", "optax"),
    "flax_s5.py": ("jax", "flax", "optax"),
    "gru_drop_in.py": ("jax", "equinox"),
}


@pytest.mark.parametrize("example", NEEDS)
def test_example_agrees_with_jax(example: str, tmp_path: Path) -> None:
    for module in NEEDS[example]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; the example is for those who have it")
    steps = [] if example == "gru_drop_in.py" else ["--steps", "5"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "JAX_PLATFORMS": "cpu",
        # The programs are small and run once: compiling them is what takes the time.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), "--folder", str(tmp_path), *steps],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "of the largest output" in done.stdout
    assert any(tmp_path.iterdir())


def test_every_example_is_tested() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text()}
    assert programs == set(NEEDS)
