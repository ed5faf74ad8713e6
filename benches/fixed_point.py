"""The keyword spotter in fixed point beside float: wrong answers on test clips, on this machine.

    python benches/fixed_point.py test_clips.npz [PROCESSES]

The file has clips of one second, mulaw int8 (clips, 16000), and labels. Calibrated is with the demo's own twelve clips.
Needs a C compiler, cc.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ssmrt
from numpy.typing import NDArray
from ssmrt import demo

Array = NDArray[Any]

HOST = """\
#include <stdio.h>
#include "ssm.h"
int main(void)
{
    static ssm_t model;
    static ssm_input x[SAMPLES * SSM_INPUTS];
    float y[SSM_OUTPUTS];
    while (fread(x, sizeof x, 1, stdin) == 1) {
        ssm_init(&model);
        for (int t = 0; t < SAMPLES; t++)
            ssm_step(&model, x + t * SSM_INPUTS, y);
        fwrite(y, sizeof y, 1, stdout);
    }
    return 0;
}
"""


def clips(path: str) -> tuple[Array, Array]:
    """Samples (clips, length) and labels (clips,)."""
    with np.load(path) as arrays:
        level, labels = arrays["mulaw"] / 127, arrays["labels"]
    return (np.sign(level) * (256 ** np.abs(level) - 1) / 255).astype(np.float32), labels


def program(model: ssmrt.Model, folder: Path, quantize: str, samples: int) -> int:
    """Compiles the model's C as ``host`` in ``folder``; the exponent of its inputs."""
    calibration = np.concatenate([clip.samples for clip in demo.clips()])[:, None]
    ssmrt.export_c(model, folder, quantize=quantize, calibration=calibration)
    (folder / "host.c").write_text(HOST)
    options = ["-std=c99", "-O2", "-static", f"-DSAMPLES={samples}"]
    subprocess.run(["cc", *options, "host.c", "ssm.c", "ssm_weights.c", "-o", "host"], cwd=folder, check=True)
    header = (folder / "ssm.h").read_text()
    return int(header.partition("SSM_INPUT_EXPONENT ")[2].split()[0])


def answers(folder: Path, x: Array, outputs: int, processes: int) -> Array:
    """The last outputs (clips, outputs) of ``host`` for x (clips, length), int16."""
    parts = [folder / f"part{i}" for i in range(processes)]
    for part, some in zip(parts, np.array_split(x, processes), strict=True):
        part.write_bytes(some.tobytes())
    running = []
    for part in parts:
        with part.open("rb") as file:
            running.append(subprocess.Popen([folder / "host"], stdin=file, stdout=subprocess.PIPE))
    found = b"".join(process.communicate()[0] for process in running)
    return np.frombuffer(found, np.float32).reshape(-1, outputs)


def main() -> int:
    """Prints a line for float and for each width of weights."""
    u, labels = clips(sys.argv[1])
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    model = demo.spotter()
    wrong = {"float32": int((model(u[..., None]).argmax(1) != labels).sum())}
    for quantize in ("int16", "int8"):
        with tempfile.TemporaryDirectory() as temporary:
            exponent = program(model, Path(temporary), quantize, u.shape[1])
            x = np.clip(np.rint(u * 2.0**exponent), -32768, 32767).astype(np.int16)
            found = answers(Path(temporary), x, model.d_output, processes)
        wrong[quantize] = int((found.argmax(1) != labels).sum())
    for what, errors in wrong.items():
        print(f"{what}: {errors} of {len(labels)} wrong, {errors - wrong['float32']:+d}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
