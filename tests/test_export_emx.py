"""The step graph put through another project's generator of C: same answers, with state in place."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_models import needs_compiler
from cases import relative_error
from export_documents import classifier, inputs, state_spaces
from oracle import run
from ssmrt.document import Document
from ssmrt.export.onnx_export import Options, build

emx: Any = pytest.importorskip("emx_onnx_cgen.compiler", reason="needs emx-onnx-cgen")

MODELS = {
    "classifier": classifier(6, d_output=6),
    "dplr": state_spaces()["dplr"],
    "selective": state_spaces()["selective"],
}


@needs_compiler
@pytest.mark.parametrize("name", MODELS)
def test_graph_is_the_model_in_c_by_emx(name: str, tmp_path: Path) -> None:
    model: Document = MODELS[name]
    proto, contract = build(model, Options(layout="blocks"))
    options = emx.CompilerOptions(
        model_name="graph", large_weight_threshold=0, large_temp_threshold_bytes=0, restrict_arrays=False
    )
    source: str = emx.Compiler(options).compile(proto)
    sizes = [int(np.prod(state.shape)) for state in contract.states]
    states = ", ".join(f"(void *)state{i}" for i in range(len(sizes)))
    main = "#include <stdio.h>\n" + "".join(f"static float state{i}[{size}];\n" for i, size in enumerate(sizes))
    main += (
        "int main(void) { static float x[6], y[6]; while (fread(x, sizeof x, 1, stdin) == 1) {"
        f" graph((void *)x, {states}, (void *)y, {states}); fwrite(y, sizeof y, 1, stdout); }} return 0; }}\n"
    )
    (tmp_path / "graph.c").write_text(source + main)
    command = ["cc", "-O1", "-w", "-fsanitize=address,undefined", "graph.c", "-lm", "-o", "graph"]
    subprocess.run(command, cwd=tmp_path, check=True)
    u = inputs(model, 60)
    done = subprocess.run(["./graph"], cwd=tmp_path, input=u.tobytes(), capture_output=True, check=True)
    found = np.frombuffer(done.stdout, np.float32).reshape(60, 6)
    assert relative_error(found, run(model, u, streamed=True)[0]) < 1e-5
