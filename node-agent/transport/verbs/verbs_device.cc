#include "node-agent/transport/verbs/verbs_device.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "node-agent/transport/verbs/handles.h"
#include "node-agent/transport/verbs/queue_pair.h"

namespace vsocket::transport {
namespace {

bool SetNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

DeviceEvent EventOf(ibv_event_type type) {
  switch (type) {
    case IBV_EVENT_DEVICE_FATAL:
      return DeviceEvent::kDeviceGone;
    case IBV_EVENT_PORT_ERR:
      return DeviceEvent::kPortDown;
    case IBV_EVENT_PORT_ACTIVE:
      return DeviceEvent::kPortUp;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_PATH_MIG_ERR:
      return DeviceEvent::kQueuePairFailed;
    default:
      return DeviceEvent::kOther;
  }
}

class VerbsDevice final : public Device {
 public:
  VerbsDevice(ContextHandle context, DeviceWish wish, DeviceChoice choice)
      : context_(std::move(context)), wish_(std::move(wish)), choice_(std::move(choice)) {}

  Result<bool, FabricError> Prepare() {
    domain_.reset(ibv_alloc_pd(context_.get()));
    if (!domain_) return VerbsFailure(errno, "ibv_alloc_pd");
    channel_.reset(ibv_create_comp_channel(context_.get()));
    if (!channel_) return VerbsFailure(errno, "ibv_create_comp_channel");
    if (!SetNonBlocking(channel_->fd) || !SetNonBlocking(context_->async_fd)) return VerbsFailure(errno, "fcntl");
    ibv_port_attr port{};
    if (const int error = ibv_query_port(context_.get(), choice_.port, &port); error != 0) return VerbsFailure(error, "ibv_query_port");
    lid_ = port.lid;
    ethernet_ = port.link_layer == IBV_LINK_LAYER_ETHERNET;
    return true;
  }

  [[nodiscard]] std::string Name() const override { return choice_.device + "/" + std::to_string(choice_.port); }

  Result<MemoryKeys, FabricError> Register(void* address, std::size_t length, Access access) override {
    // Without IBV_ACCESS_RELAXED_ORDERING: a position must not overtake its payload. A writable page is asked for in either case, so that
    // what is pinned is the page that the pod has.
    int flags = IBV_ACCESS_LOCAL_WRITE;
    if (access == Access::kRemoteWrite) flags |= IBV_ACCESS_REMOTE_WRITE;
    MemoryHandle memory(ibv_reg_mr(domain_.get(), address, length, flags));
    if (!memory) return VerbsFailure(errno, "ibv_reg_mr");
    const MemoryKeys keys{memory->lkey, access == Access::kRemoteWrite ? memory->rkey : 0};
    memory_.emplace(keys.local, std::move(memory));
    return keys;
  }

  void Deregister(const MemoryKeys& keys) override { memory_.erase(keys.local); }

  Result<std::unique_ptr<CompletionQueue>, FabricError> CreateCompletionQueue(std::uint32_t depth) override {
    CompletionQueueHandle queue(ibv_create_cq(context_.get(), static_cast<int>(depth), nullptr, channel_.get(), 0));
    if (!queue) return VerbsFailure(errno, "ibv_create_cq");
    return std::unique_ptr<CompletionQueue>(std::make_unique<VerbsCompletionQueue>(std::move(queue)));
  }

  Result<std::unique_ptr<QueuePair>, FabricError> CreateQueuePair(CompletionQueue& completions, const QueuePairLimits& wanted) override {
    return VerbsQueuePair::Create(domain_.get(), static_cast<VerbsCompletionQueue&>(completions).Get(), wanted, wish_, choice_, lid_,
                                  ethernet_);
  }

  [[nodiscard]] int CompletionFd() const override { return channel_->fd; }
  [[nodiscard]] int EventFd() const override { return context_->async_fd; }

  void ClearNotifications() override {
    ibv_cq* queue = nullptr;
    void* context = nullptr;
    while (ibv_get_cq_event(channel_.get(), &queue, &context) == 0) ibv_ack_cq_events(queue, 1);
  }

  bool TakeEvent(DeviceEvent* event, std::uint32_t* queue_pair) override {
    ibv_async_event from{};
    if (ibv_get_async_event(context_.get(), &from) != 0) return false;
    *event = EventOf(from.event_type);
    *queue_pair = *event == DeviceEvent::kQueuePairFailed ? from.element.qp->qp_num : 0;
    if ((*event == DeviceEvent::kPortDown || *event == DeviceEvent::kPortUp) && from.element.port_num != choice_.port)
      *event = DeviceEvent::kOther;
    ibv_ack_async_event(&from);
    return true;
  }

 private:
  ContextHandle context_;
  DeviceWish wish_;
  DeviceChoice choice_;
  DomainHandle domain_;
  ChannelHandle channel_;
  std::unordered_map<std::uint32_t, MemoryHandle> memory_;  // by local key
  std::uint16_t lid_ = 0;
  bool ethernet_ = true;
};

}  // namespace

Result<std::unique_ptr<Device>, FabricError> OpenVerbsDevice(const DeviceWish& wish) {
  const auto choice = ChooseDevice(wish, ListDevicePorts());
  if (!choice) return Failure(FabricError{ENODEV, choice.Error()});
  int count = 0;
  const DeviceList devices(ibv_get_device_list(&count));
  for (int i = 0; devices && i < count; ++i) {
    if (choice.Value().device != ibv_get_device_name(devices.get()[i])) continue;
    ContextHandle context(ibv_open_device(devices.get()[i]));
    if (!context) return VerbsFailure(errno, "ibv_open_device");
    auto device = std::make_unique<VerbsDevice>(std::move(context), wish, choice.Value());
    const auto prepared = device->Prepare();
    if (!prepared) return Failure(prepared.Error());
    return std::unique_ptr<Device>(std::move(device));
  }
  return Failure(FabricError{ENODEV, choice.Value().device + " has just gone"});
}

}  // namespace vsocket::transport
