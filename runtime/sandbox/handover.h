#ifndef SHALE_SANDBOX_HANDOVER_H
#define SHALE_SANDBOX_HANDOVER_H

// The file descriptor at which the builder offers a program to the first processes of its
// containers. offerRunner (init.go) puts the program there, and handover.c executes it.
#define SHALE_RUNNER_FD 200

#endif
