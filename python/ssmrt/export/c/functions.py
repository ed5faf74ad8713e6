"""Element-wise functions in C99: branch-free, without a library, within 2e-7 max(1, |f|).

They are the engine's, with its polynomials (``tools/fit_functions.py``): `tests/test_export_c.py` compares both.
"""

from __future__ import annotations

from collections.abc import Iterable

# Each function with those that it calls. ``least`` and ``most`` compile to a select.
_SOURCES: dict[str, tuple[tuple[str, ...], str]] = {
    "two": (
        (),
        """\
/* Two neighbouring numbers, at an even place. A Cortex-M's FPU loads them by one instruction, as a double; it has few
 * registers for sums, and what two instructions multiply and add takes it longer to write than one. */
#if defined(__GNUC__) && defined(__ARMEL__) && defined(__ARM_FP) && !defined(__ARM_FEATURE_MVE)
#if __ARM_ARCH_PROFILE == 'M'
#define PAIRS
#endif
#endif
#ifdef PAIRS
typedef double both __attribute__((may_alias));
typedef union {
    double whole;
    float of[2];
} pair;
#define FUSED(a, b, c) fmaf(a, b, c)
#define SECOND 0
#else
typedef struct {
    float of[2];
} pair;
#define FUSED(a, b, c) ((c) + (a) * (b))
#define SECOND 2
#endif
static inline pair two(const float *at)
{
    pair p;
#ifdef PAIRS
    p.whole = *(const both *)(const void *)at;
#else
    p.of[0] = at[0];
    p.of[1] = at[1];
#endif
    return p;
}
""",
    ),
    "least": (
        (),
        """\
/* A NaN stays one. */
static inline float least(float x, float bound)
{
    return x > bound ? bound : x;
}
""",
    ),
    "most": (
        (),
        """\
static inline float most(float x, float bound)
{
    return x < bound ? bound : x;
}
""",
    ),
    "scaled": (
        (),
        """\
/* x 2^n, where n are the lowest bits of shifted: an integer in -126 .. 127 that SHIFT was added to. */
static inline float scaled(float x, float shifted)
{
    uint32_t bits, n;
    memcpy(&bits, &x, sizeof bits);
    memcpy(&n, &shifted, sizeof n);
    bits += n << 23;
    memcpy(&x, &bits, sizeof x);
    return x;
}
""",
    ),
    "power2": (
        ("scaled",),
        """\
/* 2^t for t in -126 .. 126. */
static inline float power2(float t)
{
    const float shifted = t + SHIFT;
    const float f = t - (shifted - SHIFT);
    float p = 1.582633e-4f;
    p = p * f + 1.3417747e-3f;
    p = p * f + 9.617064e-3f;
    p = p * f + 5.5502728e-2f;
    p = p * f + 2.4022655e-1f;
    p = p * f + 6.9314724e-1f;
    p = p * f + 1.0f;
    return scaled(p, shifted);
}
""",
    ),
    "expm1_": (
        ("scaled",),
        """\
/* e^x - 1 for x in -87 .. 87, with all its digits near 0. */
static inline float expm1_(float x)
{
    const float t = x * LOG2_E;
    const float shifted = t + SHIFT;
    const float f = t - (shifted - SHIFT);
    const float scale = scaled(1.0f, shifted);
    float p = 1.582633e-4f;
    p = p * f + 1.3417747e-3f;
    p = p * f + 9.617064e-3f;
    p = p * f + 5.5502728e-2f;
    p = p * f + 2.4022655e-1f;
    p = p * f + 6.9314724e-1f;
    return p * f * scale + (scale - 1.0f);
}
""",
    ),
    "exp_": (
        ("power2", "least", "most"),
        """\
/* e^x, for x beyond 87 as for 87. */
static inline float exp_(float x)
{
    return power2(most(least(x, 87.0f), -87.0f) * LOG2_E);
}
""",
    ),
    "rsqrt": (
        (),
        """\
/* 1 / sqrt(x), by Newton's method from a guess that halves the exponent. */
static inline float rsqrt(float x)
{
    uint32_t bits;
    float y;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5f3759dfu - (bits >> 1);
    memcpy(&y, &bits, sizeof y);
    y *= 1.5f - 0.5f * x * y * y;
    y *= 1.5f - 0.5f * x * y * y;
    y *= 1.5f - 0.5f * x * y * y;
    return y;
}
""",
    ),
    "gelu": (
        ("power2", "least"),
        """\
/* x Phi(x) = max(x, 0) - t Phi(-t), t = |x|; the normal distribution's tail Phi(-t) is 2^q(t). */
static inline float gelu(float x)
{
    const float size = fabsf(x), t = least(size, 12.0f);
    float q = 2.9941808e-5f;
    q = q * t - 7.400091e-4f;
    q = q * t + 7.977834e-3f;
    q = q * t - 5.323864e-2f;
    q = q * t - 4.5891544e-1f;
    q = q * t - 1.1511471f;
    q = q * t - 1.0f;
    return 0.5f * (x + size) - t * power2(q);
}
""",
    ),
    "gelu_tanh": (
        ("power2", "least", "most"),
        """\
/* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), where (1 + tanh(v)) / 2 is 1 / (1 + e^-2v). */
static inline float gelu_tanh(float x)
{
    const float low = most(x, -10.0f), t = least(low, 10.0f);
    return low / (1.0f + power2(t * (-0.102943240f * (t * t) - 2.30220820f)));
}
""",
    ),
    "sigmoid": (
        ("power2", "least"),
        """\
static inline float sigmoid(float x)
{
    const float size = fabsf(x), e = power2(least(size, 87.0f) * -LOG2_E);
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
""",
    ),
    "silu": (
        ("power2", "least"),
        """\
/* x sigmoid(x) */
static inline float silu(float x)
{
    const float size = fabsf(x), e = power2(least(size, 87.0f) * -LOG2_E);
    return (x < 0.0f ? x * e : x) / (1.0f + e);
}
""",
    ),
    "tanh_": (
        ("expm1_", "least", "most"),
        """\
static inline float tanh_(float x)
{
    const float e = expm1_(2.0f * most(least(x, 10.0f), -10.0f));
    return e / (e + 2.0f);
}
""",
    ),
    "softplus": (
        ("power2", "least"),
        """\
/* max(x, 0) + log(1 + u), u = e^-|x|. */
static inline float softplus(float x)
{
    const float size = fabsf(x), u = power2(least(size, 87.0f) * -LOG2_E);
    float p = 5.561648e-3f;
    p = p * u - 3.0887682e-2f;
    p = p * u + 8.0609635e-2f;
    p = p * u - 1.3880126e-1f;
    p = p * u + 1.9217367e-1f;
    p = p * u - 2.4874884e-1f;
    p = p * u + 3.3323777e-1f;
    p = p * u - 4.9999774e-1f;
    p = p * u + 1.0f;
    return p * u + 0.5f * (x + size);
}
""",
    ),
    "elu": (
        ("expm1_", "least", "most"),
        """\
static inline float elu(float x)
{
    return most(x, 0.0f) + expm1_(most(least(x, 0.0f), -87.0f));
}
""",
    ),
    "relu": (
        ("most",),
        """\
static inline float relu(float x)
{
    return most(x, 0.0f);
}
""",
    ),
    "leaky_relu": (
        (),
        """\
static inline float leaky_relu(float x)
{
    return x < 0.0f ? 0.01f * x : x;
}
""",
    ),
    "sqrelu": (
        ("most",),
        """\
static inline float sqrelu(float x)
{
    const float r = most(x, 0.0f);
    return r * r;
}
""",
    ),
}

# What a function of a Document is called in C; those that math.h has under their own names end in an underscore.
NAMES = {
    **{name: name for name in _SOURCES if not name.endswith("_")},
    "tanh": "tanh_",
}

CONSTANTS = """\
/* Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits. -ffast-math would take it out again. */
#ifdef __FAST_MATH__
#error "compile this file without -ffast-math"
#endif
#define SHIFT 12582912.0f
#define LOG2_E 1.44269504f
"""


def sources(names: Iterable[str]) -> str:
    """The C text of these functions and of those that they call."""
    wanted: set[str] = set()

    def want(name: str) -> None:
        for other in _SOURCES[name][0]:
            want(other)
        wanted.add(name)

    for name in names:
        want(name)
    texts = [text for name, (_, text) in _SOURCES.items() if name in wanted]
    return "\n".join(([CONSTANTS] if "scaled" in wanted else []) + texts)
