#ifndef SHALE_EARLY_H
#define SHALE_EARLY_H

// See runtime/userns/entry.h.
int shale_userns_wanted(int argc, char **argv);

#endif
