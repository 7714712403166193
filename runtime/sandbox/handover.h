#ifndef SHALE_SANDBOX_HANDOVER_H
#define SHALE_SANDBOX_HANDOVER_H

// The descriptor at which a builder holds the program of its containers' first
// processes.
#define SHALE_RUNNER_FD 200

#endif
