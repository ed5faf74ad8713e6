/* Cortex-M: reset, semihosting and SysTick. */
#include "board.h"
#include "semihost.h"

extern uint32_t stack_top;

int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static volatile uint32_t *const systick = (volatile uint32_t *)0xe000e010u; /* control, reload, value */
static uint32_t started;

void start_counter(void)
{
    systick[1] = 0xffffffu;
    systick[2] = 0u;
    systick[0] = 5u; /* on, no interrupt, the processor's clock */
    started = systick[2];
}

uint32_t read_counter(void)
{
    return (started - systick[2]) & 0xffffffu;
}

void spin(uint32_t turns)
{
    __asm__ volatile(".syntax unified\n1: subs %0, %0, #1\n bne 1b" : "+l"(turns) : : "cc");
}

static void reset(void)
{
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the FPU is off after reset */
    __asm__ volatile("dsb\n isb");
#endif
    start();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault,      fault, fault, fault, fault, fault, fault, fault,
};
