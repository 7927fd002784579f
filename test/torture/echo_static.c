// The echo program of kInetd linked statically: LD_PRELOAD does not reach it, so the socket must be plain TCP when it starts.
#include "test/torture/engines.h"

int main(void) {
  return EchoMain();
}
