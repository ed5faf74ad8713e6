"""The C files of a model: header, source and weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import Document, Embedding, first
from .functions import sources
from .program import TABLES, Held, Program

Array = NDArray[Any]


@dataclass(frozen=True)
class Interface:
    """What a caller of the C sees."""

    name: str
    title: str
    d_input: int
    d_output: int
    vocabulary: int | None
    labels: tuple[str, ...] | None
    sample_rate: float | None
    exponent: int | None = None  # of an input in fixed point: q stands for q 2^-exponent

    @property
    def guard(self) -> str:
        """The prefix of macros."""
        return self.name.upper()

    @property
    def input_type(self) -> str:
        """Of one number of a sample."""
        if self.exponent is not None:
            return "int16_t"
        return "float" if self.vocabulary is None else "int32_t"


def interface(document: Document, name: str, title: str, exponent: int | None = None) -> Interface:
    """The interface of a Document."""
    head = first(document.root)
    vocabulary = len(head.weight) if isinstance(head, Embedding) else None
    return Interface(
        name, title, document.d_input, document.d_output, vocabulary, document.labels, document.sample_rate, exponent
    )


def comment(text: str) -> str:
    """The text where it may stand in a comment."""
    return (
        "".join(c if c.isprintable() and c.isascii() else "?" for c in text).replace("*/", "* /").replace("/*", "/ *")
    )


_HEADER = """\
/* {title}
 *
 *   static {name}_t model;               {bytes} bytes, all the memory that it takes but stack
 *   {name}_init(&model);                 once
 *   {name}_step(&model, x, y);           for every sample
 *   {name}_reset(&model);                before another sequence
 *
 * x and y must not overlap. Several models may run side by side, each in one thread at a time.
 */
#ifndef {guard}_H
#define {guard}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Samples a call; numbers a sample. */
#define {guard}_SAMPLES 1
#define {guard}_INPUTS {d_input}
#define {guard}_OUTPUTS {d_output}
{more}
typedef {input_type} {name}_input;{tokens}

/* Numbers are read by two. */
#ifdef __GNUC__
#define {guard}_ALIGNED __attribute__((aligned(8)))
#else
#define {guard}_ALIGNED
#endif

typedef struct {{
    {guard}_ALIGNED {held} state[{state}];
}} {name}_t;

void {name}_init({name}_t *model);
void {name}_reset({name}_t *model);
void {name}_step({name}_t *model, const {name}_input x[{guard}_INPUTS], float y[{guard}_OUTPUTS]);
{block}{labels}
#ifdef __cplusplus
}}
#endif

#endif
"""


_BLOCK = """
/* As many samples at once, one behind the other, each answered as {name}_step does: faster, with more stack. */
#define {guard}_BLOCK {samples}
void {name}_step_block({name}_t *model, const {name}_input x[{guard}_BLOCK * {guard}_INPUTS],
{indent}float y[{guard}_BLOCK * {guard}_OUTPUTS]);
"""


def header(i: Interface, p: Program, block: Program | None) -> str:
    """``{name}.h`` of a step and perhaps a block of steps."""
    more = ""
    if i.sample_rate is not None:
        more += f"#define {i.guard}_SAMPLE_RATE {_number(i.sample_rate)}\n"
    if i.exponent is not None:
        more += "/* The input v is given as v * 2^exponent, rounded, within -32768 .. 32767. */\n"
        more += f"#define {i.guard}_INPUT_EXPONENT {i.exponent}\n"
    if i.vocabulary is not None:
        more += f"#define {i.guard}_VOCABULARY {i.vocabulary}\n"
    names = f"\n/* What the outputs are. */\nextern const char *const {i.name}_labels[{i.guard}_OUTPUTS];\n"
    return _HEADER.format(
        title=comment(i.title),
        name=i.name,
        guard=i.guard,
        bytes=4 * max(p.state_size, 1),
        d_input=i.d_input,
        d_output=i.d_output,
        more=more,
        input_type=i.input_type,
        tokens="" if i.vocabulary is None else f" /* 0 to {i.vocabulary - 1}; others are read past the table */",
        state=max(p.state_size, 1),
        held=p.held,
        labels=names if i.labels is not None else "",
        block="" if block is None else _BLOCK.format(**_parts(i, block)),
    )


def _parts(i: Interface, block: Program) -> dict[str, Any]:
    indent = " " * len(f"void {i.name}_step_block(")
    return {"name": i.name, "guard": i.guard, "samples": block.samples, "indent": indent}


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


_SOURCE = """\
/* {title} */
#include "{name}.h"
#include "{name}_weights.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(__GNUC__) || defined(_MSC_VER)
#define RESTRICT __restrict
#else
#define RESTRICT
#endif

/* Functions with many constants stay functions: in a loop their constants would take its registers. */
#ifdef __GNUC__
#define APART __attribute__((noinline))
#else
#define APART
#endif

{dsp}{functions}
{kernels}
{labels}void {name}_init({name}_t *model)
{{
    {name}_reset(model);
}}

void {name}_reset({name}_t *model)
{{
    memset(model, 0, sizeof *model);
{starts}}}

void {name}_step({name}_t *model, const {name}_input x[{guard}_INPUTS], float y[{guard}_OUTPUTS])
{{
{step}
}}
{block}"""

_DSP = """\
/* Two products of 16 bits at once, and saturation, where the processor has them. Negative numbers are taken
 * to keep their sign when they are shifted. */
#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_BIG_ENDIAN)
#include <arm_acle.h>
#define DSP
#endif
#if defined(__ARM_FEATURE_SAT) && defined(__GNUC__)
#define SATURATES
#endif
#ifdef __GNUC__
#define BY_4(p) __builtin_assume_aligned(p, 4)
#else
#define BY_4(p) (p)
#endif

"""

_BLOCK_BODY = """
void {name}_step_block({name}_t *model, const {name}_input x[{guard}_BLOCK * {guard}_INPUTS],
{indent}float y[{guard}_BLOCK * {guard}_OUTPUTS])
{{
{body}
}}
"""


def _body(i: Interface, p: Program) -> str:
    local = []
    for kind in p.tables:
        short, table, _ = TABLES[kind]
        local.append(f"    const {kind} *const {short} = {i.name}_{table};")
    # A model without memory has one number that nobody reads, since C has no empty structs.
    local.append(f"    {p.held} *const s = model->state;" if p.state_size else "    (void)model;")
    if p.work:
        local.append(f"    {i.guard}_ALIGNED {p.number} work[{p.work}];")
    return "\n".join([*local, *_calls(p.calls)])


def source(i: Interface, p: Program, block: Program | None) -> str:
    """``{name}.c`` of a step and perhaps a block of steps, which share constants and state."""
    programs = [p] if block is None else [p, block]
    kernels = {name: text for program in programs for name, text in program.kernels.items()}
    labels = ""
    if i.labels is not None:
        inner = ", ".join(string(label) for label in i.labels)
        labels = f"const char *const {i.name}_labels[{i.guard}_OUTPUTS] = {{{inner}}};\n\n"
    text = _SOURCE.format(
        title=comment(i.title),
        name=i.name,
        guard=i.guard,
        dsp=_DSP if p.number == "int16_t" else "",
        functions=sources(function for program in programs for function in program.functions),
        kernels="\n".join(kernels.values()),
        labels=labels,
        starts="".join(_starts(p.states, i.name)),
        step=_body(i, p),
        block="" if block is None else _BLOCK_BODY.format(body=_body(i, block), **_parts(i, block)),
    )
    for unused, name in (("<float.h>", "FLT_MAX"), ("<stddef.h>", "NULL")):
        if name not in text:
            text = text.replace(f"#include {unused}\n", "")
    return text


def _starts(states: Iterable[Held], name: str) -> Iterator[str]:
    at = 0
    for held in states:
        if held.start is not None:
            target = f"model->state + {held.offset}"
            yield f"    memcpy({target}, {name}_starts + {at}, {held.size} * sizeof(float));\n"
            at += held.size


def _calls(calls: Iterable[tuple[str, str]]) -> Iterator[str]:
    last = None
    for layer, statement in calls:
        if layer != last:
            yield f"    /* {comment(layer) or 'the root'} */"
        last = layer
        yield f"    {statement}"


def string(text: str) -> str:
    """A C string literal: octal escapes, since hexadecimal ones have no end, and no trigraphs."""
    inner = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{inner}"'


def weights_header(i: Interface, p: Program) -> str:
    """``{name}_weights.h``."""
    lines = [f"extern const {kind} {name}[{size}];" for kind, name, size, _ in _tables(i, p)]
    guard = f"{i.guard}_WEIGHTS_H"
    body = "\n".join(lines)
    return f"""\
/* Constants of {i.name}.c, in {i.name}_weights.c. */
#ifndef {guard}
#define {guard}

#include "{i.name}.h"

#ifdef __cplusplus
extern "C" {{
#endif

{body}

#ifdef __cplusplus
}}
#endif

#endif
"""


_WITHOUT_SUFFIX = """
/* The shortest decimals that read back as the floats. The suffix f would be a tenth of this file. */
#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wfloat-conversion"
#endif
"""


def weights(i: Interface, p: Program) -> str:
    """``{name}_weights.c``."""
    parts = [f'#include "{i.name}_weights.h"\n']
    if "float" in p.tables:
        parts.append(_WITHOUT_SUFFIX)
    for kind, name, size, lines in _tables(i, p):
        parts.append(f"\n{i.guard}_ALIGNED const {kind} {name}[{size}] = {{\n" + "\n".join(lines) + "\n};\n")
    return "".join(parts)


def _tables(i: Interface, p: Program) -> Iterator[tuple[str, str, int, list[str]]]:
    """(type, name, size, lines) of every table."""
    for kind, tables in p.tables.items():
        lines = []
        last = None
        for layer, array in tables:
            if layer != last:
                lines.append(f"/* {comment(layer) or 'the root'} */")
            last = layer
            lines += _rows(map(_bare if kind == "float" else _whole, array))
        yield kind, f"{i.name}_{TABLES[kind][1]}", sum(len(a) for _, a in tables), lines
    starts = [held.start for held in p.states if held.start is not None]
    if starts:
        flat = np.concatenate([np.asarray(s, np.float32).reshape(-1) for s in starts])
        yield "float", f"{i.name}_starts", len(flat), list(_rows(map(_bare, flat)))


def _whole(value: Any) -> str:
    # The least int32 is no literal in C: its digits are beyond it before they get their sign.
    return str(max(int(value), -(2**31) + 1))


def _rows(numbers: Iterable[str]) -> Iterator[str]:
    row = ""
    for number in numbers:
        if len(row) + len(number) > 110:
            yield row
            row = ""
        row += number + ","
    if row:
        yield row


def _bare(value: np.float32) -> str:
    """`shortest` without its suffix, but where rounding to a double first would end elsewhere."""
    text = shortest(value)
    bare = text.rstrip("f")
    return bare if np.float32(float(bare)) == value else text


def shortest(value: np.float32) -> str:
    """The shortest C literal that reads back as this float."""
    if value == 0:
        return "0"
    plain = np.format_float_positional(value, unique=True, trim="-")
    digits, _, exponent = np.format_float_scientific(value, unique=True, trim="-").partition("e")
    whole, _, fraction = digits.partition(".")
    power = int(exponent) - len(fraction)
    short = f"{whole}{fraction}e{power}f" if power else f"{whole}{fraction}"
    if "." in plain:
        plain = plain.replace("0.", ".", 1) if plain.lstrip("-").startswith("0.") else plain
        return min(f"{plain}f", short, key=len)
    return plain if abs(float(value)) < 2**24 else short
