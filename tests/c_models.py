"""Exported C, compiled on the host: many models in one program, under the sanitizers and all warnings."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ssmrt.document import Document
from ssmrt.export.c import export_c

Array = NDArray[Any]

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wmissing-prototypes", "-Wshadow", "-Werror"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

_RUN = """\
#include "{name}.h"
static void run_{name}(void)
{{
    static {name}_t model;
    {name}_input x[{guard}_INPUTS];
    float y[{guard}_OUTPUTS];
    {name}_init(&model);
    while (fread(x, sizeof x, 1, stdin) == 1) {{
        {name}_step(&model, x, y);
        fwrite(y, sizeof y, 1, stdout);
    }}
}}
"""

_RUN_BLOCK = """\
static void run_{name}_block(void)
{{
    static {name}_t model;
    {name}_input x[{guard}_BLOCK * {guard}_INPUTS];
    float y[{guard}_BLOCK * {guard}_OUTPUTS];
    {name}_init(&model);
    while (fread(x, sizeof x, 1, stdin) == 1) {{
        {name}_step_block(&model, x, y);
        fwrite(y, sizeof y, 1, stdout);
    }}
}}
"""


class Compiled:
    """Models in one program, by any names; with ``block`` so many samples a call too."""

    def __init__(self, models: Mapping[str, Document], folder: Path, block: int | None = None):
        self.folder = folder
        self.models = dict(models)
        self._names = {name: f"model{i}" for i, name in enumerate(models)}
        main = "#include <stdio.h>\n#include <stdlib.h>\n"
        for name, model in models.items():
            export_c(model, folder, name=self._names[name], method="step" if block is None else "block", block=block)
            for run in [_RUN] if block is None else [_RUN, _RUN_BLOCK]:
                main += run.format(name=self._names[name], guard=self._names[name].upper())
        calls = [f"run_model{i}()" for i in range(len(models))]
        calls += [] if block is None else [f"run_model{i}_block()" for i in range(len(models))]
        cases = "".join(f"        case {i}: {call}; break;\n" for i, call in enumerate(calls))
        main += "int main(int count, char **arguments)\n{\n    switch (count > 1 ? atoi(arguments[1]) : -1) {\n"
        main += cases + "        default: return 2;\n    }\n    return 0;\n}\n"
        (folder / "program.c").write_text(main)
        # One file a model: a compiler takes longer to start than to compile one.
        for name in self._names.values():
            (folder / f"{name}_whole.c").write_text(f'#include "{name}.c"\n#include "{name}_weights.c"\n')
        sources = [f"{name}_whole.c" for name in self._names.values()]
        subprocess.run(
            ["cc", *STRICT, *SANITIZED, "-O0", "-pipe", "program.c", *sources, "-lm", "-o", "program"],
            cwd=folder,
            check=True,
        )

    def push(self, name: str, u: Array, *, blocks: bool = False) -> Array:
        """The answers (length, d_output) to u (length, d_input), or tokens (length,)."""
        model = self.models[name]
        data = u.astype(np.int32 if model.tokens else np.float32).tobytes()
        command = ["./program", str(list(self.models).index(name) + blocks * len(self.models))]
        done = subprocess.run(command, cwd=self.folder, input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return np.frombuffer(done.stdout, np.float32).reshape(len(u), model.d_output)
