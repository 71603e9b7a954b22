/* The rows of a step on any processor. */

#define LANES 4
#define MEASURE_ROW measure_row_default
#include "rows.h"
