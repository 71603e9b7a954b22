/* The rows of a step on a processor of x86-64-v3. */

#include "native.h"

#ifdef MANY_CPUS
#pragma GCC target("arch=x86-64-v3")
#define LANES 8
#define MEASURE_ROW measure_row_v3
#include "rows.h"
#endif
