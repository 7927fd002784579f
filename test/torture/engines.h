// Running the ends of a batch to their end, one function a style. Each returns with all ends closed.
#pragma once

#include "test/torture/end.h"

void RunLoop(struct Lane* lane, struct End ends[], unsigned count);
void RunTurns(struct End* end);
void RunTakeover(struct End* end);
void RunForkTurns(struct End* end);
void RunThreads(struct End* end);
void RunForkWriter(struct End* end);
void RunInetd(struct End* end);

// Blocking steps that the styles share. False (or kIoReset) when the connection was reset, as the plan allows.
bool SendAll(struct End* end, uint64_t n);
bool RecvAll(struct End* end, uint64_t n);
// Sends all up to the goal, waiting at the half where the plan says so, and ends the direction where the plan says so.
void WriteToGoal(struct End* end, bool writer);
// Receives all up to the goal, then the end of the stream or the reset where the plan says so.
void ReadToEnd(struct End* end);

// fork() of this end's process; the child dies with its parent and holds no other connection. 0 in the child.
int ForkChild(struct End* end);
// Waits for a child of ForkChild and fails the run unless it ended well.
void AwaitChild(struct End* end, int child);

// The echo program of kInetd: stdin to stdout until the end of the stream. The exit status.
int EchoMain(void);
