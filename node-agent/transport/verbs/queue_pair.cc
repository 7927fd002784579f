#include "node-agent/transport/verbs/queue_pair.h"

#include <arpa/inet.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vsocket::transport {
namespace {

constexpr std::uint32_t kSmallestInline = 16;  // a position cell
constexpr std::uint8_t kMinRnrTimer = 12;      // 0.64 ms; the credits of the lanes see to it that it never runs
constexpr std::uint8_t kRnrRetries = 6;        // 7 would be for ever
constexpr std::uint32_t kNumberMask = 0xffffff;

CompletionStatus StatusOf(ibv_wc_status status) {
  switch (status) {
    case IBV_WC_SUCCESS:
      return CompletionStatus::kSuccess;
    case IBV_WC_WR_FLUSH_ERR:
      return CompletionStatus::kFlushed;
    case IBV_WC_RETRY_EXC_ERR:
      return CompletionStatus::kRetriesExhausted;
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return CompletionStatus::kReceiverNotReady;
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
      return CompletionStatus::kRemoteRefused;
    default:
      return CompletionStatus::kLocalFailure;
  }
}

Completion::Kind KindOf(ibv_wc_opcode opcode) {
  if (opcode == IBV_WC_RECV_RDMA_WITH_IMM) return Completion::Kind::kReceivedImmediate;
  return opcode == IBV_WC_RECV ? Completion::Kind::kReceived : Completion::Kind::kSent;
}

ibv_wr_opcode OpcodeOf(SendRequest::Operation operation) {
  switch (operation) {
    case SendRequest::Operation::kWriteWithImmediate:
      return IBV_WR_RDMA_WRITE_WITH_IMM;
    case SendRequest::Operation::kSend:
      return IBV_WR_SEND;
    case SendRequest::Operation::kWrite:
      break;
  }
  return IBV_WR_RDMA_WRITE;
}

}  // namespace

Failure<FabricError> VerbsFailure(int error, const char* what) {
  return Failure(FabricError{error, std::string(what) + ": " + std::strerror(error)});
}

int VerbsCompletionQueue::Poll(std::span<Completion> into) {
  std::array<ibv_wc, 32> done;
  const int wanted = static_cast<int>(std::min(into.size(), done.size()));
  const int count = ibv_poll_cq(queue_.get(), wanted, done.data());
  for (int i = 0; i < count; ++i) {
    const ibv_wc& from = done[static_cast<std::size_t>(i)];
    Completion& to = into[static_cast<std::size_t>(i)];
    to = {from.wr_id, from.qp_num, StatusOf(from.status), Completion::Kind::kSent, 0, 0};
    if (from.status != IBV_WC_SUCCESS) continue;  // nothing else is valid then
    to.kind = KindOf(from.opcode);
    to.length = from.byte_len;
    if ((from.wc_flags & IBV_WC_WITH_IMM) != 0) to.immediate = ntohl(from.imm_data);
  }
  return count;
}

Result<bool, FabricError> VerbsCompletionQueue::RequestNotification() {
  const int error = ibv_req_notify_cq(queue_.get(), 0);
  if (error != 0) return VerbsFailure(error, "ibv_req_notify_cq");
  return true;
}

Result<std::unique_ptr<QueuePair>, FabricError> VerbsQueuePair::Create(ibv_pd* domain, ibv_cq* completions, const QueuePairLimits& wanted,
                                                                       const DeviceWish& wish, const DeviceChoice& choice,
                                                                       std::uint16_t lid, bool ethernet) {
  ibv_qp_init_attr attributes{};
  QueuePairHandle pair;
  // There is no way to ask how much a device takes inline: less and less, until it agrees.
  for (std::uint32_t inline_bytes = std::max(wanted.inline_bytes, kSmallestInline); !pair && inline_bytes >= kSmallestInline;
       inline_bytes /= 2) {
    attributes = {};
    attributes.send_cq = attributes.recv_cq = completions;
    attributes.qp_type = IBV_QPT_RC;
    attributes.cap.max_send_wr = wanted.sends;
    attributes.cap.max_recv_wr = wanted.receives;
    attributes.cap.max_send_sge = attributes.cap.max_recv_sge = 1;
    attributes.cap.max_inline_data = inline_bytes;
    pair.reset(ibv_create_qp(domain, &attributes));
  }
  if (!pair) return VerbsFailure(errno, "ibv_create_qp");
  const QueuePairLimits limits{wanted.sends, wanted.receives, std::min(attributes.cap.max_inline_data, wanted.inline_bytes)};
  std::unique_ptr<VerbsQueuePair> made(new VerbsQueuePair(std::move(pair), limits, wish, choice, lid, ethernet));
  const auto ready = made->ToInit();
  if (!ready) return Failure(ready.Error());
  return std::unique_ptr<QueuePair>(std::move(made));
}

VerbsQueuePair::VerbsQueuePair(QueuePairHandle pair, const QueuePairLimits& limits, const DeviceWish& wish, const DeviceChoice& choice,
                               std::uint16_t lid, bool ethernet)
    : pair_(std::move(pair)), limits_(limits), wish_(wish), choice_(choice), lid_(lid), ethernet_(ethernet) {
  // Not to be guessed, so that packets of an earlier queue pair are not taken for this one's.
  if (::getrandom(&packet_sequence_, sizeof packet_sequence_, 0) < 0) packet_sequence_ = pair_->qp_num * 2654435761U;
  packet_sequence_ &= kNumberMask;
}

Result<bool, FabricError> VerbsQueuePair::ToInit() {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = choice_.port;
  attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  const int error = ibv_modify_qp(pair_.get(), &attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (error != 0) return VerbsFailure(error, "ibv_modify_qp to INIT");
  return true;
}

QueuePairAddress VerbsQueuePair::Address() const {
  return {pair_->qp_num, packet_sequence_, lid_, choice_.mtu, choice_.gid.bytes};
}

Result<bool, FabricError> VerbsQueuePair::Connect(const QueuePairAddress& peer) {
  if (peer.mtu < IBV_MTU_256 || peer.mtu > IBV_MTU_4096 || peer.number > kNumberMask || peer.packet_sequence > kNumberMask)
    return VerbsFailure(EINVAL, "the peer's address");
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = static_cast<ibv_mtu>(std::min(peer.mtu, choice_.mtu));
  attributes.dest_qp_num = peer.number;
  attributes.rq_psn = peer.packet_sequence;
  attributes.max_dest_rd_atomic = 0;  // nobody reads
  attributes.min_rnr_timer = kMinRnrTimer;
  attributes.ah_attr.port_num = choice_.port;
  attributes.ah_attr.sl = wish_.service_level;
  attributes.ah_attr.dlid = peer.lid;
  attributes.ah_attr.is_global = ethernet_ ? 1 : 0;
  attributes.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(choice_.gid.index);
  attributes.ah_attr.grh.hop_limit = 64;
  attributes.ah_attr.grh.traffic_class = wish_.traffic_class;
  std::memcpy(attributes.ah_attr.grh.dgid.raw, peer.gid.data(), peer.gid.size());
  int error = ibv_modify_qp(
      pair_.get(), &attributes,
      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (error != 0) return VerbsFailure(error, "ibv_modify_qp to RTR");
  attributes = {};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.timeout = wish_.timeout;
  attributes.retry_cnt = wish_.retry_count;
  attributes.rnr_retry = kRnrRetries;
  attributes.sq_psn = packet_sequence_;
  attributes.max_rd_atomic = 0;
  error = ibv_modify_qp(pair_.get(), &attributes,
                        IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  if (error != 0) return VerbsFailure(error, "ibv_modify_qp to RTS");
  return true;
}

Result<bool, FabricError> VerbsQueuePair::PostSend(std::span<const SendRequest> requests) {
  sends_.assign(requests.size(), {});
  pieces_.assign(requests.size(), {});
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const SendRequest& from = requests[i];
    ibv_send_wr& to = sends_[i];
    pieces_[i] = {from.local_address, from.length, from.local_key};
    to.wr_id = from.id;
    to.next = i + 1 < requests.size() ? &sends_[i + 1] : nullptr;
    to.sg_list = &pieces_[i];
    to.num_sge = from.length == 0 ? 0 : 1;
    to.opcode = OpcodeOf(from.operation);
    if (from.signalled) to.send_flags |= IBV_SEND_SIGNALED;
    if (from.inlined && from.length != 0) to.send_flags |= IBV_SEND_INLINE;
    to.imm_data = htonl(from.immediate);
    to.wr.rdma.remote_addr = from.remote_address;
    to.wr.rdma.rkey = from.remote_key;
  }
  ibv_send_wr* refused = nullptr;
  const int error = requests.empty() ? 0 : ibv_post_send(pair_.get(), sends_.data(), &refused);
  if (error != 0) return VerbsFailure(error, "ibv_post_send");
  return true;
}

Result<bool, FabricError> VerbsQueuePair::PostReceive(std::span<const ReceiveRequest> requests) {
  receives_.assign(requests.size(), {});
  pieces_.assign(requests.size(), {});
  for (std::size_t i = 0; i < requests.size(); ++i) {
    pieces_[i] = {requests[i].local_address, requests[i].length, requests[i].local_key};
    receives_[i].wr_id = requests[i].id;
    receives_[i].next = i + 1 < requests.size() ? &receives_[i + 1] : nullptr;
    receives_[i].sg_list = &pieces_[i];
    receives_[i].num_sge = requests[i].length == 0 ? 0 : 1;
  }
  ibv_recv_wr* refused = nullptr;
  const int error = requests.empty() ? 0 : ibv_post_recv(pair_.get(), receives_.data(), &refused);
  if (error != 0) return VerbsFailure(error, "ibv_post_recv");
  return true;
}

void VerbsQueuePair::Abort() {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  // Fails when the device has gone; then nothing is carried out either.
  (void)ibv_modify_qp(pair_.get(), &attributes, IBV_QP_STATE);
}

}  // namespace vsocket::transport
