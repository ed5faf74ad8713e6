/* What an emulated board offers to proof.c. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void print(const char *text);
void print_number(const char *label, uint32_t value);

/* A counter of time, and how far it went since start_counter; 24 bits at least. */
void start_counter(void);
uint32_t read_counter(void);

/* Runs 2 * turns instructions. */
void spin(uint32_t turns);

/* The stack pointer of whoever calls. */
#if defined(__arm__)
#define STACK_POINTER(sp) __asm__ volatile("mov %0, sp" : "=r"(sp))
#else
#define STACK_POINTER(sp) __asm__ volatile("mv %0, sp" : "=r"(sp))
#endif

#endif
