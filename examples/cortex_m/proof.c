/* Streams vectors.h through the model on the device; compares, counts instructions, measures the stack. */
#include "board.h"
#include "ssm.h"
#include "vectors.h"

/* QEMU with -icount shift=0 runs one instruction a nanosecond; the board's SysTick counts 25 MHz. */
#define INSTRUCTIONS_A_TICK 40u
/* Of unlike bytes: a loop that stores equal ones would become a call of memset, whose own frame it would destroy. */
#define PAINT 0x1badd00du

static volatile uint32_t *const systick = (volatile uint32_t *)0xe000e010u; /* control, reload, value */

extern uint32_t stack_limit;

static ssm_t model;
static float y[SSM_SAMPLES * SSM_OUTPUTS];

static uint32_t *stack_pointer(void)
{
    uint32_t *sp;
    __asm__ volatile("mov %0, sp" : "=r"(sp));
    return sp;
}

static float size(float value)
{
    return value < 0.0f ? -value : value;
}

int main(void)
{
    uint32_t ticks = 0u;
    float error = 0.0f, peak = 0.0f;
    systick[1] = 0xffffffu;
    ssm_init(&model);
    uint32_t *const here = stack_pointer();
    for (uint32_t *word = &stack_limit; word < here; word++)
        *word = PAINT;
    for (unsigned step = 0; step < STEPS; step++) {
        systick[2] = 0u;
        systick[0] = 5u; /* on, no interrupt, the processor's clock */
        const uint32_t before = systick[2];
        ssm_step(&model, vectors_x + step * SSM_SAMPLES * SSM_INPUTS, y);
        ticks += (before - systick[2]) & 0xffffffu;
        for (unsigned i = 0; i < SSM_SAMPLES * SSM_OUTPUTS; i++) {
            const float expected = vectors_y[step * SSM_SAMPLES * SSM_OUTPUTS + i];
            const float off = size(y[i] - expected);
            if (!(off <= error)) /* a NaN stays */
                error = off;
            if (size(expected) > peak)
                peak = size(expected);
        }
    }
    const uint32_t *lowest = &stack_limit;
    while (lowest < here && *lowest == PAINT)
        lowest++;
    print_number("instructions", (uint32_t)((uint64_t)ticks * INSTRUCTIONS_A_TICK / STEPS));
    print_number("stack", (uint32_t)((uint8_t *)here - (uint8_t *)lowest));
    print_number("error_e9", error < 4.0f * peak ? (uint32_t)(error / peak * 1e9f) : 4000000000u);
    return error <= 1e-5f * peak ? 0 : 1;
}
