/* Streams the vectors through the model; compares, counts instructions, measures the stack. */
#include "board.h"
#include "model.h"

/* Of unlike bytes: a loop that stores equal ones would become a call of memset, whose own frame it would destroy. */
#define PAINT 0x1badd00du
#define PAINTED 16384u
#define TURNS 50000u

extern uint32_t stack_limit;

static MODEL_T model;
static float y[MODEL_OUTPUTS];

static float size(float value)
{
    return value < 0.0f ? -value : value;
}

/* Instructions in 256ths that one tick of the counter stands for. */
static uint32_t calibrate(void)
{
    start_counter();
    spin(TURNS);
    return 512u * TURNS / read_counter();
}

int main(void)
{
    uint64_t ticks = 0u;
    float error = 0.0f, peak = 0.0f;
    const uint32_t a_tick = calibrate();
    MODEL_INIT(&model);
    uint32_t *here;
    STACK_POINTER(here);
    uint32_t *const limit = here - &stack_limit > (int)PAINTED ? here - PAINTED : &stack_limit;
    for (uint32_t *word = limit; word < here; word++)
        *word = PAINT;
    for (unsigned step = 0; step < STEPS; step++) {
        start_counter();
        MODEL_STEP(&model, MODEL_X + step * MODEL_INPUTS, y);
        ticks += read_counter();
        for (unsigned i = 0; i < MODEL_OUTPUTS; i++) {
            const float expected = MODEL_Y[step * MODEL_OUTPUTS + i];
            const float off = size(y[i] - expected);
            if (!(off <= error)) /* a NaN stays */
                error = off;
            if (size(expected) > peak)
                peak = size(expected);
        }
    }
    const uint32_t *lowest = limit;
    while (lowest < here && *lowest == PAINT)
        lowest++;
    print_number("instructions", (uint32_t)(ticks * a_tick / 256u / STEPS));
    print_number("stack", (uint32_t)((uint8_t *)here - (uint8_t *)lowest));
    print_number("error_e9", error < 4.0f * peak ? (uint32_t)(error / peak * 1e9f) : 4000000000u);
    return 0;
}
