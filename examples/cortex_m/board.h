/* What the emulated board offers to main(). */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void print(const char *text);
void print_number(const char *label, uint32_t value);

#endif
