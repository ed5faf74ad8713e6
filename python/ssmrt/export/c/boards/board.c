/* Semihosting's output and exit; each processor has its own call. */
#include "semihost.h"

#include "board.h"

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

void leave(uint32_t status)
{
    const uint32_t reason[2] = {0x20026u /* ADP_Stopped_ApplicationExit */, status};
    semihost(0x20, reason); /* SYS_EXIT_EXTENDED: the emulator's exit status is ours */
    for (;;)
        ;
}

extern uint32_t data_load, data_start, data_end, bss_start, bss_end;

int main(void);

/* From the reset of the processor, when its stack and its FPU are there. */
void start(void)
{
    for (uint32_t *from = &data_load, *to = &data_start; to < &data_end;)
        *to++ = *from++;
    for (uint32_t *to = &bss_start; to < &bss_end;)
        *to++ = 0u;
    leave((uint32_t)main());
}

void fault(void)
{
    print("fault\n");
    leave(100u);
}
