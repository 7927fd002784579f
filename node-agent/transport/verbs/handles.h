// Sole ownership of verbs objects; each is destroyed after those made from it, which the order of members sees to.
#pragma once

#include <infiniband/verbs.h>

#include <memory>

namespace vsocket::transport {

template <auto kDestroy>
struct Destroyer {
  template <typename T>
  void operator()(T* object) const {
    kDestroy(object);
  }
};

using DeviceList = std::unique_ptr<ibv_device*, Destroyer<&ibv_free_device_list>>;
using ContextHandle = std::unique_ptr<ibv_context, Destroyer<&ibv_close_device>>;
using DomainHandle = std::unique_ptr<ibv_pd, Destroyer<&ibv_dealloc_pd>>;
using ChannelHandle = std::unique_ptr<ibv_comp_channel, Destroyer<&ibv_destroy_comp_channel>>;
using CompletionQueueHandle = std::unique_ptr<ibv_cq, Destroyer<&ibv_destroy_cq>>;
using QueuePairHandle = std::unique_ptr<ibv_qp, Destroyer<&ibv_destroy_qp>>;
using MemoryHandle = std::unique_ptr<ibv_mr, Destroyer<&ibv_dereg_mr>>;

}  // namespace vsocket::transport
