"""Exported C, compiled on the host under the sanitizers and all warnings."""

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

_MAIN = """\
#include <stdio.h>
#include "{name}.c"
#include "{name}_weights.c"
#define RUN(call, samples) \\
    while (fread(x, sizeof x[0] * {guard}_INPUTS, samples, stdin) == samples) {{ \\
        call(&model, x, y); \\
        fwrite(y, sizeof y[0] * {guard}_OUTPUTS, samples, stdout); \\
    }}
int main(int count, char **arguments)
{{
    static {name}_t model;
    static {name}_input x[{block} * {guard}_INPUTS];
    static float y[{block} * {guard}_OUTPUTS];
    (void)arguments;
    {name}_init(&model);
    if (count > 1)
        RUN({name}_{call}, {block})
    else
        RUN({name}_step, 1)
    return 0;
}}
"""


class Compiled:
    """Models by any names, each a program when it is first asked; with ``block`` so many samples a call too."""

    def __init__(self, models: Mapping[str, Document], folder: Path, block: int | None = None):
        self.folder = folder
        self.models = dict(models)
        self._block = block

    def push(self, name: str, u: Array, *, blocks: bool = False) -> Array:
        """The answers (length, d_output) to u (length, d_input), or tokens (length,)."""
        model = self.models[name]
        data = u.astype(np.int32 if model.tokens else np.float32).tobytes()
        command = [str(self._program(name)), *(["blocks"] if blocks else [])]
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return np.frombuffer(done.stdout, np.float32).reshape(len(u), model.d_output)

    def _program(self, model: str) -> Path:
        name = f"model{list(self.models).index(model)}"
        program = self.folder / name
        if not program.exists():
            method = "step" if self._block is None else "block"
            export_c(self.models[model], self.folder, name=name, method=method, block=self._block)
            call = "step" if self._block is None else "step_block"
            main = _MAIN.format(name=name, guard=name.upper(), call=call, block=self._block or 1)
            (self.folder / "main.c").write_text(main)
            command = ["cc", *STRICT, *SANITIZED, "-O0", "-pipe", "main.c", "-lm", "-o", name]
            subprocess.run(command, cwd=self.folder, check=True)
        return program
