/* The rows of a step on a processor of x86-64-v4. */

#include "native.h"

#ifdef MANY_CPUS
#pragma GCC target("arch=x86-64-v4")
#define LANES 16
#define MEASURE_ROW measure_row_v4
#include "rows.h"
#endif
