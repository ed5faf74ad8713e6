/* Reset and semihosting for QEMU's mps2-an386 (Cortex-M4F); no C library start-up code is needed. */
#include <stdint.h>

#include "board.h"

extern uint32_t stack_top, data_load, data_start, data_end, bss_start, bss_end;

int main(void);

static int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void print(const char *text)
{
    semihost(0x04, text); /* SYS_WRITE0 */
}

void print_number(const char *label, uint32_t value)
{
    char digits[12];
    int at = sizeof digits;
    digits[--at] = '\0';
    digits[--at] = '\n';
    do
        digits[--at] = (char)('0' + value % 10u);
    while ((value /= 10u) != 0u);
    print(label);
    print(" ");
    print(digits + at);
}

static void leave(uint32_t status)
{
    const uint32_t reason[2] = {0x20026u /* ADP_Stopped_ApplicationExit */, status};
    semihost(0x20, reason); /* SYS_EXIT_EXTENDED: QEMU's exit status is ours */
    for (;;)
        ;
}

static void fault(void)
{
    print("fault\n");
    leave(100u);
}

void reset(void)
{
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the FPU is off after reset */
    __asm__ volatile("dsb\n isb");
    for (uint32_t *from = &data_load, *to = &data_start; to < &data_end;)
        *to++ = *from++;
    for (uint32_t *to = &bss_start; to < &bss_end;)
        *to++ = 0u;
    leave((uint32_t)main());
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault,      fault, fault, fault, fault, fault, fault, fault,
};
