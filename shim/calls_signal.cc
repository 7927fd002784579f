// Interposers that install signal handlers: a wait on a ring must know whether the kernel would have restarted the call (signal(7)).
#include <csignal>

#include "shim/process.h"
#include "shim/real.h"
#include "shim/wait.h"

namespace vsocket::shim {
namespace {

// What the kernel holds now, whichever call brought it about. A vfork child has handlers of its own, and our memory.
void NoteHandlerOf(int signal) {
  struct sigaction now = {};
  if (Real().sigaction(signal, nullptr, &now) != 0 || InVforkChild()) return;
  const bool handled = (now.sa_flags & SA_SIGINFO) || (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN);
  NoteSignalHandler(signal, handled, now.sa_flags & SA_RESTART);
}

using Install = sighandler_t (*)(int, sighandler_t);

// A libc without `install` never gave the program its address either, but a program may have found ours: signal(2) then.
sighandler_t InstallBy(Install install, int signal, sighandler_t handler) {
  const sighandler_t before = (install != nullptr ? install : Real().signal)(signal, handler);
  if (before != SIG_ERR) NoteHandlerOf(signal);
  return before;
}

}  // namespace

VSOCKET_INTERPOSE(int, sigaction, int signal, const struct sigaction* action, struct sigaction* before) {
  const int result = Real().sigaction(signal, action, before);
  if (result == 0 && action != nullptr) NoteHandlerOf(signal);
  return result;
}

VSOCKET_INTERPOSE(sighandler_t, signal, int signal, sighandler_t handler) {
  return InstallBy(Real().signal, signal, handler);
}
VSOCKET_INTERPOSE(sighandler_t, bsd_signal, int signal, sighandler_t handler) {
  return InstallBy(Real().bsd_signal, signal, handler);
}
VSOCKET_INTERPOSE(sighandler_t, sysv_signal, int signal, sighandler_t handler) {
  return InstallBy(Real().sysv_signal, signal, handler);
}
VSOCKET_INTERPOSE(sighandler_t, __sysv_signal, int signal, sighandler_t handler) {
  return InstallBy(Real().__sysv_signal, signal, handler);
}

VSOCKET_INTERPOSE(int, siginterrupt, int signal, int interrupts) {
  const int result = Real().siginterrupt(signal, interrupts);
  if (result == 0) NoteHandlerOf(signal);
  return result;
}

}  // namespace vsocket::shim
