"""The streaming interface around a generated graph: a header, a source and an example."""

from __future__ import annotations

from math import prod

from .builder import State
from .c_memory import Placed
from .contract import Contract

_HEADER = """\
/* {title}
 *
 *   {name}_t model;                    static, or wherever {bytes} bytes are free
 *   {name}_init(&model);               once
 *   {name}_step(&model, x, y);         for every {what}
 *   {name}_reset(&model);              before another sequence
 *
 * No other memory is used but stack. Several models may run side by side.
 */
#ifndef {guard}_H
#define {guard}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Samples a call; numbers a sample. */
#define {guard}_SAMPLES {samples}
#define {guard}_INPUTS {inputs}
#define {guard}_OUTPUTS {outputs}

typedef {x_type} {name}_input;

typedef struct {{
{members}
}} {name}_t;

void {name}_init({name}_t *model);
void {name}_reset({name}_t *model);
void {name}_step({name}_t *model, const {name}_input x[{guard}_SAMPLES * {guard}_INPUTS],
{indent}float y[{guard}_SAMPLES * {guard}_OUTPUTS]);

#ifdef __cplusplus
}}
#endif

#endif
"""

_SOURCE = """\
#include "{name}.h"

#include <string.h>

{prototype}; /* {name}_graph.c */
{starts}
void {name}_init({name}_t *model)
{{
    memset(model, 0, sizeof *model);{begin}
}}

void {name}_reset({name}_t *model)
{{
{resets}
}}

void {name}_step({name}_t *model, const {name}_input x[{guard}_SAMPLES * {guard}_INPUTS],
{indent}float y[{guard}_SAMPLES * {guard}_OUTPUTS])
{{
    /* Each next state takes the place of the old: the graph reads the old one before. */
    {name}_graph({arguments});
}}
"""

_MAIN = """\
/* An example: streams a ramp through the model. Replace sample() by a sensor and use() by what listens. */
#include "{name}.h"

static {name}_t model;

static {name}_input sample(unsigned at)
{{
    return ({name}_input)({ramp});
}}

static volatile float heard;

static void use(const float *y)
{{
    heard = y[0];
}}

int main(void)
{{
    static {name}_input x[{guard}_SAMPLES * {guard}_INPUTS];
    static float y[{guard}_SAMPLES * {guard}_OUTPUTS];
    {name}_init(&model);
    for (unsigned at = 0; at < 1000u; at++) {{
        for (unsigned i = 0; i < {guard}_SAMPLES * {guard}_INPUTS; i++)
            x[i] = sample(at + i);
        {name}_step(&model, x, y);
        use(y);
    }}
    return 0;
}}
"""


def files(contract: Contract, name: str, graph: Placed) -> dict[str, str]:
    """The text of every C file, by name. ``graph`` is the generated source with its entry ``{name}_graph``."""
    work = max(graph.work, 1)
    sizes = [prod(state.shape) for state in contract.states]
    members = [
        f"    float {state.input}[{size}]; /* {state.layer} */"
        for state, size in zip(contract.states, sizes, strict=True)
    ]
    members.append(f"    float work[{work}];")
    samples = contract.chunk or 1
    arguments = [f"(void *)model->{state.input}" for state in contract.states]
    starts = [_start(state) for state in contract.states if state.start is not None]
    resets = [
        f"    memset(model->{state.input}, 0, sizeof model->{state.input});"
        if state.start is None
        else f"    memcpy(model->{state.input}, start_of_{state.input}, sizeof model->{state.input});"
        for state in contract.states
    ]
    tokens = contract.vocabulary is not None
    facts = {
        "name": name,
        "guard": name.upper(),
        "title": f"{contract.meta.get('arch', 'A state-space model')}, written by ssmrt {contract.ssmrt_version}.",
        "bytes": 4 * (sum(sizes) + work),
        "what": "sample" if contract.chunk is None else f"{samples} samples",
        "samples": samples,
        "inputs": 1 if tokens else contract.d_input,
        "outputs": contract.d_output,
        "x_type": "int64_t" if tokens else "float",
        "members": "\n".join(members),
        "indent": " " * len(f"void {name}_step("),
        "resets": "\n".join(resets) or "    (void)model;",
        "prototype": graph.prototype,
        "starts": "\n" + "\n".join(starts) if starts else "",
        "begin": f"\n    {name}_reset(model);" if starts else "",
        "arguments": ", ".join(["(const void *)x", *arguments, "(void *)y", *arguments, "model->work"]),
        "ramp": f"at % {contract.vocabulary}u" if tokens else "(float)(at % 100u) / 100.0f",
    }
    return {
        f"{name}.h": _HEADER.format(**facts),
        f"{name}.c": _SOURCE.format(**facts),
        f"{name}_graph.c": graph.source,
        "main.c": _MAIN.format(**facts),
    }


def _start(state: State) -> str:
    """A layer's state before the first sample, as an array of C."""
    numbers = [f"{value:.9e}f" for value in state.initial().ravel()]
    rows = [f"    {', '.join(numbers[i : i + 6])}," for i in range(0, len(numbers), 6)]
    head = (
        f"/* {state.layer}, before the first sample. */\nstatic const float start_of_{state.input}[{len(numbers)}] = {{"
    )
    return "\n".join([head, *rows, "};", ""])
