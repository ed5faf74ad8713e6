"""What stands beside the C in a firmware package: vectors with their answers, a self-test, build files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import ssmrt_version
from .source import Interface, comment, shortest

Array = NDArray[Any]

TOLERANCE = 1e-5
TOLERANCE_FIXED = 0.1

_MAIN = """\
/* Self-test: streams {name}_vectors.h through the model and compares. Returns 0 where all answers are right.
 * Replace it by your own main(); as a library (PlatformIO, CMake) this file is left out. */
#include "{name}.h"
#include "{name}_vectors.h"

static {name}_t model;

/* The greatest error, for a debugger to look at, and what it may be. */
volatile float {name}_error = 0.0f;
volatile float {name}_tolerance = 0.0f;

int main(void)
{{
    static float y[{guard}_OUTPUTS];
    float error = 0.0f, peak = 0.0f;
    {name}_init(&model);
    for (unsigned step = 0; step < {guard}_VECTORS; step++) {{
        {name}_step(&model, {name}_vectors_x + step * {guard}_INPUTS, y);
        for (unsigned i = 0; i < {guard}_OUTPUTS; i++) {{
            const float expected = {name}_vectors_y[step * {guard}_OUTPUTS + i];
            const float size = expected < 0.0f ? -expected : expected;
            const float off = y[i] < expected ? expected - y[i] : y[i] - expected;
            peak = size > peak ? size : peak;
            error = off <= error ? error : off; /* a NaN stays */
        }}
    }}
    {name}_error = error;
    {name}_tolerance = {tolerance}f * peak;
    return error <= {name}_tolerance ? 0 : 1;
}}
"""

_CMAKE = """\
# The models of this folder, each a static library and a self-test.
cmake_minimum_required(VERSION 3.10)
project(ssm C)

file(GLOB headers "${CMAKE_CURRENT_SOURCE_DIR}/*_vectors.h")
foreach(header ${headers})
    get_filename_component(model "${header}" NAME)
    string(REPLACE "_vectors.h" "" model "${model}")
    file(GLOB sources "${model}.c" "${model}_weights.c")
    add_library(${model} STATIC ${sources})
    target_include_directories(${model} PUBLIC "${CMAKE_CURRENT_SOURCE_DIR}")
    set_target_properties(${model} PROPERTIES C_STANDARD 99)
    if(UNIX)
        target_link_libraries(${model} PUBLIC m)
    endif()
endforeach()

# main.c tests the model that was exported last.
file(STRINGS main.c included REGEX "^#include .*_vectors.h")
string(REGEX REPLACE ".*\\"(.*)_vectors.h\\"" "\\\\1" tested "${included}")
add_executable(self_test main.c)
target_link_libraries(self_test PRIVATE ${tested})
enable_testing()
add_test(NAME self_test COMMAND self_test)
"""

_README = """\
# {title}

Written by ssmrt {version}. `{name}.h` has the interface, `{name}.c` the code, `{name}_weights.c` its constants,
`{name}_vectors.h` inputs with their right answers, which `main.c` compares. C99, or C++; no heap; of the C library only
memcpy{logf} and memset.

```c
static {name}_t model;
{name}_init(&model);
for (;;) {{
    {name}_step(&model, x, y); /* {inputs} numbers in, {outputs} out{labels} */
}}
```

- CMake: `cmake -B build && cmake --build build && ctest --test-dir build`
- PlatformIO: put this folder into `lib/`
- by hand: compile `{name}.c` and `{name}_weights.c` with `-O2`{flags}, not with `-ffast-math`

{facts}"""


def vectors(i: Interface, x: Array, y: Array) -> str:
    """``{name}_vectors.h``: x (steps, d_input), or tokens (steps,), and y (steps, d_output)."""
    numbers = map(shortest if i.input_type == "float" else str, x.reshape(-1))
    tables = [
        _table(f"const {i.input_type}", f"{i.name}_vectors_x", numbers),
        _table("const float", f"{i.name}_vectors_y", map(shortest, y.astype(np.float32).reshape(-1))),
    ]
    guard = f"{i.guard}_VECTORS_H"
    return f"""\
/* Inputs of {i.name}.h, one after the other from its start, and the right answers in float64, rounded. */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#define {i.guard}_VECTORS {len(x)}u

{"".join(tables)}
#endif
"""


def _table(kind: str, name: str, numbers: Iterator[str]) -> str:
    rows = []
    row = ""
    for number in numbers:
        if len(row) + len(number) > 110:
            rows.append(row)
            row = ""
        row += number + ","
    rows.append(row)
    return f"static {kind} {name}[] = {{\n" + "\n".join(rows) + "\n};\n"


def files(i: Interface, x: Array, y: Array, flags: tuple[str, ...], facts: str, *, logarithm: bool) -> dict[str, str]:
    """The text of every file beside the C, by name."""
    labels = "" if i.labels is None else f": {comment(', '.join(i.labels))}"
    library = {
        "name": i.name,
        "version": "1.0.0",
        "description": comment(i.title),
        "build": {"srcDir": ".", "includeDir": ".", "srcFilter": "+<*.c> -<main.c>"},
    }
    return {
        f"{i.name}_vectors.h": vectors(i, x, y),
        "main.c": _MAIN.format(
            name=i.name, guard=i.guard, tolerance=TOLERANCE if i.exponent is None else TOLERANCE_FIXED
        ),
        "CMakeLists.txt": _CMAKE,
        "library.json": json.dumps(library, indent=2) + "\n",
        "README.md": _README.format(
            title=comment(i.title),
            version=ssmrt_version(),
            name=i.name,
            inputs=i.d_input,
            outputs=i.d_output,
            labels=labels,
            logf=", logf" if logarithm else "",
            flags="".join(f" {flag}" for flag in flags),
            facts=facts,
        ),
    }
