#include "node-agent/peer/stream.h"

#include <chrono>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>

#include "node-agent/peer/convert.h"

namespace vsocket::peer {
namespace {

constexpr int kHandshakeMs = 5000;
constexpr int kStreamsPerConnection = 4;
constexpr std::chrono::milliseconds kStopGrace{500};

std::string Text(grpc::string_ref text) {
  return {text.data(), text.size()};
}

Result<NodeIdentity, std::string> IdentityIn(const std::shared_ptr<const grpc::AuthContext>& context, const std::string& trust_domain) {
  if (context == nullptr) return Failure<std::string>("no TLS");
  const auto certificates = context->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (certificates.empty()) return Failure<std::string>("no certificate was shown");
  return ReadIdentity(Text(certificates[0]), trust_domain);
}

// What the two kinds of stream share: the queue of what is to be written, and the order of operations that gRPC asks for, which is at most
// one write and one read at a time, and nothing after the end.
//
// gRPC may call back before an operation's function has returned, so none is begun under the lock: Advance begins one after the other, and
// whoever comes meanwhile, from inside too, leaves word and goes.
//
// The stream keeps itself alive (`self_`) until gRPC has said OnDone; then who has its events lets go of it.
template <typename Reactor>
class BasicStream : public Stream, public Reactor {
 public:
  void Write(const Message& message) override {
    std::unique_lock lock(mutex_);
    if (ending_) return;
    queue_.push_back(ToProto(message));
    if (queue_.size() >= kHighWater) full_ = true;
    Advance(lock);
  }
  void ReadOn() override {
    std::unique_lock lock(mutex_);
    read_wanted_ = true;
    Advance(lock);
  }
  void Finish() override {
    std::unique_lock lock(mutex_);
    ending_ = true;
    Advance(lock);
  }
  [[nodiscard]] std::size_t Backlog() const override {
    const std::lock_guard lock(mutex_);
    return queue_.size();
  }

  void OnReadDone(bool ok) override {
    if (ok) return events_->OnMessage(FromProto(incoming_));
    std::unique_lock lock(mutex_);
    read_ended_ = true;
    ending_ = true;
    Advance(lock);
  }
  void OnWriteDone(bool ok) override {
    std::unique_lock lock(mutex_);
    writing_ = false;
    queue_.pop_front();
    if (!ok) queue_.clear();  // nobody reads any more
    const bool drained = full_ && queue_.size() <= kLowWater;
    if (drained) full_ = false;
    Advance(lock);
    if (lock.owns_lock()) lock.unlock();
    if (drained) events_->OnDrained();
  }

 protected:
  explicit BasicStream(std::shared_ptr<StreamEvents> events) : events_(std::move(events)) {}

  virtual void EndStream() = 0;
  // gRPC does not know it any more. This object may be gone when it returns.
  void LetGo(const std::string& why) {
    const std::shared_ptr<StreamEvents> events = events_;
    std::shared_ptr<Stream> last;
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      last.swap(self_);
    }
    if (events != nullptr) events->OnEnd(why, std::move(last));
  }

  mutable std::mutex mutex_;  // guards what follows but events_
  std::shared_ptr<StreamEvents> events_;
  std::shared_ptr<Stream> self_;
  std::deque<v1::PeerMessage> queue_;  // the first is being written when writing_
  v1::PeerMessage incoming_;
  bool begun_ = false;  // operations may be begun
  bool read_wanted_ = false;
  bool writing_ = false;
  bool full_ = false;
  bool ending_ = false;  // nothing more is accepted for writing
  bool read_ended_ = false;
  bool over_ = false;       // EndStream was called
  bool advancing_ = false;  // somebody is in Advance

  // Gives the lock back held.
  void Advance(std::unique_lock<std::mutex>& lock) {
    if (advancing_ || !begun_) return;
    const std::shared_ptr<Stream> alive = self_;
    advancing_ = true;
    while (!over_) {
      if (read_wanted_ && !read_ended_) {
        read_wanted_ = false;
        lock.unlock();
        this->StartRead(&incoming_);
      } else if (!writing_ && !queue_.empty()) {
        writing_ = true;
        const v1::PeerMessage* first = &queue_.front();
        lock.unlock();
        this->StartWrite(first);
      } else if (!writing_ && ending_) {
        over_ = true;
        lock.unlock();
        EndStream();
      } else {
        break;
      }
      lock.lock();
    }
    advancing_ = false;
  }
};

class MadeStream final : public BasicStream<grpc::ClientBidiReactor<v1::PeerMessage, v1::PeerMessage>> {
 public:
  MadeStream(std::shared_ptr<grpc::Channel> channel, std::string trust_domain, std::shared_ptr<StreamEvents> events)
      : BasicStream(std::move(events)),
        channel_(std::move(channel)),
        stub_(v1::Peer::NewStub(channel_)),
        trust_domain_(std::move(trust_domain)) {}

  void Begin(std::shared_ptr<Stream> self) {
    self_ = std::move(self);
    stub_->async()->Session(&context_, this);
    AddHold();  // operations are begun from other threads until EndStream
    StartCall();
    std::unique_lock lock(mutex_);
    begun_ = true;
    Advance(lock);
  }
  void Cancel() override {
    context_.TryCancel();
    Finish();
  }

  void OnReadInitialMetadataDone(bool ok) override {
    if (!ok) return;
    if (const auto identity = IdentityIn(context_.auth_context(), trust_domain_)) events_->OnIdentity(identity.Value());
  }
  void OnDone(const grpc::Status& status) override { LetGo(status.ok() ? "" : status.error_message()); }

 private:
  void EndStream() override {
    // Half-closed: the far side reads everything, then ends its half.
    StartWritesDone();
    RemoveHold();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Peer::Stub> stub_;
  const std::string trust_domain_;
  grpc::ClientContext context_;
};

class TakenStream final : public BasicStream<grpc::ServerBidiReactor<v1::PeerMessage, v1::PeerMessage>> {
 public:
  explicit TakenStream(grpc::CallbackServerContext* context) : BasicStream(nullptr), context_(context) {}

  void Begin(std::shared_ptr<Stream> self, std::shared_ptr<StreamEvents> events) {
    events_ = std::move(events);
    std::unique_lock lock(mutex_);
    self_ = std::move(self);
    begun_ = true;
    if (events_ == nullptr) ending_ = true;
    Advance(lock);
  }
  void Refuse(std::shared_ptr<Stream> self, const grpc::Status& status) {
    refusal_ = status;
    Begin(std::move(self), nullptr);
  }
  void Cancel() override {
    context_->TryCancel();
    Finish();
  }

  void OnCancel() override { Finish(); }
  void OnDone() override { LetGo(""); }

 private:
  void EndStream() override { ServerBidiReactor::Finish(refusal_); }
  grpc::CallbackServerContext* const context_;
  grpc::Status refusal_ = grpc::Status::OK;
};

class GrpcListener final : public Listener, public v1::Peer::CallbackService {
 public:
  GrpcListener(std::string trust_domain, AcceptStream accept) : trust_domain_(std::move(trust_domain)), accept_(std::move(accept)) {}
  ~GrpcListener() override { Stop(); }

  std::string Open(const std::string& address, const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(address, credentials, &port);
    builder.RegisterService(this);
    builder.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
    builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnection);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) return "cannot listen on " + address;
    port_ = static_cast<std::uint16_t>(port);
    return {};
  }
  [[nodiscard]] std::uint16_t Port() const override { return port_; }
  void Stop() override {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + kStopGrace);
    server_->Wait();
    server_.reset();
  }

  grpc::ServerBidiReactor<v1::PeerMessage, v1::PeerMessage>* Session(grpc::CallbackServerContext* context) override {
    auto stream = std::make_shared<TakenStream>(context);
    const auto identity = IdentityIn(context->auth_context(), trust_domain_);
    if (identity) {
      stream->Begin(stream, accept_(identity.Value(), stream));
    } else {
      stream->Refuse(stream, {grpc::StatusCode::UNAUTHENTICATED, identity.Error()});
    }
    return stream.get();
  }

 private:
  const std::string trust_domain_;
  const AcceptStream accept_;
  std::unique_ptr<grpc::Server> server_;
  std::uint16_t port_ = 0;
};

}  // namespace

std::shared_ptr<Stream> Dial(const std::string& endpoint, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
                             const std::string& trust_domain, std::shared_ptr<StreamEvents> events) {
  grpc::ChannelArguments arguments;
  // One try a call: when to try again is decided by who calls Dial. A connection of its own, made with the certificate of now.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  auto stream = std::make_shared<MadeStream>(grpc::CreateCustomChannel(endpoint, credentials, arguments), trust_domain, std::move(events));
  stream->Begin(stream);
  return stream;
}

Result<std::unique_ptr<Listener>, std::string> Listener::Start(const std::string& address,
                                                               const std::shared_ptr<grpc::ServerCredentials>& credentials,
                                                               const std::string& trust_domain, AcceptStream accept) {
  auto listener = std::make_unique<GrpcListener>(trust_domain, std::move(accept));
  const std::string problem = listener->Open(address, credentials);
  if (!problem.empty()) return Failure(problem);
  return std::unique_ptr<Listener>(std::move(listener));
}

}  // namespace vsocket::peer
