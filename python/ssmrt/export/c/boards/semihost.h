/* Between the files of a board. */
#ifndef SEMIHOST_H
#define SEMIHOST_H

#include <stdint.h>

int semihost(int operation, const void *argument);
void start(void);
void fault(void);
void leave(uint32_t status);

#endif
