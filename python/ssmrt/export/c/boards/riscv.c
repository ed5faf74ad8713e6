/* RISC-V: reset, semihosting and the counter of instructions. */
#include "board.h"
#include "semihost.h"

int semihost(int operation, const void *argument)
{
    register int a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    /* The three must stand side by side, uncompressed, on one page. */
    __asm__ volatile(".balign 16\n"
                     ".option push\n.option norvc\n"
                     "slli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n"
                     ".option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
}

/* Control registers are an extension of their own, which the model's code needs not have. */
#define ZICSR(instruction) ".option push\n.option arch, +zicsr\n" instruction "\n.option pop"

static uint32_t started;

static uint32_t instructions(void)
{
    uint32_t count;
    __asm__ volatile(ZICSR("csrr %0, minstret") : "=r"(count));
    return count;
}

void start_counter(void)
{
    started = instructions();
}

uint32_t read_counter(void)
{
    return instructions() - started;
}

void spin(uint32_t turns)
{
    __asm__ volatile("1: addi %0, %0, -1\n bnez %0, 1b" : "+r"(turns));
}

/* The FPU is off after reset (mstatus.FS); a trap ends the run. */
__attribute__((section(".vectors"), naked, used)) void reset(void)
{
    __asm__ volatile(".option push\n.option arch, +zicsr\n"
                     "la sp, stack_top\n"
                     "la t0, fault\n"
                     "csrw mtvec, t0\n"
                     "li t0, 0x6000\n"
                     "csrs mstatus, t0\n"
                     "j start\n"
                     ".option pop");
}
