// The start-up of the library, in order, and what a forked child does again.
#pragma once

namespace vsocket::shim {

void BindRealCalls();  // real.cc
void AfterForkInChild();

}  // namespace vsocket::shim
